"""caches check, relocate and build."""

import argparse
import os
import shutil
import tarfile
from pathlib import Path

import pytest

import lua_compat
from cache_tools import caches
from cache_tools.__main__ import main
from xnornet_port.dataset_cache import read_dataset
from xnornet_port.errors import XnorNetError

NAMES = ["meanstdCache.t7", "testCache.t7", "trainCache.t7"]


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    caches.add_arguments(parser)
    return caches.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def cache(golden: Path, tmp_path: Path) -> Path:
    """A copy of real Torch7's caches, made for /mnt/raid00/data/imagenet2012."""
    return Path(shutil.copytree(golden / "cache", tmp_path / "cache"))


def test_check_of_good_caches(golden: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", cache, "--data", golden / "imagenet") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{cache}/trainCache.t7: 5 classes, 50 pictures in {golden}/imagenet/train",
        "  50 of 50 are there",
        f"{cache}/testCache.t7: 5 classes, 30 pictures in {golden}/imagenet/val",
        "  30 of 30 are there",
        f"{cache}/meanstdCache.t7: mean 0.3565 0.3605 0.3389, std 0.2153 0.2068 0.1904",
        "all is well",
    ]


def test_check_reads_pictures(golden: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One training picture is corrupt on purpose."""
    assert run("check", cache, "--data", golden / "imagenet", "--read") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  49 of 50 are readable"
    assert "n07753592_9.JPEG" in lines[2]
    assert lines[4] == "  30 of 30 are readable"
    assert lines[-1] == "1 problem"


def test_check_where_the_pictures_are_not(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", cache) == 1
    out = capsys.readouterr().out
    assert "  0 of 50 are there" in out
    assert "  ... and 47 more" in out
    assert out.endswith("2 problems\n")


def test_check_of_what_is_missing_or_damaged(golden: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "trainCache.t7").write_text("text")
    (cache / "meanstdCache.t7").unlink()
    assert run("check", cache, "--data", golden / "imagenet") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "trainCache.t7" in lines[0]
    assert "meanstdCache.t7" in lines[-2]
    assert lines[-1] == "2 problems"


def test_check_finds_classes_in_another_order(
    golden: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("build", golden / "imagenet", tmp_path / "new", "--samples", 2)
    shutil.copy(tmp_path / "new" / "trainCache.t7", cache)
    assert run("check", cache, "--data", golden / "imagenet") == 1
    assert "labels would be wrong" in capsys.readouterr().out


def test_relocate(golden: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: lua_compat.load(cache / name) for name in ("trainCache.t7", "testCache.t7")}
    assert run("relocate", cache, f"{golden}/imagenet/") == 0
    assert capsys.readouterr().out.splitlines()[0] == (f"{cache}/trainCache.t7: 50 pictures in {golden}/imagenet/train")
    for name, part in (("trainCache.t7", "train"), ("testCache.t7", "val")):
        moved = read_dataset(str(cache / name))
        assert moved.folder == str(golden / "imagenet" / part)
        assert all(os.path.isfile(moved.path(number)) for number in range(1, len(moved) + 1))
        after = lua_compat.load(cache / name)
        changed = [key for key in before[name] if not lua_compat.equal(before[name][key], after[key])]
        assert sorted(changed) == ["imagePath", "paths"]
        assert list(after) == list(before[name])
    assert run("check", cache) == 0


def test_relocate_to_another_folder(golden: Path, cache: Path, tmp_path: Path) -> None:
    """To a place where the pictures are not yet, and back again: the first file, byte for byte."""
    run("relocate", cache, "/data/imagenet", "--output", tmp_path / "there")
    assert (cache / "trainCache.t7").read_bytes() == (golden / "cache" / "trainCache.t7").read_bytes()
    assert sorted(os.listdir(tmp_path / "there")) == NAMES
    run("relocate", tmp_path / "there", "/mnt/raid00/data/imagenet2012", "--output", tmp_path / "back")
    for name in NAMES:
        assert (tmp_path / "back" / name).read_bytes() == (golden / "cache" / name).read_bytes()


def test_build(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", golden / "imagenet", tmp_path / "new", "--samples", 2) == 0
    assert "Creating train metadata" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "new")) == NAMES
    assert run("check", tmp_path / "new") == 0
    assert run("build", golden / "imagenet", tmp_path / "new") == 0  # all there: nothing to do
    assert "Loaded mean and std from cache." in capsys.readouterr().out


def test_build_that_cannot_write(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("build", golden / "imagenet", tmp_path / "file", "--samples", 2, "--quiet") == 1
    message = f"{tmp_path}/file: trainCache.t7, testCache.t7, meanstdCache.t7 could not be written there\n"
    assert capsys.readouterr() == ("", message)
    with pytest.raises(XnorNetError, match="--samples is 0"):
        run("build", golden / "imagenet", tmp_path / "new", "--samples", 0)


def tar_of(path: Path, files: dict[str, Path], extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, file in files.items():
            tar.add(file, name)
        if extra is not None:
            tar.addfile(extra)
    return path


def published(cache: Path, tmp_path: Path, extra: tarfile.TarInfo | None = None) -> Path:
    """A cache.tar with the names that the original's README unpacks, and a stray file."""
    (tmp_path / "notes").write_text("x")
    files = {f"./cache/{name}": cache / name for name in NAMES} | {"cache/.DS_Store": tmp_path / "notes"}
    return tar_of(tmp_path / "cache.tar", files, extra)


def test_unpack_a_cache_tar(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = published(cache, tmp_path)
    for _ in range(2):  # a second time the same files are there already
        assert run("unpack", tar, tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == NAMES
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == (cache / name).read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "left out: cache/.DS_Store"
    assert lines[2] == "trainCache.t7: 5 classes, 50 pictures, made for /mnt/raid00/data/imagenet2012/train"


def test_check_a_cache_tar(golden: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = published(cache, tmp_path)
    assert run("check", tar, "--data", golden / "imagenet") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tar}, trainCache.t7: 5 classes, 50 pictures in {golden}/imagenet/train\n")
    assert out.endswith("all is well\n")
    assert run("check", tmp_path / "cache.tar", "--data", golden / "imagenet", "--quiet") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["../trainCache.t7", "/etc/trainCache.t7", "cache/a\nb"])
def test_a_tar_that_leads_out_is_refused(name: str, cache: Path, tmp_path: Path) -> None:
    tar = published(cache, tmp_path, tarfile.TarInfo(name))
    with pytest.raises(XnorNetError, match="a path that leads out of its folder"):
        run("unpack", tar, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tar_with_a_link_or_two_of_a_kind_is_refused(cache: Path, tmp_path: Path) -> None:
    link = tarfile.TarInfo("cache/classes.t7")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(XnorNetError, match=r"'cache/classes.t7', a link or device"):
        run("unpack", published(cache, tmp_path, link), tmp_path / "out")
    with pytest.raises(XnorNetError, match=r"testCache.t7 is in it twice"):
        run("unpack", published(cache, tmp_path, tarfile.TarInfo("testCache.t7")), tmp_path / "out")


def test_a_tar_that_is_none_or_lacks_a_file(cache: Path, tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "some.tar", {"trainCache.t7": cache / "trainCache.t7"})
    with pytest.raises(XnorNetError, match=r"it lacks meanstdCache.t7, testCache.t7"):
        run("unpack", tar, tmp_path / "out")
    tar.write_bytes(published(cache, tmp_path).read_bytes()[:3000])
    with pytest.raises(XnorNetError, match="not a whole tar file"):
        run("unpack", tar, tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_cache_is_not_unpacked(name: str, cache: Path, tmp_path: Path) -> None:
    (cache / name).write_bytes((cache / name).read_bytes()[:50])
    tar = published(cache, tmp_path)
    for words in (["unpack", tar, tmp_path / "out"], ["check", tar]):
        with pytest.raises(XnorNetError, match=rf"^{tar}, {name}\b") as caught:
            run(*words)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path / "out") == []


def test_a_tar_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caches", "unpack", str(tmp_path / "cache.tar"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"cache_tools caches: {tmp_path}/cache.tar: No such file or directory\n"
    assert not (tmp_path / "out").exists()


def test_relocate_leaves_all_as_it_was_where_one_cannot_be(golden: Path, cache: Path, tmp_path: Path) -> None:
    (cache / "testCache.t7").write_text("text")
    with pytest.raises(XnorNetError, match="testCache"):
        run("relocate", cache, "/elsewhere")
    assert (cache / "trainCache.t7").read_bytes() == (golden / "cache" / "trainCache.t7").read_bytes()
    with pytest.raises(XnorNetError, match="testCache"):
        run("relocate", cache, "/elsewhere", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cache_that_is_there_is_not_overwritten(cache: Path, tmp_path: Path) -> None:
    tar = published(cache, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trainCache.t7").write_text("mine")
    with pytest.raises(XnorNetError, match="there already, and other"):
        run("unpack", tar, tmp_path / "out")
    assert (tmp_path / "out" / "trainCache.t7").read_text() == "mine"
    assert os.listdir(tmp_path / "out") == ["trainCache.t7"]  # and neither of the others is put beside it
