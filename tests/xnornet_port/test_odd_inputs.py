"""Whole runs on what no careful person would have: names that are not text, links in circles, paths that lead out."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import lua_compat
from xnornet_port import cli

ODD_NAMES = (b"a b", b"new\nline", b"\xff\xfe", "ü€".encode(), b"-x $(rm) `")


@pytest.fixture
def odd_data(golden: Path, tmp_path: Path) -> str:
    """The golden pictures in folders of odd names; one picture of each part cannot be read."""
    data = os.fsencode(tmp_path) + b"/da\xff ta\n"
    for part in (b"train", b"val"):
        source = os.fsencode(golden / "imagenet") + b"/" + part
        for name, odd in zip(sorted(os.listdir(source)), ODD_NAMES, strict=True):
            shutil.copytree(source + b"/" + name, data + b"/" + part + b"/" + odd)
    broken = data + b"/val/" + ODD_NAMES[0]
    os.rename(broken + b"/ILSVRC2012_val_00000001.JPEG", broken + b"/\nline \xff.JPEG")
    with open(broken + b"/\nline \xff.JPEG", "wb") as file:
        file.write(b"\xff\xd8\xff no picture")
    os.symlink(b".", data + b"/train/" + ODD_NAMES[1] + b"/circle")
    os.symlink(b"two", data + b"/train/one")
    os.symlink(b"one", data + b"/train/two")
    return os.fsdecode(data)


def arguments(golden: Path, cache: Path, data: str, *options: object) -> list[str]:
    shutil.copy(golden / "cache" / "meanstdCache.t7", cache)
    words = ["-data", data, "-cache", cache, "-nClasses", 5, "-device", "cpu", "-batchSize", 8, "-epochSize", 2,
             "-nEpochs", 1, "-binaryWeight", "-retrain", golden / "models" / "tiny_bwn.t7", *options]  # fmt: skip
    return [str(word) for word in words]


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_a_run_on_odd_names(golden: Path, tmp_path: Path, odd_data: str, n_donkeys: int,
                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """On a console that takes UTF-8 only."""
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, encoding="utf-8", errors="strict"))
    assert cli.main(arguments(golden, tmp_path, odd_data, "-nDonkeys", n_donkeys)) == 0
    sys.stdout.flush()
    folder = next(tmp_path.glob("alexnet*/*/"))
    classes = lua_compat.load(folder / "classes.t7").to_list()
    assert [name if isinstance(name, bytes) else name.encode() for name in classes] == sorted(ODD_NAMES)
    listed = (folder / "unreadable.txt").read_bytes()
    assert listed.count(b"\n") == len(set(listed.splitlines())) <= 2  # golden has one, too, which is drawn or not
    assert b"/a b/\\nline \xff.JPEG\tdamaged" in listed
    lines = [line for line in console.getvalue().decode().splitlines() if line.startswith("ERROR")]
    assert len(lines) == listed.count(b"\n")
    assert all(line.endswith(": damaged, not a readable JPEG file; the mean colour stands in for it") for line in lines)
    code = cli.main(arguments(golden, tmp_path, odd_data, "-nDonkeys", n_donkeys, "-testOnly"))  # from the caches made
    assert code == 0


def test_errors_about_odd_names_take_one_line(golden: Path, tmp_path: Path, odd_data: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    shutil.rmtree(os.fsencode(odd_data) + b"/val/" + ODD_NAMES[1])
    assert cli.main(arguments(golden, tmp_path, odd_data)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert r"new\nline" in error


def test_a_cache_that_names_files_outside(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is opened, or taken with -allowOutside."""
    data, cache, elsewhere = tmp_path / "data", tmp_path / "cache", tmp_path / "elsewhere.JPEG"
    shutil.copytree(golden / "imagenet", data)
    shutil.copytree(golden / "cache", cache)
    fields = lua_compat.load(cache / "testCache.t7")
    paths = [row.tobytes().rstrip(b"\0") for row in fields["imagePath"]]
    inside = os.fsencode(data) + paths[0][paths[0].index(b"/val/") :]
    shutil.copy(inside, elsewhere)
    paths[0] = os.fsencode(elsewhere)
    width = max(map(len, paths)) + 1
    rows = np.array(paths, dtype=f"S{width}").view(np.int8).reshape(len(paths), width)
    fields["imagePath"] = lua_compat.tensor(rows, "torch.CharTensor")
    lua_compat.save(cache / "testCache.t7", fields)
    words = arguments(golden, cache, str(data), "-nDonkeys", 0, "-testOnly", "-testAll")
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert f"its picture {str(elsewhere)!r} lies outside its own folder" in error
    assert error.endswith("or trust it with -allowOutside\n")
    assert cli.main([*words, "-allowOutside"]) == 0
    assert "image can not be loaded" not in capsys.readouterr().out


def test_a_run_in_a_folder_whose_name_is_no_text_goes_on(golden: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Its states are read again, and TensorBoard's files are written."""
    pytest.importorskip("tensorboard")
    cache = tmp_path / os.fsdecode(b"ca\xffche")
    shutil.copytree(golden / "cache", cache)
    assert cli.main(arguments(golden, cache, str(golden / "imagenet"), "-nDonkeys", 0, "-tensorboard")) == 0
    folder = next(cache.glob("alexnet*/*/"))
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert cli.main(["-resume", str(folder), "-nEpochs", "2"]) == 0
    assert "Resuming" in capsys.readouterr().out
    assert (folder / "model_2.t7").is_file()
