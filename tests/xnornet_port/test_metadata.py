"""Opening and making the caches, in the order of donkey.lua, and what a user can get wrong."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lua_compat
from lua_compat import Generator
from xnornet_port.dataset_cache import read_dataset, split_classes
from xnornet_port.errors import XnorNetError
from xnornet_port.metadata import Metadata, open_metadata
from xnornet_port.preprocessing import Preprocessing

SETTINGS = Preprocessing(256, 224, 0.0, None)
SORTED_CLASSES = ("n01440764", "n02119789", "n03000684", "n07753592", "n09246464")


@pytest.fixture
def cache(golden: Path, tmp_path: Path) -> Path:
    """A copy of real Torch7's caches."""
    return Path(shutil.copytree(golden / "cache", tmp_path / "cache"))


def opened(data: Path, cache: Path, n_samples: int = 3, training: bool = True) -> tuple[Metadata, list[str]]:
    said: list[str] = []
    metadata = open_metadata(
        str(data), str(cache), SETTINGS, manual_seed=2, say=said.append, n_samples=n_samples, training=training
    )
    return metadata, said


def test_real_torch7s_caches_with_another_data_folder(golden: Path, cache: Path) -> None:
    """Ledger rows 18 and 19: the caches' order is kept, their paths are moved."""
    metadata, said = opened(golden / "imagenet", cache)
    assert said == [
        "Loading train metadata from cache",
        "Loading test metadata from cache",
        "Loaded mean and std from cache.",
    ]
    assert metadata.train.classes == ("n01440764", "n07753592", "n03000684", "n09246464", "n02119789")
    for dataset in (metadata.train, metadata.test):
        assert all(os.path.isfile(dataset.path(number)) for number in range(1, len(dataset) + 1))
    assert metadata.test.path(1) == os.fsencode(golden / "imagenet/val/n01440764/ILSVRC2012_val_00000006.JPEG")
    assert metadata.statistics.mean[0] == 0.3565039688480867


def test_from_nothing_then_again_from_the_caches_made(golden: Path, tmp_path: Path) -> None:
    first, said = opened(golden / "imagenet", tmp_path / "new" / "cache")
    assert said[:5] == [
        "Creating train metadata",
        "50 samples found.",
        "Creating test metadata",
        "30 samples found.",
        "Estimating the mean (per-channel, shared for all pixels) over 3 randomly sampled training images",
    ]
    assert said[5].startswith("Estimating the std (per-channel, shared for all pixels) over 3 ")
    assert said[-1].startswith("Time to estimate:\t")
    assert sorted(os.listdir(tmp_path / "new" / "cache")) == ["meanstdCache.t7", "testCache.t7", "trainCache.t7"]
    assert first.train.classes == first.test.classes == SORTED_CLASSES
    again, said = opened(golden / "imagenet", tmp_path / "new" / "cache")
    assert said[-1] == "Loaded mean and std from cache."
    assert again.statistics == first.statistics
    for one, other in ((first.train, again.train), (first.test, again.test)):
        assert (one.folder, one.classes) == (other.folder, other.classes)
        assert (one.image_path == other.image_path).all()
        assert (one.image_class == other.image_class).all()


def test_made_caches_have_the_originals_fields(golden: Path, tmp_path: Path) -> None:
    opened(golden / "imagenet", tmp_path / "cache")
    for name in ("trainCache.t7", "testCache.t7"):
        ours, theirs = lua_compat.load(tmp_path / "cache" / name), lua_compat.load(golden / "cache" / name)
        assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in theirs.items()}
        assert ours["split"] == theirs["split"]
    assert ours["forceClasses"].to_list() == list(SORTED_CLASSES)
    # ledger row 16: the split is the first thing drawn from the caches' own stream
    test = read_dataset(str(tmp_path / "cache" / "testCache.t7"))
    _, expected = split_classes(test.class_list, 0, Generator(2))
    assert [entry.tolist() for entry in ours["classListTest"].to_list()] == [entry.tolist() for entry in expected]


def test_progress_is_shown_for_each_long_task(golden: Path, tmp_path: Path) -> None:
    shown: list[tuple[str, int, int]] = []

    @contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: shown.append((title, total, done))

    data = str(golden / "imagenet")
    open_metadata(data, str(tmp_path), SETTINGS, 2, say=lambda text: None, progress=progress, n_samples=4)
    assert [entry for entry in shown if entry[1] == entry[2]] == [
        (f"searching {data}/train", 5, 5),
        (f"searching {data}/val", 5, 5),
        ("estimating the mean", 4, 4),
        ("estimating the std", 4, 4),
    ]


