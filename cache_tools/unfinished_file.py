"""Replacing a file as a whole where a library opens it by its name, and where it is read again before it counts."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache_tools.console import UNFINISHED
from lua_compat.atomic_file import LONGEST_NAME, replaceable

__all__ = ["unfinished_file"]


@contextmanager
def unfinished_file(path: str | Path) -> Iterator[Path]:
    """The name of a file beside `path` with its ending, which becomes `path` when the block ends without an exception.

    As with `replace_file` a symbolic link stays and its target is replaced, permissions of an existing file are kept,
    and OSError tells what the system refuses, or that `path` is a folder, a device or a pipe.
    """
    target = replaceable(path)
    unfinished = target.with_name(UNFINISHED + os.fsencode(target.name)[-LONGEST_NAME:].decode(errors="ignore"))
    try:
        unfinished.touch()  # where that cannot be, the system says why; libraries would not
        permissions = stat.S_IMODE((target if target.exists() else unfinished).stat().st_mode)
        yield unfinished
        unfinished.chmod(permissions)  # safetensors makes a file for its owner alone
        os.replace(unfinished, target)
    except OSError as error:
        if error.filename is None:  # a full disk: of which file?
            error.filename = str(target)
        raise
    finally:
        unfinished.unlink(missing_ok=True)
