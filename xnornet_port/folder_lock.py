"""One process at a time writes into the folder of a run: a cluster may start a run again while it still ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xnornet_port.errors import XnorNetError

__all__ = ["folder_lock"]


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it however the process ends. XnorNetError where another one has it.

    File systems without locks (some network ones) and systems without flock are taken as they are.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise XnorNetError(f"{folder}: another process runs in this folder; wait for its end") from error
        yield
    finally:
        os.close(descriptor)