def test_cache_folder_that_cannot_be_written(golden: Path, tmp_path: Path) -> None:
    """The run goes on, and says so for each file."""
    (tmp_path / "cache").write_text("a file, not a folder")
    metadata, said = opened(golden / "imagenet", tmp_path / "cache")
    assert len(metadata.train) == 50
    assert [line for line in said if "cannot be written" in line] == [
        line for line in said if line.endswith("going on without this cache")
    ]
    assert [
        name for line in said for name in ("train", "test", "meanstd") if f"cache/{name}Cache.t7: cannot" in line
    ] == [
        "train",
        "test",
        "meanstd",
    ]
    # and the statistics are those of a run that could write
    assert opened(golden / "imagenet", tmp_path / "other")[0].statistics == metadata.statistics


def test_trailing_slashes_of_the_data_folder(golden: Path, cache: Path, tmp_path: Path) -> None:
    made, _ = opened(Path(f"{golden}/imagenet"), tmp_path / "one")
    said: list[str] = []
    again = open_metadata(f"{golden}/imagenet//", str(tmp_path / "one"), SETTINGS, 2, said.append)
    assert again.train.path(1) == made.train.path(1)


def test_missing_folders(golden: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(XnorNetError, match=r"nowhere: no such data folder \(-data"):
        opened(tmp_path / "nowhere", cache)
    (tmp_path / "empty").mkdir()
    with pytest.raises(XnorNetError, match=r"empty/train: no such data folder \(-data"):
        opened(tmp_path / "empty", cache)
    with pytest.raises(XnorNetError, match=r"empty/train: cannot read this data folder"):
        opened(tmp_path / "empty", tmp_path / "new")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "train").symlink_to(golden / "imagenet" / "train")
    with pytest.raises(XnorNetError, match=r"half/val: no such data folder"):
        opened(tmp_path / "half", cache)


def test_testing_needs_no_training_pictures(golden: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "val").symlink_to(golden / "imagenet" / "val")
    metadata, _ = opened(tmp_path / "half", cache, training=False)
    assert len(metadata.test) == 30


def test_data_folder_with_other_pictures(cache: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "other" / part / "class").mkdir(parents=True)
    with pytest.raises(
        XnorNetError, match=r"other/train: not one of the pictures that .*trainCache\.t7 lists is there"
    ):
        opened(tmp_path / "other", cache)


def test_classes_that_differ(golden: Path, cache: Path, tmp_path: Path) -> None:
    """One cache made anew (sorted), the other one from elsewhere: the labels would be wrong."""
    (cache / "trainCache.t7").unlink()
    with pytest.raises(
        XnorNetError, match=r"testCache\.t7: its 5 classes are not the 5 training classes in their order"
    ):
        opened(golden / "imagenet", cache)


def test_validation_folder_with_a_class_too_many_or_too_few(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(golden / "imagenet" / "train")
    shutil.copytree(golden / "imagenet" / "val", tmp_path / "data" / "val")
    shutil.copytree(golden / "imagenet" / "val" / "n01440764", tmp_path / "data" / "val" / "cats")
    with pytest.raises(XnorNetError, match=r"data/val: class 'cats' is not among the 5 training classes"):
        opened(tmp_path / "data", tmp_path / "cache")
    shutil.rmtree(tmp_path / "data" / "val" / "cats")
    shutil.rmtree(tmp_path / "data" / "val" / "n01440764")
    with pytest.raises(XnorNetError, match=r"data/val: there is no folder of class 'n01440764'"):
        opened(tmp_path / "data", tmp_path / "cache")


def test_pictures_without_contrast(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        (tmp_path / part / "a" / "1.ppm").write_bytes(b"P6\n300 300\n255\n" + bytes(300 * 300 * 3))
    with pytest.raises(XnorNetError, match="of one colour each; nothing to learn"):
        opened(tmp_path, tmp_path / "cache")


def test_unreadable_samples_are_told(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "imagenet", tmp_path / "data")
    for picture in sorted((tmp_path / "data" / "train").glob("*/*"))[::2]:
        picture.write_bytes(b"no picture")
    _, said = opened(tmp_path / "data", tmp_path / "cache", n_samples=10)
    told = [line for line in said if "could not be read and were left out; the first: " in line]
    assert len(told) == 1
    assert "of the 20 could not be read" in told[0]
