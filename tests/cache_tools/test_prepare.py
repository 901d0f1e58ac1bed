"""prepare on small files of ImageNet's structure: a tar of class tars, a tar of pictures, a development kit."""

import errno
import gzip
import io
import json
import tarfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cache_tools import prepare
from cache_tools.__main__ import main
from cache_tools.imagenet_devkit import read_devkit, read_list
from cache_tools.shrinking import find_imagemagick
from lua_compat import image
from lua_compat.atomic_file import replace_file
from xnornet_port.dataset import scan_folder
from xnornet_port.errors import XnorNetError

CLASSES = ("n01440764", "n01443537", "n01484850")
WORDS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark")


def jpeg(width: int, height: int, seed: int = 1, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """A smooth picture."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, {"L": 1, "RGB": 3, "CMYK": 4, "RGBA": 4}[mode]))
    picture = Image.fromarray(np.squeeze(small).astype(np.uint8), mode).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    output = io.BytesIO()
    picture.save(output, kind)
    return output.getvalue()


def tar_bytes(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return output.getvalue()


def meta_mat() -> bytes:
    """`synsets` with the fields of the real one: the leaves, numbered in another order than by name, and a parent."""
    kinds = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    rows = [(number, CLASSES[n], WORDS[n], "", 0, []) for number, n in ((1, 2), (2, 0), (3, 1))]
    rows.append((1001, "n00001740", "entity", "that which is", 3, [1, 2, 3]))
    synsets = np.empty((len(rows), 1), dtype=[*kinds, ("wordnet_height", object), ("num_train_images", object)])
    for number, row in enumerate(rows):
        synsets[number, 0] = (*row, 0, 1300)
    output = io.BytesIO()
    scipy.io.savemat(output, {"synsets": synsets})
    return output.getvalue()


TRAIN_SIZES = ((500, 375), (300, 400), (256, 300), (100, 80))
TRAIN = {name: {f"{name}_{n}.JPEG": jpeg(*size, seed=n) for n, size in enumerate(TRAIN_SIZES)} for name in CLASSES}
VALIDATION = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(300 + n, 270, seed=n) for n in range(1, 6)}
TRUTH = (2, 3, 1, 2, 2)  # numbers of meta.mat: tench, goldfish, shark, tench, tench


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    inner = {f"{name}.tar": tar_bytes(files) for name, files in TRAIN.items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(inner))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(VALIDATION))
    kit = {
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in TRUTH).encode(),
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar_bytes(kit)))
    return folder


def go(source: Path, destination: Path, *words: object) -> int:
    return main(["prepare", str(source), str(destination), "--shrinker", "pillow", "-j", "2", *map(str, words)])


def test_from_the_tar_files(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(source, tmp_path / "out") == 3  # done, but not all of ImageNet
    captured = capsys.readouterr()
    assert f"{tmp_path}/out/train: 12 pictures in 3 classes (6 shrunk, 6 copied, 0 there before)" in captured.out
    assert f"{tmp_path}/out/val: 5 pictures in 3 classes (5 shrunk, 0 copied, 0 there before)" in captured.out
    assert "warning: val is not the whole of ImageNet, which has 50,000 pictures in 1,000 classes" in captured.err
    for name in CLASSES:
        folder = tmp_path / "out" / "train" / name
        sizes = [Image.open(io.BytesIO((folder / f"{name}_{n}.JPEG").read_bytes())).size for n in range(4)]
        assert sizes == [(341, 256), (256, 341), (256, 300), (100, 80)]  # 500 * 256 / 375 = 341.3; 400 * 256 / 300
        for n in (2, 3):
            assert (folder / f"{name}_{n}.JPEG").read_bytes() == TRAIN[name][f"{name}_{n}.JPEG"]
    found = {path.name: path.parent.name for path in (tmp_path / "out" / "val").glob("*/*")}
    assert found == dict(zip(VALIDATION, [CLASSES[0], CLASSES[1], CLASSES[2], CLASSES[0], CLASSES[0]], strict=True))
    words = (tmp_path / "out" / "synset_words.txt").read_text().splitlines()
    assert words == [f"{name} {text}" for name, text in zip(CLASSES, WORDS, strict=True)]
    assert len(scan_folder(str(tmp_path / "out" / "train"))) == 12


def test_all_of_it_is_success(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "COMPLETE", {"train": 12, "val": 5})
    tally = prepare.Tally(classes={str(n) for n in range(1000)})
    tally.outcomes["copied"] = 12
    assert prepare.conclude({"train": tally}, tmp_path, print) == 0
    tally.classes.pop()
    assert prepare.conclude({"train": tally}, tmp_path, print) == 3
    tally.classes.add("1000")
    tally.outcomes["copied"] = 11
    assert prepare.conclude({"train": tally}, tmp_path, print) == 3


def test_a_file_far_too_large_is_not_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "LARGEST_PICTURE", 100)
    assert go(source, tmp_path / "out", "--only", "val") == 3
    captured = capsys.readouterr()
    assert captured.err.count("bytes are no picture of ImageNet's") == 5
    assert "val: 0 pictures in 0 classes" in captured.out


def test_a_second_time_goes_on(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(source, tmp_path / "out")
    gone = tmp_path / "out" / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    before = gone.read_bytes()
    kept = tmp_path / "out" / "train" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG"
    stamp = kept.stat().st_mtime_ns
    gone.unlink()
    capsys.readouterr()
    assert go(source, tmp_path / "out") == 3
    assert "train: 12 pictures in 3 classes (1 shrunk, 0 copied, 11 there before)" in capsys.readouterr().out
    assert gone.read_bytes() == before
    assert kept.stat().st_mtime_ns == stamp


def test_other_settings_on_top_are_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(source, tmp_path / "out")
    assert go(source, tmp_path / "out", "--size", 128) == 1
    assert "made otherwise" in capsys.readouterr().err


def test_from_unpacked_folders(source: Path, tmp_path: Path) -> None:
    """Class folders, class tars, and loose validation pictures with a list give what the tar files gave."""
    go(source, tmp_path / "expected")
    unpacked = tmp_path / "unpacked"
    for name, files in TRAIN.items():
        (unpacked / "train" / name).mkdir(parents=True)
        for file, data in files.items():
            (unpacked / "train" / name / file).write_bytes(data)
    (unpacked / "val").mkdir()
    for file, data in VALIDATION.items():
        (unpacked / "val" / file).write_bytes(data)
    classes = [CLASSES[0], CLASSES[1], CLASSES[2], CLASSES[0], CLASSES[0]]
    (tmp_path / "list.txt").write_text("".join(f"{f} {c}\n" for f, c in zip(VALIDATION, classes, strict=True)))
    assert go(unpacked, tmp_path / "one", "--labels", tmp_path / "list.txt") == 3
    (tmp_path / "tars").mkdir()
    for name, files in TRAIN.items():
        (tmp_path / "tars" / f"{name}.tar").write_bytes(tar_bytes(files))
    assert go(unpacked, tmp_path / "two", "--train", tmp_path / "tars", "--val", tmp_path / "one" / "val") == 3
    expected = {path.relative_to(tmp_path / "expected"): path.read_bytes() for path in tmp_path.glob("expected/*/*/*")}
    assert len(expected) == 17
    for name in ("one", "two"):
        assert {
            path.relative_to(tmp_path / name): path.read_bytes() for path in tmp_path.glob(f"{name}/*/*/*")
        } == expected


def test_oddities_of_imagenet(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CMYK JPEG stays one, a PNG called JPEG becomes one, gray stays gray; what is damaged is named and left out."""
    files = {
        "n01440764_1.JPEG": jpeg(320, 300, mode="CMYK"),
        "n01440764_2.JPEG": jpeg(320, 300, mode="RGBA", kind="PNG"),
        "n01440764_3.JPEG": jpeg(320, 300, mode="L"),
        "n01440764_4.JPEG": b"not a picture",
        "n01440764_5.JPEG": jpeg(320, 300)[:3000],
        "._n01440764_6.JPEG": b"left by another system",
    }
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n01440764.tar": tar_bytes(files)}))
    assert go(source, tmp_path / "out", "--only", "train") == 3
    captured = capsys.readouterr()
    assert "left out: n01440764_4.JPEG: not a readable picture" in captured.err
    assert "train: 4 pictures in 1 class " in captured.out
    folder = tmp_path / "out" / "train" / "n01440764"
    opened = [Image.open(io.BytesIO((folder / f"n01440764_{n}.JPEG").read_bytes())) for n in (1, 2, 3, 5)]
    assert [(p.format, p.mode, p.size) for p in opened] == [
        ("JPEG", mode, (273, 256))
        for mode in ("CMYK", "RGB", "L", "RGB")  # 320 * 256 / 300 = 273.07
    ]
    for n, data in ((1, files["n01440764_1.JPEG"]), (3, files["n01440764_3.JPEG"])):
        (tmp_path / "whole.JPEG").write_bytes(data)
        whole, small = (
            image.load(path).mean(axis=(1, 2)) for path in (tmp_path / "whole.JPEG", folder / f"n01440764_{n}.JPEG")
        )
        assert np.abs(whole - small).max() < 0.01  # of 1: smooth pictures keep their mean colour, in all channels
    assert not (tmp_path / "out" / "val").exists()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../n01440764_9.JPEG", tarfile.REGTYPE, "leads out of its folder"),
        ("/tmp/n01440764_9.JPEG", tarfile.REGTYPE, "leads out of its folder"),
        ("n01440764_9.JPEG", tarfile.SYMTYPE, "a link or device"),
        ("n01440764_9.JPEG", tarfile.LNKTYPE, "a link or device"),
        ("n01440764_9.JPEG", tarfile.FIFOTYPE, "a link or device"),
    ],
)
def test_hostile_tars_are_refused(
    name: str, kind: bytes, words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(source / "ILSVRC2012_img_val.tar", "a") as tar:
        tar.addfile(member)
    assert go(source, tmp_path / "out", "--only", "val") == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("out/**/*.JPEG"))


