"""Replacing a file as a whole: a crash at any moment leaves the old file or the new one, never a part."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["LONGEST_NAME", "replace_file", "replaceable", "wanted_name"]

BUFFER_BYTES = 1 << 20
LONGEST_NAME = 200  # bytes of the wanted name in the temporary one, which is longer and may have 255
TEMPORARY_NAME = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp", re.DOTALL)


@contextmanager
def replace_file(path: str | Path, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write into, which becomes `path` when the block ends without an exception.

    It is written beside `path` under another name, brought to the disk (fsync) and renamed. A symbolic link
    stays and its target is replaced; permissions of an existing file are kept. OSError as the system has it, of
    `path` where it names no file, and where `path` is a folder, a device or a pipe, which stays as it is.
    """
    target = replaceable(path)
    temporary = target.with_name(temporary_name(target.name))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(descriptor, "wb", buffering=BUFFER_BYTES) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # a full disk: of which file?
            error.filename = str(target)
        raise
    if sync:
        sync_folder(target.parent)


def temporary_name(name: str) -> str:
    """A new name for what is to become the file `name`; a long one is cut."""
    cut = os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")  # not within a letter: some systems want text
    return f".{cut}.{secrets.token_hex(6)}.tmp"


def wanted_name(temporary: str) -> str | None:
    """Of a name that `replace_file` writes under: that of the file it is to become; None for any other name."""
    match = TEMPORARY_NAME.fullmatch(temporary)
    return match[1] if match else None


def replaceable(path: str | Path) -> Path:
    """The file that `path` leads to, or will. A rename would put a file in the place even of /dev/null."""
    try:
        target = Path(os.path.realpath(path))
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return target
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a device or pipe, not a file", str(target))
    return target


def sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the system can (Windows cannot open folders)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
