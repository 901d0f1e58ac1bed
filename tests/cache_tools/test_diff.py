"""`python -m cache_tools diff`: equal files, first and worst differences, exit codes."""

from pathlib import Path

import numpy as np
import pytest

import lua_compat
from cache_tools.__main__ import main


def diff(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    code = main(["diff", *map(str, words)])
    return code, capsys.readouterr().out.splitlines()


def test_encodings_of_one_value_do_not_differ(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = golden / "format_more"
    for other in ("nn_flat.ascii.t7", "nn_flat.b32.t7", "nn_flat.be.t7"):
        assert diff(capsys, folder / "nn_flat.t7", folder / other) == (0, ["no differences"])


def test_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = tmp_path / "left.t7", tmp_path / "right.t7"
    lua_compat.save(left, {"x": np.array([1.0, 2, 3]), "gone": 1, "list": [1, 2]})
    lua_compat.save(right, {"x": np.array([1.0, 2.5, 1]), "list": [1, "2"]})
    assert diff(capsys, left, right) == (
        1,
        [
            ".gone only on the left: 1",
            "x: 2 elements differ; first [2]: 2.0 against 2.5; worst by 2: [3]: 3.0 against 1.0",
            "list[2]: number 2 against string '2'",
            "3 differences",
        ],
    )
    code, lines = diff(capsys, left, right, "--limit", 1)
    assert (code, lines[1:]) == (1, ["... 2 more", "3 differences"])
    assert "2 differences" in diff(capsys, left, right, "--tolerance", 2)[1]


def test_another_number_of_objects(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = golden / "format" / "three_objects.binary.t7"
    first = tmp_path / "first.t7"
    lua_compat.save(first, next(lua_compat.iter_objects(several)))
    code, lines = diff(capsys, several, first)
    assert code == 1
    assert lines[0] == f"object 2: only in {several}"


def test_a_file_that_is_not_there(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["diff", str(golden / "format" / "list.binary.t7"), str(tmp_path / "none.t7")]) == 2
    )  # 1 says that they differ
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nan", "-1", "inf", "much"])
def test_a_tolerance_that_says_nothing_is_refused(text: str, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nan or inf all files would be equal."""
    file = str(golden / "format" / "list.binary.t7")
    with pytest.raises(SystemExit, match="2"):
        main(["diff", file, file, f"--tolerance={text}"])
    assert f"expected a number from 0 on, found '{text}'" in capsys.readouterr().err
