"""`python -m cache_tools inspect`: what is shown of a file, for people and as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

import lua_compat
from cache_tools.__main__ import main
from lua_compat import LuaFunction, LuaTable, TorchObject


@pytest.fixture
def file(tmp_path: Path) -> Path:
    storage = lua_compat.storage(np.arange(6, dtype="f4"))
    tensor = storage.reshape(2, 3).view(lua_compat.Tensor)
    value = LuaTable({"weight": tensor, "bias": tensor[0], "turned": tensor.T, "name": "net\x1b[31m", True: 0.5})
    value["again"] = tensor
    value["code"] = LuaFunction(b"\x1bLJ")
    path = tmp_path / "value.t7"
    lua_compat.save(path, value)
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["inspect", *words])
    return code, capsys.readouterr().out


def test_types_shapes_and_shared_storages(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, str(file))
    lines = text.splitlines()
    assert code == 0
    assert lines[0] == f"{file}: binary, 8-byte longs, little-endian, 1 object"
    assert lines[1] == "table, 7 entries"
    assert "weight torch.FloatTensor 2x3, storage #1 of 3, 24 B" in text
    assert "turned torch.FloatTensor 3x2, storage #1 of 3, 24 B, strides [1, 3]" in text
    assert "again torch.FloatTensor, same as weight" in text
    assert "[True] 0.5" in text
    assert lines[-1] == "3 torch.FloatTensor, 2 tables, 1 function, 1 storage of 24 B together"


def test_control_characters_are_escaped(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = shown(capsys, str(file))
    assert "\x1b" not in text
    assert "x1b[31m" in text


def test_statistics_depth_and_entries(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "min 0.0, max 5.0, mean 2.5" in shown(capsys, str(file), "--stats")[1]
    assert "... 7 more" in shown(capsys, str(file), "--depth", "0")[1]
    assert "... 5 more" in shown(capsys, str(file), "--entries", "2")[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--entries", "0"], "from 1 on"), (["--entries=-5"], "from 1 on"), (["--depth=-1"], "from 0 to 100"),
     (["--depth", "101"], "from 0 to 100"), (["--depth", "two"], "from 0 to 100")],
)  # fmt: skip
def test_numbers_out_of_range(words: list[str], expected: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(file), *words])
    assert f"expected a whole number {expected}, found " in capsys.readouterr().err


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, str(file), "--json", "--stats")
    report = json.loads(text)
    assert code == 0
    assert (report["mode"], report["long_size"], report["byte_order"]) == ("binary", 8, "little")
    (found,) = report["objects"]
    assert found["summary"]["storages"] == 1
    nodes = {node["key"]: node for node in found["tree"]["children"]}
    assert nodes[".weight"]["shape"] == [2, 3]
    assert nodes[".weight"]["storage_users"] == 3
    assert nodes[".weight"]["max"] == 5
    assert nodes[".again"]["same_as"] == "weight"


def test_numbers_that_json_lacks_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lua_compat.save(tmp_path / "inf.t7", [float("inf"), float("nan")])
    tree = json.loads(shown(capsys, str(tmp_path / "inf.t7"), "--json")[1])["objects"][0]["tree"]
    assert [node["value"] for node in tree["children"]] == ["inf", "nan"]


def test_a_network_prints_as_torch7_prints_it(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = shown(capsys, str(shared / "golden" / "models" / "tiny_bwn.t7"))
    log = (shared / "golden" / "runs" / "bwn_sgd" / "stdout.log").read_text()
    assert log.split("=> Model\t\n")[1].split("\n=> Criterion")[0] in text


@pytest.mark.parametrize(
    "name",
    ["tab_self.t7", "gen.t7", "tds_hash.ascii.t7", "nn_gpu.be.t7", "f_nilup.b32.t7", "gmodule.t7", "deep2000.t7"],
)
def test_every_kind_of_value_is_shown(golden: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = golden / "format_more" / name
    assert shown(capsys, str(path), "--stats")[0] == 0
    assert shown(capsys, str(path), "--json", "--depth", "100")[0] == 0


def test_an_expand_is_not_materialised(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, str(golden / "crafted" / "H_expand_bomb.t7"), "--stats")
    assert code == 0
    assert f"{2**40}, storage" in text


def test_several_objects_and_what_is_behind_them(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, str(golden / "format" / "three_objects.binary.t7"))
    assert (code, ", 3 objects" in text) == (0, True)
    code, text = shown(capsys, str(golden / "format_more" / "raw_then_obj.t7"))
    assert (code, "what follows cannot be read" in text) == (1, True)


def test_a_file_that_breaks_off_is_shown_as_far_as_it_goes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the seven entries five come before the function; what is whole of them is shown, then what is wrong."""
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"\x1bLJ")])
    code, text = shown(capsys, str(file))
    assert code == 1
    lines = text.splitlines()
    assert lines[0].endswith(", 0 objects and the beginning of one")
    assert lines[1] == "table, 6 entries"
    assert "weight torch.FloatTensor 2x3, storage #1 of 3, 24 B" in text
    assert lines[-1].startswith(f"what follows cannot be read: {file}, byte ")
    assert lines[-1].count("at code: ") == 1
    code, text = shown(capsys, str(file), "--json")
    report = json.loads(text)
    assert (code, report["breaks_off"], len(report["objects"])) == (1, True, 1)
    assert "at code" in report["problem"]


def test_every_place_a_network_may_break_off_at_is_shown(golden: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    whole = (golden / "modules" / "gModule.t7").read_bytes()
    for length in range(4, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.t7").write_bytes(whole[:length])
        assert main(["inspect", str(tmp_path / "cut.t7")]) == 1
        out, error = capsys.readouterr()
        assert bool(error) != ("what follows cannot be read" in out), "one of the two, and no traceback"


def test_a_nested_payload_and_a_vector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = [TorchObject("A", TorchObject("B", {"x": 1})), TorchObject("tds.Vec", ["a", None, "c"])]
    lua_compat.save(tmp_path / "value.t7", value)
    text = shown(capsys, str(tmp_path / "value.t7"))[1]
    assert "x 1" in text
    assert "tds.Vec, 3 entries" in text


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.t7").write_text("<!DOCTYPE html>")
    assert main(["inspect", str(tmp_path / "page.t7")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cache_tools inspect: ")
    assert "HTML" in error
    assert error.count("\n") == 1


def test_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--help"], 0), (["inspect", "--help"], 0), (["inspect"], 2), (["nothing"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == code
    assert "inspect" in capsys.readouterr().out


def test_more_entries_than_any_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "a.t7", "--entries", "9" * 20])
    assert "expected a whole number from 1 to 9223372036854775807, found" in capsys.readouterr().err
