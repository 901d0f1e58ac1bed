"""Scanning folders of pictures and drawing from them."""

import os
from pathlib import Path

import numpy as np
import pytest

from xnornet_port.dataset import Dataset, scan_folder
from xnornet_port.errors import XnorNetError


def make_files(root: Path, *names: str | bytes) -> str:
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"")
    return str(root)


def paths_below(dataset: Dataset, root: Path) -> list[bytes]:
    start = len(os.fsencode(root)) + 1
    return [dataset.path(number)[start:] for number in range(1, len(dataset) + 1)]


def test_golden_training_folder(golden: Path) -> None:
    folder = golden / "imagenet" / "train"
    train = scan_folder(str(folder))
    assert train.classes == ("n01440764", "n02119789", "n03000684", "n07753592", "n09246464")  # sorted
    assert train.class_indices == {name: number for number, name in enumerate(train.classes, start=1)}
    assert len(train) == 50
    assert train.path(12) == os.fsencode(folder / "n02119789" / "n02119789_1.JPEG")  # 2nd of the 2nd class of 10
    assert train.image_class.tolist() == [number for number in range(1, 6) for _ in range(10)]
    assert [numbers.tolist() for numbers in train.class_list] == [list(range(n, n + 10)) for n in (1, 11, 21, 31, 41)]
    assert train.image_path.dtype == np.int8
    assert train.image_path.shape[1] == len(train.path(1)) + 1  # every name there is as long


def test_finds_what_find_iname_does(tmp_path: Path) -> None:
    make_files(
        tmp_path,
        *("a/1.jpg", "a/2.JPEG", "a/3.Png", "a/4.PPM", "a/5.bmp", "a/.jpg", "a/sub/deep/er/6.jpeg"),
        *("a/no.gif", "a/no.txt", "a/nojpg", "a/x.jpg.bak", "b/7.jpg", "outside.jpg"),
    )
    (tmp_path / "a" / "folder.jpg").mkdir()
    found = paths_below(scan_folder(str(tmp_path)), tmp_path)
    # sorted by their bytes: "." before digits before letters
    a = [b"a/.jpg", b"a/1.jpg", b"a/2.JPEG", b"a/3.Png", b"a/4.PPM", b"a/5.bmp", b"a/sub/deep/er/6.jpeg"]
    assert found == [*a, b"b/7.jpg"]


def test_rows_are_padded_with_at_least_one_nul(tmp_path: Path) -> None:
    dataset = scan_folder(make_files(tmp_path, "a/1.jpg", "b/a_longer_name.jpg"))
    assert dataset.image_path.shape == (2, len(os.fsencode(tmp_path / "b/a_longer_name.jpg")) + 1)
    assert not dataset.image_path[:, -1].any()


def test_odd_names_are_kept_byte_for_byte(tmp_path: Path) -> None:
    names = [
        b"class with space/a b.jpg",
        b"latin-\xe9/caf\xe9.jpg",
        b"line\nbreak/new\nline.jpg",
        "é/日本.png".encode(),
    ]
    dataset = scan_folder(make_files(tmp_path, *names))
    assert paths_below(dataset, tmp_path) == sorted(names)
    assert [os.fsencode(name) for name in dataset.classes] == sorted(os.path.dirname(name) for name in names)


def test_links(tmp_path: Path) -> None:
    """A class folder or a file may be a link; a link to a folder inside a class folder is not followed."""
    make_files(tmp_path / "elsewhere", "1.jpg", "more/2.jpg")
    make_files(tmp_path / "data", "b/3.jpg")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "data" / "b" / "4.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "data" / "b" / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "data" / "b" / "itself.jpg").symlink_to(tmp_path / "data" / "b" / "itself.jpg")
    found = paths_below(scan_folder(str(tmp_path / "data")), tmp_path / "data")
    assert found == [b"a/1.jpg", b"a/more/2.jpg", b"b/3.jpg", b"b/4.jpg", b"b/broken.jpg", b"b/itself.jpg"]


