"""Tar files from anywhere, read without trusting them: nothing in them chooses where a file is written."""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xnornet_port.errors import XnorNetError

__all__ = ["damage_told", "is_tar_name", "open_tar", "regular_members"]

TAR_NAME = re.compile(r".*\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz)", re.IGNORECASE)
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


def is_tar_name(path: Path) -> bool:
    """Whether a name says that this is a tar file."""
    return bool(TAR_NAME.fullmatch(path.name))


@contextmanager
def open_tar(path: Path, stream: IO[bytes] | None = None) -> Iterator[tarfile.TarFile]:
    """A tar file, or one inside another where `stream` is given; damage found while it is read is told in one line."""
    if stream is None and path.exists() and not path.is_file():
        raise XnorNetError(f"{path}: a folder, device or pipe, expected a tar file")  # of /dev/zero there is no end
    with damage_told(path), tarfile.open(path, fileobj=stream) as tar:
        yield tar


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Inside, what tarfile raises for a tar that is cut off or none becomes an XnorNetError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).split("\n")[0].rstrip(":")  # tarfile lists what each compression says
        raise XnorNetError(f"{path}: not a whole tar file ({reason}); download it again") from error


def regular_members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of a tar as (base name, member).

    Folders are passed over: what is in them keeps its base name only. Raises XnorNetError for a member that leads
    elsewhere (an absolute path, `..`, a link) or is no plain file.
    """
    for member in tar:
        parts = member.name.split("/")
        if member.name.startswith("/") or ".." in parts or CONTROL_CHARACTERS.search(member.name):
            raise XnorNetError(f"{path}: refused, it holds {member.name!r}, a path that leads out of its folder")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise XnorNetError(f"{path}: refused, it holds {member.name!r}, a link or device in place of a file")
        yield os.path.basename(member.name), member