def test_a_hostile_class_tar_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = {"n01440764.tar": tar_bytes({"../../n01440764_9.JPEG": jpeg(300, 300)})}
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(inner))
    assert go(source, tmp_path / "out", "--only", "train") == 1
    assert "n01440764.tar: refused" in capsys.readouterr().err
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"..tar": b""}))
    assert go(source, tmp_path / "out", "--only", "train") == 1
    assert "expected a tar per class" in capsys.readouterr().err


def test_a_truncated_tar_is_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = source / "ILSVRC2012_img_train.tar"
    whole.write_bytes(whole.read_bytes()[:-30_000])
    assert go(source, tmp_path / "out", "--only", "train") == 1
    error = capsys.readouterr().err
    assert "not a whole tar file" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("cut", [9_000, 12_000])  # in the third picture, and before its end
def test_a_truncated_class_tar_is_told(
    cut: int, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the whole tar and by itself; what was read before stays, and the same command goes on."""
    files = {f"n01440764_{n}.JPEG": jpeg(500, 375, seed=n) for n in range(3)}
    inner = tar_bytes(files)
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n01440764.tar": inner[:-cut]}))
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "n01440764.tar").write_bytes(inner[:-cut])
    for words in ([], ["--train", tmp_path / "tars"]):
        assert go(source, tmp_path / "out", "--only", "train", *words) == 1
        error = capsys.readouterr().err
        assert "n01440764.tar: not a whole tar file (unexpected end of data); download it again\n" in error
        assert error.count("\n") == 1
        assert len(list(tmp_path.glob("out/train/*/*.JPEG"))) == 2
    (tmp_path / "tars" / "n01440764.tar").write_bytes(inner)
    assert go(source, tmp_path / "out", "--only", "train", "--train", tmp_path / "tars") == 3
    assert "train: 3 pictures in 1 class (1 shrunk, 0 copied, 2 there before)" in capsys.readouterr().out


def test_what_is_no_tar_is_told_in_one_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "ILSVRC2012_img_val.tar").write_bytes(b"<html>404</html>")
    assert go(source, tmp_path / "out", "--only", "val") == 1
    error = capsys.readouterr().err
    assert error.endswith("not a whole tar file (file could not be opened successfully); download it again\n")
    assert error.count("\n") == 1


def test_two_pictures_of_one_name_are_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From two folders of a class; one of them would be lost."""
    two = {"a/x.JPEG": jpeg(100, 90, seed=1), "b/x.JPEG": jpeg(100, 90, seed=2), "x_2.JPEG": jpeg(100, 90, seed=3)}
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n01440764.tar": tar_bytes(two)}))
    assert go(source, tmp_path / "out", "--only", "train") == 3
    captured = capsys.readouterr()
    assert "train: 2 pictures in 1 class (0 shrunk, 2 copied, 0 there before)" in captured.out
    assert "left out: train/n01440764/x.JPEG: a second picture of that name; the first one is kept" in captured.err
    assert (tmp_path / "out" / "train" / "n01440764" / "x.JPEG").read_bytes() == two["a/x.JPEG"]
    for name, data in two.items():
        (tmp_path / "val" / "n01440764" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "n01440764" / name).write_bytes(data)
    assert go(source, tmp_path / "out", "--only", "val", "--val", tmp_path / "val") == 1
    assert f"{tmp_path}/val: has 2 pictures for val/n01440764/x.JPEG; leave one" in capsys.readouterr().err


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A segment APP1 behind the first marker."""
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def orientation(value: int) -> bytes:
    """A TIFF directory of one entry: tag 0x112, a short."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + value.to_bytes(2, "little") + b"\x00\x00"
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + entry + b"\x00\x00\x00\x00"


@pytest.mark.parametrize("shrinker", ["pillow", "imagemagick"])
def test_more_oddities_of_imagenet(
    shrinker: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """EXIF that says "turned" or is broken, a PNG called JPEG (n02105855_2933.JPEG), one of them not above 256."""
    if shrinker == "imagemagick" and find_imagemagick() is None:
        pytest.skip("ImageMagick is not installed")
    upright = jpeg(500, 375)
    files = {
        "n02105855_1.JPEG": upright,
        "n02105855_2.JPEG": with_exif(upright, orientation(6)),
        "n02105855_3.JPEG": with_exif(upright, b"Exif\x00\x00II*\x00\xff\xff\xff\x7fbroken"),
        "n02105855_4.JPEG": with_exif(upright, b"Exif\x00\x00"),
        "n02105855_2933.JPEG": jpeg(500, 375, kind="PNG"),
        "n02105855_5.JPEG": jpeg(200, 150, kind="PNG"),
    }
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n02105855.tar": tar_bytes(files)}))
    assert go(source, tmp_path / "out", "--only", "train", "--shrinker", shrinker) == 3
    assert "left out" not in capsys.readouterr().err
    folder = tmp_path / "out" / "train" / "n02105855"
    pictures = {name: image.load(folder / name) for name in files}
    first = pictures.pop("n02105855_1.JPEG")
    assert first.shape == (3, 256, 341)
    assert (folder / "n02105855_5.JPEG").read_bytes() == files["n02105855_5.JPEG"]  # small: as it is, and readable
    assert pictures.pop("n02105855_5.JPEG").shape == (3, 150, 200)
    from_png = pictures.pop("n02105855_2933.JPEG")
    assert (folder / "n02105855_2933.JPEG").read_bytes()[:3] == b"\xff\xd8\xff"
    assert np.abs(from_png - first).mean() < 0.02  # of 1: encoded as a JPEG once less
    for picture in pictures.values():  # as the decoder of 2016 had it, nothing is turned
        assert np.array_equal(picture, first)


def test_validation_without_classes_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert go(source, tmp_path / "out", "--only", "val") == 1
    assert "the class of ILSVRC2012_val_00000001.JPEG is not known; name the development kit" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: prepare.shutil._ntuple_diskusage(0, 0, 1000))
    assert go(source, tmp_path / "out") == 1
    assert "needed in" in (error := capsys.readouterr().err)
    assert "the disk is too small" in error
    assert go(source, tmp_path / "out", "--no-space-check") == 3


def test_the_space_told_is_the_space_used(source: Path) -> None:
    """Within a factor of two on 17 pictures, on the safe side."""
    arguments = prepare.argparse.Namespace(source=source, destination=Path("x"), train=None, val=None, only=None,
                                           labels=None, devkit=None)  # fmt: skip
    shrinker = prepare.open_shrinker("pillow", 256)
    plans = prepare.make_plans(arguments, prepare.find_labels(arguments))
    jobs = [job for plan in plans for job in plan.jobs]
    used = sum(len(shrinker.file_bytes(p.read(), "x.JPEG")[0]) for job in jobs for p in job.pictures())
    assert used < prepare.space_needed(plans, shrinker) < 2 * used + 17 * 4096


def test_nothing_there_and_same_folder(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert go(tmp_path / "empty", tmp_path / "out") == 1
    assert "none of ILSVRC2012_img_train.tar" in capsys.readouterr().err
    (tmp_path / "empty" / "train" / "n01440764").mkdir(parents=True)
    assert go(tmp_path / "empty", tmp_path / "empty") == 1
    assert "are the same folder" in capsys.readouterr().err


def test_ctrl_c_leaves_whole_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "wait", interrupted)
    assert go(source, tmp_path / "out") == 130
    assert "run it again to go on" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/**/.*"))
    monkeypatch.undo()
    assert go(source, tmp_path / "out") == 3
    assert len(list(tmp_path.glob("out/*/*/*.JPEG"))) == 17


def test_labels(source: Path, tmp_path: Path) -> None:
    labels = read_devkit(source / "ILSVRC2012_devkit_t12.tar.gz")
    assert labels.words == dict(zip(CLASSES, WORDS, strict=True))
    kaggle = tmp_path / "LOC_val_solution.csv"
    kaggle.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 85 1 499 272 \n")
    assert read_list(kaggle).class_of == {"ILSVRC2012_val_00000001.JPEG": "n01440764"}
    kaggle.write_text("a.JPEG ../x\n")
    with pytest.raises(XnorNetError, match="line 1: expected a picture and its class"):
        read_list(kaggle)


@pytest.mark.parametrize("damage", ["truth", "meta", "lacks"])
def test_a_damaged_kit_is_told(damage: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    truth, meta = tmp_path / "data" / "ILSVRC2012_validation_ground_truth.txt", tmp_path / "data" / "meta.mat"
    truth.write_text("1\n1001\n" if damage == "truth" else "1\n")
    if damage != "lacks":
        meta.write_bytes(b"x" * 400 if damage == "meta" else meta_mat())
    words = {"truth": "line 2: not a class number", "meta": "meta.mat is damaged", "lacks": "it lacks meta.mat"}
    with pytest.raises(XnorNetError, match=words[damage]):
        read_devkit(tmp_path)


def test_the_record_says_how(source: Path, tmp_path: Path) -> None:
    go(source, tmp_path / "out", "--quiet")
    record = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert record["size"] == 256
    assert record["shrinker"].startswith("Pillow ")


def test_a_compressed_tar_of_pictures_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = source / "ILSVRC2012_img_val.tar"
    val.write_bytes(gzip.compress(val.read_bytes()))
    assert go(source, tmp_path / "out", "--only", "val") == 1
    assert "uncompress it first" in capsys.readouterr().err


def test_a_full_disk_ends_in_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, sync: bool = True) -> AbstractContextManager[BinaryIO]:
        if path.suffix == ".JPEG":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace_file(path, sync)

    monkeypatch.setattr(prepare, "replace_file", full)
    assert go(source, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ".JPEG: cannot be written (No space left on device); the same command goes on from here" in error


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_link_to_itself_and_a_device_are_no_sources(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "n01440764").mkdir()
    link = tmp_path / "link"
    link.symlink_to(link)
    for source, problem in ((link, "Too many levels of symbolic links"), ("/dev/zero", "expected a tar file")):
        assert main(["prepare", str(tmp_path), str(tmp_path / "out"), f"--{part}", str(source), "--quiet"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"cache_tools prepare: {source}: ")
        assert problem in line
    assert main(["prepare", str(tmp_path), str(link), f"--{part}", str(tmp_path), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith(f"cache_tools prepare: {link}: ")
