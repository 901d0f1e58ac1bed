"""The pictures of a data set: which there are, of which class, and how training draws one (dataset.lua).

ImageNet has 1.28 million training pictures. Their paths stay what they are in the original's cache files: one matrix of
characters, a NUL-padded row per picture. A row becomes Python bytes only when its picture is read.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.progress import Progress, no_progress

__all__ = ["PICTURE_EXTENSIONS", "Dataset", "class_folders", "scan_folder"]

PICTURE_EXTENSIONS = (b".jpg", b".jpeg", b".png", b".ppm", b".bmp")
NEVER_READ = b".bmp"  # found, as the original finds it, but a kind of picture that its image library has not either
"""What the original's `find -iname` looks for, in upper or lower case."""

MOST_NAMED = 5
"""Classes that an error about more of them names."""

CharMatrix = npt.NDArray[np.int8]
Indices = npt.NDArray[np.int64]


class RandomStream(Protocol):
    """The draws that sampling makes; `lua_compat.Generator` has them."""

    def random(self, first: int, last: int) -> int: ...

    def uniform(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """The fields of the original's dataLoader object that are used after it is made.

    folder: where the pictures lie, `paths[1]` of the original. classes: their names; a class is known by its number
    from 1. image_path: (pictures, longest path + 1) characters. image_class: (pictures,) class numbers. class_list: per
    class the numbers, from 1, of all its pictures. sample_list: those of them that training draws from
    (classListSample; the same but in a cache made with a train/test split).
    """

    folder: str
    classes: tuple[str, ...]
    image_path: CharMatrix
    image_class: Indices
    class_list: tuple[Indices, ...]
    sample_list: tuple[Indices, ...]

    def __len__(self) -> int:
        return len(self.image_class)

    @property
    def class_indices(self) -> dict[str, int]:
        """Class name -> class number, from 1."""
        return {name: number for number, name in enumerate(self.classes, start=1)}

    def path(self, number: int) -> bytes:
        """Path of picture `number`, from 1, as the file system's bytes."""
        row: bytes = self.image_path[number - 1].tobytes()
        return row.split(b"\0", 1)[0]

    def label(self, number: int) -> int:
        """Class number, from 1, of picture `number`, from 1."""
        return int(self.image_class[number - 1])

    def check_present(self) -> None:
        """Raise XnorNetError where the folder is gone or empty: a disk that is no longer there, not a bad picture."""
        try:
            with os.scandir(self.folder) as entries:
                is_there = next(entries, None) is not None
            problem = "is empty now"
        except OSError as error:
            is_there, problem = False, f"can no longer be read ({reason_of(error)})"
        if not is_there:
            raise XnorNetError(f"{self.folder}: the data folder {problem}; bring it back")

    def draw(self, stream: RandomStream) -> tuple[bytes, int]:
        """A random class, then a random picture of it: its path and class number (dataset.lua sample, getByClass).

        Takes two words of `stream`. Raises XnorNetError for a class that has nothing to draw from.
        """
        class_number = stream.random(1, len(self.classes))
        numbers = self.sample_list[class_number - 1]
        if len(numbers) == 0:
            raise XnorNetError(
                f"{self.folder}: class {self.classes[class_number - 1]!r} has no picture to train with "
                "(an empty classListSample in its cache)"
            )
        place = max(1, int(np.ceil(stream.uniform() * len(numbers))))
        return self.path(int(numbers[place - 1])), class_number


def scan_folder(folder: str, force_classes: Sequence[str] = (), progress: Progress = no_progress) -> Dataset:
    """Find every picture below `folder`, which holds one folder per class (dataset.lua __init).

    A class is a folder's name; a class folder is searched to any depth, without following symbolic links inside it.
    Classes are sorted by name, pictures by path (the original takes them as the file system gives them), both by their
    bytes. `force_classes` fixes the first classes and their order: another data set's, so that numbers agree. Raises
    XnorNetError when a folder cannot be read, has no class folders, or a class has no pictures.
    """
    names = _class_names(folder, force_classes)
    paths_of_class = []
    with progress(f"searching {folder}", len(names)) as done:
        for name in names:
            paths_of_class.append(_class_pictures(folder, name))
            done(len(paths_of_class))
    counts = [len(paths) for paths in paths_of_class]
    _refuse_empty([name for name, count in zip(names, counts, strict=True) if count == 0], folder)
    ends = np.cumsum(counts)
    class_list = tuple(
        np.arange(end - count + 1, end + 1, dtype=np.int64) for end, count in zip(ends, counts, strict=True)
    )
    return Dataset(
        folder=folder,
        classes=tuple(os.fsdecode(name) for name in names),
        image_path=_joined_rows(paths_of_class),
        image_class=np.repeat(np.arange(1, len(counts) + 1, dtype=np.int64), counts),
        class_list=class_list,
        sample_list=class_list,
    )


def class_folders(folder: str) -> list[str]:
    """The classes that `scan_folder` would find. Raises XnorNetError for a folder that is not there or has none."""
    return [os.fsdecode(name) for name in _class_names(folder, ())]


def _class_names(folder: str, force_classes: Sequence[str]) -> list[bytes]:
    """Names of the class folders: the forced classes first, in their order, then the others sorted."""
    found = sorted(entry.name for entry in _entries(os.fsencode(folder)) if _is_folder(entry))
    if not found:
        raise XnorNetError(f"{folder}: no class folders in it (expected one folder of pictures per class)")
    forced = [os.fsencode(name) for name in force_classes]
    missing = sorted(set(forced) - set(found))
    if missing:
        raise XnorNetError(f"{folder}: there is no folder of {_several(missing)}")
    return forced + [name for name in found if name not in set(forced)]


def _class_pictures(folder: str, name: bytes) -> npt.NDArray[np.bytes_]:
    """Sorted paths of one class's pictures, as fixed-width bytes."""
    return np.array(sorted(_walk(os.path.join(os.fsencode(folder), name))), dtype=np.bytes_)


def _refuse_empty(names: Sequence[bytes], folder: str) -> None:
    if names:
        known = " ".join(extension.decode() for extension in PICTURE_EXTENSIONS if extension != NEVER_READ)
        raise XnorNetError(f"{folder}: no pictures of {_several(names)}; put some in ({known}) or remove the class")


def _several(names: Sequence[bytes]) -> str:
    """One class or the first of several, in words."""
    shown = ", ".join(repr(os.fsdecode(name)) for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"class{'es' if len(names) > 1 else ''} {shown}{more}"


def _walk(class_folder: bytes) -> Iterator[bytes]:
    """Paths of the pictures below a class folder; a link to a file counts, a link to a folder inside it does not."""
    _refuse_loop(class_folder)
    pending = [class_folder]
    while pending:
        for entry in _entries(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.name.lower().endswith(PICTURE_EXTENSIONS) and not _is_folder(entry):
                yield entry.path


def _refuse_loop(class_folder: bytes) -> None:
    """A class folder that is a link to a folder around it would hold the pictures of all classes."""
    if os.path.islink(class_folder):
        target = os.path.realpath(class_folder)
        around = os.path.realpath(os.path.dirname(class_folder))
        if os.path.commonpath([target, around]) == target:
            raise XnorNetError(f"{os.fsdecode(class_folder)}: a link to a folder that contains it; remove the link")


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: bytes) -> list["os.DirEntry[bytes]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise XnorNetError(f"{os.fsdecode(folder)}: cannot read this data folder ({reason_of(error)})") from error


def _joined_rows(paths_of_class: Sequence[npt.NDArray[np.bytes_]]) -> CharMatrix:
    """One NUL-padded row per path, each with at least one NUL, as the original's imagePath."""
    width = max(paths.itemsize for paths in paths_of_class) + 1
    matrix = np.zeros((sum(map(len, paths_of_class)), width), dtype=np.int8)
    start = 0
    for paths in paths_of_class:
        rows = paths.view(np.int8).reshape(len(paths), paths.itemsize)
        matrix[start : start + len(paths), : paths.itemsize] = rows
        start += len(paths)
    return matrix
