"""No memory left, on a GPU or on the host, as one line in place of PyTorch's traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from xnornet_port.errors import XnorNetError

__all__ = ["memory_errors"]

# Of CUDA's allocator, the host's (pinned memory too), and cuDNN and cuBLAS.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
WANTED = re.compile(r"tried to allocate (\d[\d.]* \w+)", re.IGNORECASE)


@contextmanager
def memory_errors(what: str, way_out: str) -> Iterator[None]:
    """Inside, memory that runs out is an XnorNetError: none for `what`; `way_out`. Other errors stay as they are."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        wanted = WANTED.search(str(error))
        size = f" (the last piece wanted: {wanted[1]})" if wanted else ""
        raise XnorNetError(f"no memory for {what}{size}; {way_out}") from error
