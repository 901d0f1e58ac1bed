"""Table entries of one shape, read many at a time.

In large tables thousands of entries in a row have keys of one type and values of one type: numbered lists, paths,
counters. Where they begin shows in their type ids, and each must begin where the one before ends; so NumPy finds
many at once and takes them apart.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lua_compat.t7_format import Tag
from lua_compat.t7_key_guard import KeyGuard
from lua_compat.values import EXACT_INTEGERS, LuaValue, text_or_bytes

__all__ = [
    "FEWEST_ENTRIES",
    "LONGEST_ENTRY",
    "SHORTEST_RUN",
    "EntryShape",
    "Patience",
    "leading_true",
    "python_numbers",
    "read_run",
]

Places = npt.NDArray[np.int64]

SHORTEST_RUN = 32  # with fewer the search is not soon repeated
FEWEST_ENTRIES = 128  # that make up for a search
LONGEST_ENTRY = 256  # bytes; longer ones are read quicker one by one
LONGEST_BLOCK = 1 << 20  # bytes looked at together; fewer at first
LONGEST_PAUSE = 1 << 12


class EntryShape(NamedTuple):
    """The types of an entry's key and value, and how many bytes the entry takes (others may take more or fewer)."""

    key_tag: int
    value_tag: int
    n_bytes: int


class Patience:
    """When to look for a run: soon after one was found, ever later after looking in vain."""

    __slots__ = ("_pause", "left")

    def __init__(self, first: int) -> None:
        self.left = first  # entries to read one by one before
        self._pause = SHORTEST_RUN

    def note(self, taken: int) -> None:
        """A run of `taken` entries was found."""
        self._pause = 1 if taken >= SHORTEST_RUN else min(2 * self._pause, LONGEST_PAUSE)
        self.left = self._pause


# Members of an IntEnum are slow to look up.
NUMBER, STRING, BOOLEAN = int(Tag.NUMBER), int(Tag.STRING), int(Tag.BOOLEAN)
ITEM_BYTES = {NUMBER: 12, STRING: 8, BOOLEAN: 8}  # type id and number; type id and length; type id and int


def read_run(
    buffer: Any,
    position: int,
    order: str,
    shape: EntryShape,
    count: int,
    entries: dict[Any, LuaValue],
    guard: KeyGuard,
) -> tuple[int, int]:
    """Read up to `count` entries that have the types of `shape`; returns how many there were and where the next begins.

    `order` is "<" or ">". Stops before a NaN key.
    """
    done, size = 0, FEWEST_ENTRIES * shape.n_bytes
    while done < count:
        block = Block(buffer, position, min(size, LONGEST_BLOCK, len(buffer) - position), order)
        keys_at, values_at, ends = block.entries(shape.key_tag, shape.value_tag, count - done)
        taken = len(ends)
        if taken:
            keys = block.read(keys_at, values_at, shape.key_tag, is_key=True)
            guard.add(entries, keys, block.read(values_at, ends, shape.value_tag))
            position += int(ends[-1])
            done += taken
        if taken < SHORTEST_RUN or int(ends[-1]) > taken * LONGEST_ENTRY:
            break
        size *= 8
    return done, position


