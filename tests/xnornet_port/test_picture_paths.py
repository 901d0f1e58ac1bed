"""Paths of a cache moved to the data folder of the run."""

import numpy as np
import pytest

from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError
from xnornet_port.picture_paths import rebase


def dataset_of(folder: str, *paths: bytes) -> Dataset:
    width = max(map(len, paths)) + 1
    rows = np.array(paths, dtype=f"S{width}").view(np.int8).reshape(len(paths), width)
    numbers = np.arange(1, len(paths) + 1, dtype=np.int64)
    return Dataset(folder, ("a",), rows, np.ones(len(paths), dtype=np.int64), (numbers,), (numbers,))


def paths_of(dataset: Dataset) -> list[bytes]:
    return [dataset.path(number) for number in range(1, len(dataset) + 1)]


@pytest.mark.parametrize("folder", ["/d/train", "relative/train", "/a/much/longer/place/than/it/was/before/train"])
@pytest.mark.parametrize("own", ["/old/place/train", "/mnt/raid00/data/imagenet2012/train", "old", "./old/train/"])
def test_moved_from_the_caches_own_folder(own: str, folder: str) -> None:
    root = own.rstrip("/").encode()
    moved = rebase(dataset_of(own, root + b"/n1/x.JPEG", root + b"/n2/sub/longer name.JPEG"), folder, "cache")
    assert paths_of(moved) == [folder.encode() + b"/n1/x.JPEG", folder.encode() + b"/n2/sub/longer name.JPEG"]
    assert moved.folder == folder
    assert not moved.image_path[:, -1].any()


def test_published_prefix_is_known_whatever_the_cache_says() -> None:
    """The original replaces it by -data in every path, and rewrites paths[1] without looking."""
    paths = (b"/mnt/raid00/data/imagenet2012/val/n1/x.JPEG",)
    assert paths_of(rebase(dataset_of("/other/val", *paths), "/data/imagenet/val", "cache")) == [
        b"/data/imagenet/val/n1/x.JPEG"
    ]


def test_already_in_place() -> None:
    dataset = dataset_of("/elsewhere/train", b"/d/train/n1/x.JPEG")
    assert rebase(dataset, "/d/train", "cache").image_path is dataset.image_path


def test_a_folder_whose_name_only_begins_alike_is_another() -> None:
    with pytest.raises(XnorNetError, match="outside its own folder"):
        rebase(dataset_of("/old/train", b"/old/train2/n1/x.JPEG"), "/d/train", "cache")


def test_paths_in_several_places_are_refused() -> None:
    dataset = dataset_of("/old/train", b"/old/train/n1/x.JPEG", b"/etc/passwd.jpg", b"/root/y.jpg")
    with pytest.raises(
        XnorNetError, match=r"^cache\.t7: its picture '/etc/passwd\.jpg' lies outside .*2 of 3"
    ) as caught:
        rebase(dataset, "/d/train", "cache.t7")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tail", [b"/n1/../../secret.jpg", b"/../secret.jpg", b"/n1/.."])
def test_paths_that_lead_upwards_are_refused(tail: bytes) -> None:
    with pytest.raises(XnorNetError, match="leads out of the data folder; refused"):
        rebase(dataset_of("/old", b"/old/n1/fine..name.jpg", b"/old" + tail), "/d", "cache.t7")


def test_paths_outside_are_taken_where_that_is_allowed() -> None:
    """-allowOutside: as they are; those that can be moved still are, one by one."""
    paths = (
        b"/old/train/n1/x.JPEG",
        b"/o/y.jpg",
        b"/mnt/raid00/data/imagenet2012/train/z.jpg",
        b"/longer/train/n2/w.jpg",
    )
    taken = rebase(dataset_of("/old/train", *paths), "/longer/train", "cache.t7", allow_outside=True)
    assert taken.folder == "/longer/train"
    assert paths_of(taken) == [
        b"/longer/train/n1/x.JPEG", b"/o/y.jpg", b"/longer/train/z.jpg", b"/longer/train/n2/w.jpg",
    ]  # fmt: skip
    assert not taken.image_path[:, -1].any()
    upwards = dataset_of("/old/train", b"/old/train/../../more/x.JPEG")
    assert paths_of(rebase(upwards, "/d/train", "cache.t7", allow_outside=True)) == [b"/d/train/../../more/x.JPEG"]


def test_dots_in_the_given_folder_and_in_names_are_fine() -> None:
    moved = rebase(dataset_of("../old/train", b"../old/train/n1/..x...jpg"), "../new/train", "cache.t7")
    assert paths_of(moved) == [b"../new/train/n1/..x...jpg"]