def test_link_to_a_folder_around_it_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path / "train", "a/1.jpg")
    (tmp_path / "train" / "b").symlink_to(tmp_path)
    with pytest.raises(XnorNetError, match=r"train/b: a link to a folder that contains it"):
        scan_folder(str(tmp_path / "train"))


def test_deep_folders_need_no_recursion(tmp_path: Path) -> None:
    folders = [str(tmp_path / "a") + "/d" * depth for depth in range(1100)]  # beyond Python's recursion limit of 1000
    for folder in folders:
        os.mkdir(folder)
    picture = Path(folders[-1], "1.jpg")
    picture.write_bytes(b"")
    assert paths_below(scan_folder(str(tmp_path)), tmp_path) == [b"a" + b"/d" * 1099 + b"/1.jpg"]
    picture.unlink()  # pytest's own removal would recurse
    for folder in reversed(folders):
        os.rmdir(folder)


def test_forced_classes_come_first_in_their_order(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg", "d/4.jpg")
    dataset = scan_folder(str(tmp_path), force_classes=("c", "a"))
    assert dataset.classes == ("c", "a", "b", "d")
    assert dataset.image_class.tolist() == [1, 2, 3, 4]
    assert paths_below(dataset, tmp_path) == [b"c/3.jpg", b"a/1.jpg", b"b/2.jpg", b"d/4.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no class folders in it"),
        (("loose.jpg",), "no class folders in it"),
        (
            ("a/1.jpg", "empty one/read.me"),
            "no pictures of class 'empty one'; put some in \\(.jpg .jpeg .png .ppm\\) or",
        ),
        (("a/1.jpg", "b/x.txt", "c/2.jpg", "d/x/3.gif"), "no pictures of classes 'b', 'd'; "),
        (("a/1.jpg", *(f"{k}/x" for k in range(7))), "no pictures of classes '0', '1', '2', '3', '4' and 2 more; "),
    ],
)
def test_unusable_folders(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    make_files(tmp_path, *files)
    with pytest.raises(XnorNetError, match=message) as caught:
        scan_folder(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_missing_forced_class(tmp_path: Path) -> None:
    with pytest.raises(XnorNetError, match=r"nowhere: cannot read this data folder \(No such file"):
        scan_folder(str(tmp_path / "nowhere"))
    with pytest.raises(XnorNetError, match=r"there is no folder of classes 'b', 'c'$"):
        scan_folder(make_files(tmp_path, "a/1.jpg"), force_classes=("a", "c", "b"))


class ScriptedStream:
    """Gives the draws it was made with."""

    def __init__(self, class_number: int, fraction: float) -> None:
        self.class_number, self.fraction = class_number, fraction

    def random(self, first: int, last: int) -> int:
        assert (first, last) == (1, 2)
        return self.class_number

    def uniform(self) -> float:
        return self.fraction


# index = max(1, ceil(u * 3)) for a class of three pictures (dataset.lua getByClass)
@pytest.mark.parametrize(("fraction", "index"), [(0.0, 1), (0.2, 1), (1 / 3, 1), (0.34, 2), (0.9, 3), (1 - 2**-32, 3)])
def test_draw(tmp_path: Path, fraction: float, index: int) -> None:
    dataset = scan_folder(make_files(tmp_path, "a/0.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"))
    path, label = dataset.draw(ScriptedStream(2, fraction))
    assert (os.path.basename(path), label) == (f"{index}.jpg".encode(), 2)


def test_draw_from_a_class_without_training_pictures() -> None:
    empty = np.zeros(0, dtype=np.int64)
    rows = np.zeros((1, 2), dtype=np.int8)
    lists = (np.ones(1, dtype=np.int64), empty)
    dataset = Dataset("somewhere", ("a", "b"), rows, np.ones(1, dtype=np.int64), lists, sample_list=(empty, empty))
    with pytest.raises(XnorNetError, match="somewhere: class 'b' has no picture to train with"):
        dataset.draw(ScriptedStream(2, 0.5))