class Block:
    """Some bytes of a file that begin with an entry. An item is a key or a value; places count from the beginning."""

    def __init__(self, buffer: Any, position: int, size: int, order: str) -> None:
        self._bytes = np.frombuffer(buffer, np.uint8, size, position)
        self._order = order
        # The numbers that begin at each byte.
        self._ints = np.ndarray((max(size - 3, 0),), f"{order}i4", buffer, position, (1,))
        self._doubles = np.ndarray((max(size - 7, 0),), f"{order}f8", buffer, position, (1,))

    def entries(self, key_tag: int, value_tag: int, most: int) -> tuple[Places, Places, Places]:
        """Where keys and values of up to `most` leading entries of these types begin, and where the entries end."""
        size = self._bytes.size
        shortest = ITEM_BYTES[key_tag] + ITEM_BYTES[value_tag]
        if STRING in (key_tag, value_tag):
            keys_at = self._type_ids(STRING) - (0 if key_tag == STRING else ITEM_BYTES[key_tag])
            keys_at = keys_at[(keys_at >= 0) & (keys_at <= size - shortest)]
            keys_at = keys_at[self._ints[keys_at] == key_tag]
            if key_tag == value_tag:  # of items that follow one another every other is a key
                keys_at = keys_at[::2]
        else:
            keys_at = np.arange(0, size - shortest + 1, shortest)
            keys_at = keys_at[: leading_true(self._ints[keys_at] == key_tag)]
        keys_at = keys_at[:most]
        values_at, is_entry = self._ends(keys_at, key_tag, size - ITEM_BYTES[value_tag])
        is_entry &= self._ints[values_at] == value_tag
        ends, fits = self._ends(values_at, value_tag, size)
        is_entry &= fits
        is_entry[:1] &= keys_at[:1] == 0
        is_entry[1:] &= ends[:-1] == keys_at[1:]
        if key_tag == NUMBER:
            is_entry &= ~np.isnan(self._doubles[keys_at + 4])
        taken = leading_true(is_entry)
        return keys_at[:taken], values_at[:taken], ends[:taken]

    def read(self, places: Places, ends: Places, tag: int, is_key: bool = False) -> list[Any]:
        """The items of one type from these places to these ends as Python values."""
        if tag == NUMBER:
            numbers = self._doubles[places + 4]
            return python_numbers(numbers + 0.0 if is_key else numbers)  # -0.0 is the key 0
        if tag == BOOLEAN:
            booleans: list[bool] = (self._ints[places + 4] == 1).tolist()
            return booleans
        return self._strings(places + ITEM_BYTES[STRING], ends)

    def _strings(self, starts: Places, ends: Places) -> list[Any]:
        """The strings from each start to its end, the next start at least two bytes behind."""
        borders = np.zeros(self._bytes.size + 1, np.int8)
        borders[starts - 1], borders[ends] = 1, -1
        is_kept = np.cumsum(borders[:-1], dtype=np.int8).view(np.bool_)
        marked = self._bytes.copy()
        marked[starts - 1] = 0
        kept = marked[is_kept].tobytes()  # a zero byte and a string, and so on
        if kept.isascii() and kept.count(0) == len(starts):
            return kept.decode("ascii").split("\0")[1:]
        raw = self._bytes.tobytes()
        return [text_or_bytes(raw[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _type_ids(self, tag: int) -> Places:
        """Where an int may stand that is this type id: its lowest byte is it."""
        return np.flatnonzero(self._bytes == tag) - (0 if self._order == "<" else 3)

    def _ends(self, places: Places, tag: int, most: int) -> tuple[Places, npt.NDArray[np.bool_]]:
        """Where items of one type end, 0 where that is beyond `most` or a length is below 0, and where neither is."""
        ends = places + ITEM_BYTES[tag]
        fits: npt.NDArray[np.bool_] = ends <= most
        if tag == STRING:
            lengths = self._ints[places + 4]
            ends += lengths
            fits = (lengths >= 0) & (ends <= most)
        return np.where(fits, ends, 0), fits


def leading_true(flags: npt.NDArray[np.bool_]) -> int:
    """How many flags are true before the first that is not."""
    return len(flags) if flags.all() else int(flags.argmin())


def python_numbers(values: npt.NDArray[Any]) -> list[int | float]:
    """`lua_number` of every element."""
    is_whole = (np.rint(values) == values) & (np.abs(values) < EXACT_INTEGERS)
    is_whole &= (values != 0) | ~np.signbit(values)
    if is_whole.all():
        integers: list[int | float] = values.astype(np.int64).tolist()
        return integers
    numbers: list[float] = values.tolist()
    if not is_whole.any():
        return numbers
    return [int(number) if whole else number for number, whole in zip(numbers, is_whole.tolist(), strict=True)]
