"""A watch on tables whose keys are chosen to make Python slow.

Python spreads strings over a dictionary in a way that nobody can foresee, but numbers in a known way. So numbers can
be chosen that all look for their place along the same way: each must pass all those before it, and reading takes
quadratic time. Counting steps would cost every reader of honest files time; so the reader looks only when a
table takes longer than it should.
"""

import time
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat.errors import T7Error

__all__ = ["KEYS_AT_ONCE", "KeyGuard", "keys_without_place"]

KEYS_AT_ONCE = 256  # added before the guard is asked
FEWEST_KEYS = 1 << 12  # fewer do no harm
USUAL_SECONDS = 0.2  # of processor time for a whole file, and for each key
USUAL_SECONDS_PER_KEY = 2e-6
MOST_PROBES = 512
LEFT_OVER = 1 / 64  # of the numbers; of honest ones, multiples of large powers of 2 included, not one in 500


class KeyGuard:
    """Watches the tables of one file."""

    def __init__(self) -> None:
        self._start = time.thread_time()
        self._slowness = 1  # of this machine, or of what else is in the tables

    def check(self, entries: dict[Any, Any]) -> None:
        """To be called after every few new entries. T7Error where numbers among the keys are why they take long."""
        seconds = time.thread_time() - self._start
        if seconds < self._slowness * (USUAL_SECONDS + len(entries) * USUAL_SECONDS_PER_KEY):
            return
        if keys_without_place(entries) > LEFT_OVER * len(entries):
            raise T7Error(
                "expected keys that Python can tell apart quickly, found a table of numbers chosen to be slow as keys"
            )
        self._slowness *= 2

    def add(self, entries: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
        """Add many entries at once to those of a table."""
        pairs = zip(keys, values, strict=True)
        for _ in range(0, len(keys), KEYS_AT_ONCE):
            entries.update(islice(pairs, KEYS_AT_ONCE))
            self.check(entries)


def keys_without_place(entries: dict[Any, Any]) -> int:
    """How many of the numbers among the keys find no place in a dictionary of their number in `MOST_PROBES` tries.

    The places that a key tries are those of CPython's Objects/dictobject.c. All keys take a step at a time; of those
    that come to the same free place the first in the table gets it.
    """
    numbers = (hash(key) for key in entries if type(key) is int or type(key) is float)
    hashes = np.fromiter(numbers, np.int64).astype(np.uint64)
    if len(hashes) < FEWEST_KEYS:
        return 0
    places = 1 << (3 * len(hashes) // 2).bit_length()
    taken_by: npt.NDArray[np.int64] = np.full(places, -1)
    names = np.arange(len(hashes))
    perturb, place = hashes, hashes % np.uint64(places)
    for _ in range(MOST_PROBES):
        is_free = taken_by[place] < 0
        taken_by[place[is_free][::-1]] = names[is_free][::-1]
        left = taken_by[place] != names
        names, perturb, place = names[left], perturb[left] >> np.uint64(5), place[left]
        place = (place * np.uint64(5) + perturb + np.uint64(1)) % np.uint64(places)
    return len(names)
