"""Table entries of one shape, read many at a time.

In large tables thousands of entries in a row have the same types and the same lengths of strings: numbered
lists, paths, counters. Such a run is a matrix of bytes with one row per entry, and NumPy takes it apart by
columns.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lua_compat.t7_format import Tag
from lua_compat.t7_key_guard import KeyGuard
from lua_compat.values import EXACT_INTEGERS, LuaValue, text_or_bytes

__all__ = ["SHORTEST_RUN", "EntryShape", "Patience", "field", "leading_true", "python_numbers", "read_run"]

SHORTEST_RUN = 32  # entries looked at first; eight times as many while all have the shape
LONGEST_RUN = 1 << 16
LONGEST_PAUSE = 1 << 12


class EntryShape(NamedTuple):
    """The types of an entry's key and value, and their lengths in bytes where they are strings (else 0)."""

    key_tag: int
    key_length: int
    value_tag: int
    value_length: int


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


HEAD_BYTES = {Tag.NUMBER: 4, Tag.STRING: 8, Tag.BOOLEAN: 4}
BODY_BYTES = {Tag.NUMBER: 8, Tag.STRING: 0, Tag.BOOLEAN: 4}


def read_run(
    buffer: Any,
    position: int,
    order: str,
    shape: EntryShape,
    count: int,
    entries: dict[Any, LuaValue],
    guard: KeyGuard,
) -> tuple[int, int]:
    """Read up to `count` entries that have `shape`; returns how many there were and where the next begins.

    `order` is "<" or ">". Stops before a NaN key.
    """
    value_start = HEAD_BYTES[Tag(shape.key_tag)] + BODY_BYTES[Tag(shape.key_tag)] + shape.key_length
    stride = value_start + HEAD_BYTES[Tag(shape.value_tag)] + BODY_BYTES[Tag(shape.value_tag)] + shape.value_length
    done, wanted = 0, SHORTEST_RUN
    while done < count:
        rows_left = (len(buffer) - position) // stride
        looked_at = min(wanted, count - done, rows_left)
        block = np.frombuffer(buffer, np.uint8, looked_at * stride, position).reshape(looked_at, stride)
        keys = Column(block[:, :value_start], order, shape.key_tag, shape.key_length)
        values = Column(block[:, value_start:], order, shape.value_tag, shape.value_length)
        taken = leading_true(keys.fits() & values.fits() & ~keys.is_nan())
        guard.add(entries, keys.read(taken, is_key=True), values.read(taken))
        position += taken * stride
        done += taken
        if taken < wanted:
            break
        wanted = min(8 * wanted, LONGEST_RUN)
    return done, position


class Column:
    """The keys or the values of a block of entries, as rows of bytes."""

    def __init__(self, rows: npt.NDArray[np.uint8], order: str, tag: int, length: int) -> None:
        self._rows = rows
        self._order = order
        self._tag = tag
        self._length = length

    def _field(self, start: int, code: str) -> npt.NDArray[Any]:
        return field(self._rows, start, self._order + code)

    def fits(self) -> npt.NDArray[np.bool_]:
        """Which rows have the type, and the length where it is a string."""
        fits: npt.NDArray[np.bool_] = self._field(0, "i4") == self._tag
        if self._tag == Tag.STRING:
            fits &= self._field(4, "i4") == self._length
        return fits

    def is_nan(self) -> npt.NDArray[np.bool_]:
        if self._tag != Tag.NUMBER:
            return np.zeros(len(self._rows), np.bool_)
        is_nan: npt.NDArray[np.bool_] = np.isnan(self._field(4, "f8"))
        return is_nan

    def read(self, count: int, is_key: bool = False) -> list[Any]:
        """The first `count` of them as Python values."""
        if self._tag == Tag.NUMBER:
            numbers = self._field(4, "f8")[:count]
            return python_numbers(numbers + 0.0 if is_key else numbers)  # -0.0 is the key 0
        if self._tag == Tag.BOOLEAN:
            booleans: list[bool] = (self._field(4, "i4")[:count] == 1).tolist()
            return booleans
        return split_strings(self._rows[:count, 8:].tobytes(), self._length, count)


def field(rows: npt.NDArray[np.uint8], start: int, code: str) -> npt.NDArray[Any]:
    """The number that stands at the same place in each row, `code` being its NumPy type."""
    dtype = np.dtype(code)
    return np.ascontiguousarray(rows[:, start : start + dtype.itemsize]).view(dtype)[:, 0]


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


def split_strings(block: bytes, length: int, count: int) -> list[str | bytes]:
    """`count` strings of one length that stand one after another."""
    if block.isascii():
        text = block.decode("ascii")
        return [text[start : start + length] for start in range(0, length * count, length)] if length else [""] * count
    return [text_or_bytes(block[start : start + length]) for start in range(0, length * count, length)]
