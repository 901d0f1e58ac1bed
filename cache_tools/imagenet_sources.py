"""Where ImageNet's pictures come from: the tar files as they are downloaded, or folders.

Either becomes a list of jobs. A job is a class, or a share of the validation pictures, that one thread works through;
it yields pictures with the place below the data folder that each belongs to. The tar of the training pictures holds a
tar per class, and is never unpacked as a whole.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from cache_tools.safe_tar import damage_told, is_tar_name, open_tar, regular_members
from xnornet_port.dataset import PICTURE_EXTENSIONS
from xnornet_port.errors import XnorNetError

__all__ = ["Job", "Picture", "train_jobs", "validation_jobs"]

EXTENSIONS = tuple(extension.decode() for extension in PICTURE_EXTENSIONS)
CLASS_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
SHARE = 64
"""Validation pictures in a job."""


class Picture(NamedTuple):
    """target: path below the data folder. size: bytes. read: gives the bytes."""

    target: Path
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Job:
    """n_bytes: of all its pictures, for the progress bar. pictures: starts reading; to be closed when left early."""

    n_bytes: int
    pictures: Callable[[], Generator[Picture, None, None]]


def train_jobs(source: Path) -> list[Job]:
    """From ILSVRC2012_img_train.tar, a folder of class tars, or a folder of class folders. Raises XnorNetError."""
    if not source.is_dir():
        with open_tar(source) as tar:
            _require_plain(tar, source)
            classes = [
                (_class_of_tar(name, source), member.offset_data, member.size)
                for name, member in regular_members(tar, source)
            ]
        return [Job(size, partial(_tar_in_tar, source, name, start, size)) for name, start, size in classes]
    entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    tars = [entry for entry in entries if entry.is_file() and is_tar_name(entry)]
    if tars:
        return [Job(tar.stat().st_size, partial(_class_tar, tar, _class_of_tar(tar.name, source))) for tar in tars]
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        raise XnorNetError(f"{source}: neither class folders nor class tars (n01440764.tar) in it")
    return [_job([_file_picture(file, Path("train", folder.name)) for file in _files(folder)]) for folder in folders]


def validation_jobs(source: Path, class_of: Mapping[str, str]) -> list[Job]:
    """From ILSVRC2012_img_val.tar, a folder of its pictures, or a folder of class folders, which need no `class_of`.

    Raises XnorNetError, before anything is written, for a picture whose class is not known, and two of one name.
    """
    if source.is_dir():
        folders = sorted(entry for entry in source.iterdir() if entry.is_dir())
        pictures = [_file_picture(file, Path("val", folder.name)) for folder in folders for file in _files(folder)]
        loose = [file for file in _files(source) if file.parent == source]
        pictures += [_file_picture(file, _validation_folder(file.name, class_of, source)) for file in loose]
    else:
        with open_tar(source) as tar:
            _require_plain(tar, source)
            members = [(name, m) for name, m in regular_members(tar, source) if is_picture(name)]
        pictures = [
            Picture(
                _validation_folder(name, class_of, source) / name,
                member.size,
                partial(_read_range, source, member.offset_data, member.size),
            )
            for name, member in members
        ]
    for target, count in Counter(picture.target for picture in pictures).items():
        if count > 1:
            raise XnorNetError(f"{source}: has {count} pictures for {target}; leave one")
    return [_job(pictures[start : start + SHARE]) for start in range(0, len(pictures), SHARE)]


def is_picture(name: str) -> bool:
    """Whether a base name is a picture's; those starting with a dot are some other program's."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _job(pictures: list[Picture]) -> Job:
    return Job(sum(picture.size for picture in pictures), lambda: (picture for picture in pictures))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if is_picture(name))


def _file_picture(file: Path, folder: Path) -> Picture:
    return Picture(folder / file.name, file.stat().st_size, file.read_bytes)


def _validation_folder(name: str, class_of: Mapping[str, str], source: Path) -> Path:
    if name not in class_of:
        raise XnorNetError(
            f"{source}: the class of {name} is not known; name the development kit with --devkit "
            "(ILSVRC2012_devkit_t12.tar.gz) or a list with --labels"
        )
    return Path("val", class_of[name])


def _class_of_tar(name: str, source: Path) -> str:
    class_name = name.removesuffix(".tar")
    if class_name == name or not CLASS_NAME.fullmatch(class_name):
        raise XnorNetError(f"{source}: expected a tar per class in it (n01440764.tar ...), found {name!r}")
    return class_name


def _require_plain(tar: tarfile.TarFile, source: Path) -> None:
    """Pictures are read from the middle of the file, which a compressed one does not allow."""
    if isinstance(tar.fileobj, gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile):
        raise XnorNetError(f"{source}: expected a tar that is not compressed, as ImageNet's are; uncompress it first")


def _read_range(source: Path, start: int, size: int) -> bytes:
    with open(source, "rb") as file:
        file.seek(start)
        return file.read(size)


def _class_tar(source: Path, class_name: str) -> Generator[Picture, None, None]:
    with open(source, "rb") as file:
        yield from _pictures_of_tar(source, file, class_name)


def _tar_in_tar(source: Path, class_name: str, start: int, size: int) -> Generator[Picture, None, None]:
    """The pictures of a class, from its tar in the middle of another."""
    with open(source, "rb") as file:
        yield from _pictures_of_tar(source / f"{class_name}.tar", _Part(file, start, size), class_name)


def _pictures_of_tar(place: Path, stream: IO[bytes] | _Part, class_name: str) -> Generator[Picture, None, None]:
    with open_tar(place, stream) as tar:  # type: ignore[arg-type]
        for name, member in regular_members(tar, place):
            if is_picture(name):
                yield Picture(Path("train", class_name, name), member.size, partial(_read_member, place, tar, member))


def _read_member(place: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read by whoever has the picture: a tar that breaks off in the middle of it is told there."""
    with damage_told(place):
        content = tar.extractfile(member)
        return b"" if content is None else content.read()


class _Part:
    """A stretch of a file as a file of its own, as far as tarfile wants one."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self._file, self._start, self._size = file, start, size
        self._place = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + place)
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        self._file.seek(self._start + self._place)
        data = self._file.read(left if size < 0 else min(size, left))
        self._place += len(data)
        return data
