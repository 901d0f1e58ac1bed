"""Which picture a data worker is at: a note in memory that the main process reads while it waits for the worker."""

import mmap
import struct

__all__ = ["WATCH_BYTES", "PictureWatch"]

HEADER = struct.Struct("<QI")  # number of notes so far, length of the path
LONGEST_PATH = 1 << 16

WATCH_BYTES = HEADER.size + LONGEST_PATH
"""Bytes of memory that a watch needs."""


class PictureWatch:
    """The worker calls `begin` and `end`, the main process looks.

    Looking at a worker that goes on meanwhile may give a mixture of two notes: only a note that stays counts.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._count = 0

    def begin(self, path: bytes) -> None:
        """The picture at `path` is next."""
        path = path[:LONGEST_PATH]
        self._count += 1
        self._memory[HEADER.size : HEADER.size + len(path)] = path
        HEADER.pack_into(self._memory, 0, self._count, len(path))

    def end(self) -> None:
        """No picture is being read."""
        self.begin(b"")

    def look(self) -> tuple[int, bytes]:
        """Number of notes so far, and the path of the picture being read (empty for none)."""
        count, length = HEADER.unpack_from(self._memory)
        return count, bytes(self._memory[HEADER.size : HEADER.size + length])
