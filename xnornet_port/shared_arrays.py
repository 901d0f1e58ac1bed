"""Arrays in memory that two processes have in common, without a name and so without anything to clean up.

The memory is a file that is in no folder: it is gone when the last process that has it open ends, however it ends.
"""

import errno
import math
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "allocate_memory", "arrays_in", "attach_memory", "layout_size"]

Array = npt.NDArray[Any]

Layout = list[tuple[str, tuple[int, ...]]]
"""Element type and shape of each array in one block of memory."""

ALIGNMENT = 64  # bytes; a cache line, and what vector instructions like


def layout_size(layout: Layout) -> int:
    """Bytes of memory that the arrays need."""
    return max(sum(_padded_size(dtype, shape) for dtype, shape in layout), 1)


def allocate_memory(size: int) -> tuple[int, mmap.mmap]:
    """New memory of zeros, and the file descriptor to pass on; the caller closes that.

    Raises OSError when there is no room for so much. Memory is taken when it is written to, as with any array.
    """
    if size > sys.maxsize:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    descriptor = _nameless_file()
    try:
        os.ftruncate(descriptor, size)
        return descriptor, mmap.mmap(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise


def attach_memory(descriptor: int) -> mmap.mmap:
    """The memory behind a descriptor that another process allocated; the caller closes the descriptor."""
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)


def arrays_in(memory: mmap.mmap, layout: Layout) -> list[Array]:
    """Arrays at the beginning of `memory`, which live as long as it does and keep it alive."""
    arrays, offset = [], 0
    for dtype, shape in layout:
        arrays.append(np.ndarray(shape, dtype, buffer=memory, offset=offset))
        offset += _padded_size(dtype, shape)
    return arrays


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("xnornet_port")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _padded_size(dtype: str, shape: tuple[int, ...]) -> int:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
