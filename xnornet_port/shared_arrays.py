"""Arrays in memory that two processes have in common, without a name and so without anything to clean up.

The memory is a file that is in no folder: it is gone when the last process that has it open ends, however it ends.
"""

import errno
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "allocate_shared", "attach_shared"]

Array = npt.NDArray[Any]

Layout = list[tuple[str, tuple[int, ...]]]
"""Element type and shape of each array in one block of memory."""

ALIGNMENT = 64  # bytes; a cache line, and what vector instructions like


def allocate_shared(layout: Layout) -> tuple[int, list[Array]]:
    """New arrays, filled with zeros, and the file descriptor to pass on; the caller closes it.

    Raises OSError when there is no room for so much.
    """
    offsets, size = _offsets(layout)
    if size > sys.maxsize:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    descriptor = _nameless_file()
    try:
        os.ftruncate(descriptor, size)  # memory is taken when it is written to, as with any array
        return descriptor, _arrays(descriptor, size, layout, offsets)
    except OSError:
        os.close(descriptor)
        raise


def attach_shared(descriptor: int, layout: Layout) -> list[Array]:
    """The arrays in a descriptor from `allocate_shared`. They keep the memory; the caller closes the descriptor."""
    offsets, size = _offsets(layout)
    return _arrays(descriptor, size, layout, offsets)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("xnornet_port")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _offsets(layout: Layout) -> tuple[Sequence[int], int]:
    """Where each array begins, and the size of the whole."""
    offsets, end = [], 0
    for dtype, shape in layout:
        offsets.append(end)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, max(end, 1)


def _arrays(descriptor: int, size: int, layout: Layout, offsets: Sequence[int]) -> list[Array]:
    memory = mmap.mmap(descriptor, size)
    return [
        np.ndarray(shape, dtype, buffer=memory, offset=offset)
        for (dtype, shape), offset in zip(layout, offsets, strict=True)
    ]
