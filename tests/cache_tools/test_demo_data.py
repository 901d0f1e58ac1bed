"""The demo's data set: layout, split, repeatability, what it refuses. Digits made here; scikit-learn's where it is."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_tools.__main__ import main
from cache_tools.demo_data import is_for_validation, load_digits, write_demo_data
from xnornet_port.errors import XnorNetError


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    """150 pictures of noise, 15 of each class."""
    generator = np.random.default_rng(3)
    return generator.integers(0, 17, (150, 8, 8), np.uint8), np.arange(150) % 10


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    count = write_demo_data(*digits, tmp_path / "new" / "demo", size=230)
    paths = sorted((tmp_path / "new" / "demo").rglob("*.JPEG"))
    assert count.training + count.validation == len(paths) == 150
    assert {path.parts[-3] for path in paths} == {"train", "val"}
    assert {path.parts[-2] for path in paths if "train" in path.parts} == {f"digit_{label}" for label in range(10)}
    for path in paths:  # number n of these digits is of class n modulo 10
        assert path.parts[-2] == f"digit_{int(path.stem[-4:]) % 10}"
    with Image.open(paths[0]) as picture:
        assert (picture.size, picture.mode, picture.format) == ((230, 230), "RGB", "JPEG")


def test_pictures_show_the_digit(tmp_path: Path) -> None:
    """Left half 0, right half 16: black and white at the sides, gray between, and no step at the pixel borders."""
    digit = np.zeros((1, 8, 8), np.uint8)
    digit[:, :, 4:] = 16
    write_demo_data(digit, np.array([7]), tmp_path, size=256)
    (path,) = tmp_path.rglob("*.JPEG")
    row = np.asarray(Image.open(path).convert("L")).astype(int)[128]
    assert row[:80].max() <= 6  # JPEG's own noise
    assert row[176:].min() >= 249
    assert 120 <= row[127:129].mean() <= 135
    assert np.abs(np.diff(row)).max() < 20


def test_the_same_digits_give_the_same_files(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    write_demo_data(*digits, tmp_path / "a")
    write_demo_data(*digits, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_digit_stays_on_its_side_whatever_its_place(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pictures, labels = digits
    write_demo_data(np.repeat(pictures, 2, axis=0), np.repeat(labels, 2), tmp_path / "twice")
    write_demo_data(pictures, labels, tmp_path / "once")
    sides = {
        folder: {int(path.stem[-4:]): path.parts[-3] for path in (tmp_path / folder).rglob("*.JPEG")}
        for folder in ("once", "twice")
    }
    assert all(sides["twice"][2 * n] == sides["twice"][2 * n + 1] == sides["once"][n] for n in range(150))


def test_limit_keeps_classes_and_split_even(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pictures, labels = digits
    many = np.concatenate([np.roll(pictures, shift, axis=2) for shift in range(8)])  # 120 of each class
    count = write_demo_data(many, np.tile(labels, 8), tmp_path, size=224, limit=100)
    assert count == (80, 20)
    for label in range(10):
        assert len(list((tmp_path / "train" / f"digit_{label}").iterdir())) == 8
        assert len(list((tmp_path / "val" / f"digit_{label}").iterdir())) == 2


def test_force_replaces_an_earlier_set_and_nothing_else(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    write_demo_data(*digits, tmp_path)
    own = tmp_path / "train" / "digit_3" / "mine.JPEG"
    own.write_bytes(b"mine")
    with pytest.raises(XnorNetError, match="not empty"):
        write_demo_data(*digits, tmp_path)
    pictures, labels = digits
    count = write_demo_data(pictures[:100], labels[:100], tmp_path, force=True)
    assert count.training + count.validation == 100
    assert len(contents(tmp_path)) == 101
    assert own.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 100}, "--size is 100, expected 224"), ({"size": 99999}, "--size"), ({"limit": 7}, "--limit is 7")],
)
def test_what_is_out_of_range_is_refused(
    options: dict[str, int], message: str, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(XnorNetError, match=message):
        write_demo_data(*digits, tmp_path / "demo", **options)
    assert not (tmp_path / "demo").exists()


def test_a_destination_that_is_a_file_is_refused(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(XnorNetError, match="is a file"):
        write_demo_data(*digits, tmp_path / "file", force=True)


def test_without_scikit_learn_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # as if it were not there
    assert main(["demo-data", str(tmp_path / "demo")]) == 1
    captured = capsys.readouterr()
    assert "pip install 'scikit-learn==" in captured.err
    assert "pip install -e .[demo]" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_the_command_on_the_real_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert main(["demo-data", str(tmp_path / "demo"), "--limit", "200", "--size", "224"]) == 0
    assert "160 training and 40 validation pictures of 10 classes" in capsys.readouterr().out
    assert main(["demo-data", str(tmp_path / "demo")]) == 1
    assert "not empty" in capsys.readouterr().err


def test_the_real_digits_are_all_different_and_split_about_four_to_one() -> None:
    pytest.importorskip("sklearn")
    digits, labels = load_digits()
    assert digits.shape == (1797, 8, 8)
    assert len(np.unique(digits.reshape(1797, 64), axis=0)) == 1797
    assert sorted(set(labels.tolist())) == list(range(10))
    assert 0.17 < np.mean([is_for_validation(digit) for digit in digits]) < 0.23  # 0.2 +- 3 standard deviations
