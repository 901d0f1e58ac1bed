"""The primitives of a .t7 file: ints, longs, doubles, strings and storage elements, binary and ascii.

Ports the reading half of torch7 lib/TH/THDiskFile.c. A source walks forward through one file or one block
of bytes; nothing is read outside it, and no memory is taken before the bytes that justify it were seen to
be there.
"""

import mmap
import re
import struct
from io import RawIOBase
from typing import Any, Protocol

import numpy as np

from lua_compat.errors import T7Error
from lua_compat.t7_format import ElementType, Layout
from lua_compat.values import EXACT_INTEGERS, LuaValue, Storage, lua_number, text_or_bytes

__all__ = ["MISSING", "AsciiSource", "BinarySource", "Source"]

MISSING: Any = object()  # no key yet

# Below this a storage is copied out of the bytes already in memory; above, it is read from the file on its
# own.
LARGE_STORAGE = 1 << 16

FIRST_RUN = 32  # table entries looked at together to see whether all are numbers; doubled while they are
LONGEST_RUN = 1 << 16


class Source(Protocol):
    """What the object reader needs of either encoding. `position` is the byte that is read next."""

    layout: Layout
    position: int
    size: int

    def at_end(self) -> bool: ...
    def require_objects(self, count: int) -> None: ...
    def read_int(self) -> int: ...
    def read_longs(self, count: int) -> tuple[int, ...]: ...
    def read_number(self) -> int | float: ...
    def read_raw(self, count: int) -> bytes: ...
    def read_elements(self, element: ElementType, count: int, kind: type[Storage]) -> Storage: ...
    def read_entries(self, entries: dict[Any, LuaValue], count: int) -> tuple[int, Any]: ...


class BinarySource:
    """A binary file, of either byte order and with longs of 4 or 8 bytes."""

    def __init__(
        self,
        buffer: bytes | mmap.mmap,
        layout: Layout,
        file: RawIOBase | None = None,
        views: bool = False,
    ) -> None:
        """`buffer` holds the whole file. Large storages are read from `file` where it is given, past the
        buffer; with `views` storages are views of the buffer instead of copies."""
        self.layout = layout
        self.position = 0
        self.size = len(buffer)
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._file = file
        self._views = views
        order = "<" if layout.byte_order == "little" else ">"
        self._order = order
        self._int = struct.Struct(f"{order}i").unpack_from
        self._double = struct.Struct(f"{order}d").unpack_from
        self._long_code = "q" if layout.long_size == 8 else "i"
        self._longs: dict[int, struct.Struct] = {}
        self._entry = np.dtype(
            [("key_tag", f"{order}i4"), ("key", f"{order}f8"), ("tag", f"{order}i4"), ("value", f"{order}f8")]
        )

    def at_end(self) -> bool:
        return self.position >= self.size

    def require_objects(self, count: int) -> None:
        """Refuse a count of objects that the rest of the file cannot hold (the shortest object is 4 bytes)."""
        if count * 4 > self.size - self.position:
            raise self.cut_short(f"{count} objects", count * 4)

    def cut_short(self, what: str, needed: int) -> T7Error:
        left = self.size - self.position
        return T7Error(f"expected {what} ({needed} bytes), but only {left} bytes are left", position=self.position)

    def read_int(self) -> int:
        (value,) = self._int(self._buffer, self.position)
        self.position += 4
        return value  # type: ignore[no-any-return]

    def read_longs(self, count: int) -> tuple[int, ...]:
        reader = self._longs.get(count)
        if reader is None:
            reader = self._longs[count] = struct.Struct(f"{self._order}{count}{self._long_code}")
        values = reader.unpack_from(self._buffer, self.position)
        self.position += reader.size
        return values

    def read_number(self) -> int | float:
        (value,) = self._double(self._buffer, self.position)
        self.position += 8
        return lua_number(value)

    def read_raw(self, count: int) -> bytes:
        start = self.position
        end = start + count
        if count < 0:
            raise T7Error(f"expected the length of a string, found {count}", position=start)
        if end > self.size:
            raise self.cut_short(f"a string of {count} bytes", count)
        self.position = end
        return self._buffer[start:end]

    def read_elements(self, element: ElementType, count: int, kind: type[Storage]) -> Storage:
        is_long = element.name == "Long"
        dtype = np.dtype(f"{self._order}i{self.layout.long_size}") if is_long else element.dtype
        start = self.position
        nbytes = count * dtype.itemsize
        if nbytes > self.size - start:
            raise self.cut_short(f"{count} elements", nbytes)
        self.position = start + nbytes
        if count == 0:
            return np.ndarray.__new__(kind, (0,), element.dtype)
        in_file = dtype.newbyteorder("<" if self._order == "<" else ">")
        if self._views and in_file.itemsize == element.dtype.itemsize:
            return np.ndarray.__new__(kind, (count,), in_file, self._buffer, start)
        if nbytes < LARGE_STORAGE:
            storage = np.ndarray.__new__(kind, (count,), in_file, bytearray(self._view[start : start + nbytes]))
        else:
            storage = np.ndarray.__new__(kind, (count,), in_file)
            self._fill(storage.view(np.uint8).data, start)
        return storage.astype(element.dtype, copy=False).view(kind)

    def _fill(self, target: memoryview, start: int) -> None:
        """Bytes from `start` on into `target`: straight from the file where there is one."""
        if self._file is None:
            target[:] = self._view[start : start + len(target)]
            return
        self._file.seek(start)
        done = 0
        while done < len(target):
            count = self._file.readinto(target[done:])
            if not count:
                raise T7Error("the file became shorter while it was read", position=start + done)
            done += count

    def read_entries(self, entries: dict[Any, LuaValue], count: int) -> tuple[int, Any]:
        """Read table entries while keys are numbers or strings and values those, booleans or nil.

        Returns how many of `count` entries are left and, if the key of the next was read and its value is
        something else, that key (else MISSING). The generic reader goes on from there.
        """
        if count >= FIRST_RUN:
            count -= self._read_number_entries(entries, count)
        read_int, read_double, buffer, position = self._int, self._double, self._buffer, self.position
        key: Any
        while count:
            (tag,) = read_int(buffer, position)
            if tag == 2:
                (length,) = read_int(buffer, position + 4)
                end = position + 8 + length
                if length < 0 or end > self.size:
                    break
                key = text_or_bytes(buffer[position + 8 : end])
            elif tag == 1:
                (key,) = read_double(buffer, position + 4)
                if key != key:
                    break
                key = lua_number(key + 0.0)
                end = position + 12
            else:
                break
            self.position = position = end
            (tag,) = read_int(buffer, position)
            if tag == 1:
                entries[key] = lua_number(read_double(buffer, position + 4)[0])
                position += 12
            elif tag == 2:
                (length,) = read_int(buffer, position + 4)
                end = position + 8 + length
                if length < 0 or end > self.size:
                    return count, key
                entries[key] = text_or_bytes(buffer[position + 8 : end])
                position = end
            elif tag == 5:
                entries[key] = read_int(buffer, position + 4)[0] == 1
                position += 8
            else:
                return count, key
            self.position = position
            count -= 1
        return count, MISSING

    def _read_number_entries(self, entries: dict[Any, LuaValue], count: int) -> int:
        """Read the leading entries whose key and value are numbers, many at a time; returns how many."""
        done, run = 0, FIRST_RUN
        while done < count:
            rows_left = (self.size - self.position) // self._entry.itemsize
            wanted = min(run, count - done, rows_left)
            rows = (
                np.frombuffer(self._buffer, self._entry, wanted, self.position) if wanted else np.empty(0, self._entry)
            )
            good = (rows["key_tag"] == 1) & (rows["tag"] == 1) & (rows["key"] == rows["key"])
            taken = len(rows) if good.all() else int(good.argmin())
            keys = python_numbers(rows["key"][:taken] + 0.0)
            entries.update(zip(keys, python_numbers(rows["value"][:taken]), strict=True))
            self.position += taken * self._entry.itemsize
            done += taken
            if taken < run:
                break
            run = min(2 * run, LONGEST_RUN)
        return done


def python_numbers(values: np.ndarray[Any, np.dtype[Any]]) -> list[int | float]:
    """`lua_number` of every element."""
    whole = (np.rint(values) == values) & (np.abs(values) < EXACT_INTEGERS) & ~((values == 0) & np.signbit(values))
    if whole.all():
        return values.astype(np.int64).tolist()  # type: ignore[no-any-return]
    if not whole.any():
        return values.tolist()  # type: ignore[no-any-return]
    pairs = zip(values.tolist(), whole.tolist(), strict=True)
    return [int(value) if is_whole else value for value, is_whole in pairs]


INT_TOKEN = re.compile(rb"\s*([+-]?[0-9]{1,20})(?![^\s])")
WORD = re.compile(rb"\s*([^\s]{1,64})(?![^\s])")
REST_IS_BLANK = re.compile(rb"\s*\Z")
NUMBER_CHARACTERS = b"0123456789+-.eE infaINFA\t\r\n\v\f"
MICROSOFT_NUMBERS = {b"1.#INF": "inf", b"-1.#INF": "-inf", b"1.#QNAN": "nan", b"-1.#QNAN": "-nan", b"-1.#IND": "-nan"}


class AsciiSource:
    """An ascii file: numbers as text, strings and byte data raw, one line end after each group.

    Reading follows scanf: white space before a number is skipped, and exactly one line end after a number
    or after raw data is swallowed.
    """

    def __init__(self, buffer: bytes, layout: Layout) -> None:
        self.layout = layout
        self.position = 0
        self.size = len(buffer)
        self._buffer = buffer

    def at_end(self) -> bool:
        return REST_IS_BLANK.match(self._buffer, self.position) is not None

    def require_objects(self, count: int) -> None:
        """Refuse a count of objects that the rest of the file cannot hold (the shortest object is 2 bytes)."""
        left = self.size - self.position
        if count * 2 > left + 1:
            raise T7Error(f"expected {count} objects, but only {left} bytes are left", position=self.position)

    def _token(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        """The next word, and the line end after it."""
        match = pattern.match(self._buffer, self.position)
        if match is None:
            found = self._buffer[self.position : self.position + 24]
            shown = repr(found) if found else "the end of the file"
            raise T7Error(f"expected {what}, found {shown}", position=self.position)
        self.position = match.end()
        self._swallow_line_end()
        return match[1]

    def _swallow_line_end(self) -> None:
        if self._buffer[self.position : self.position + 1] == b"\n":
            self.position += 1

    def read_int(self) -> int:
        start = self.position
        value = int(self._token(INT_TOKEN, "an int"))
        if not -(2**31) <= value < 2**31:
            raise T7Error(f"expected an int, found {value}", position=start)
        return value

    def read_longs(self, count: int) -> tuple[int, ...]:
        start = self.position
        values = tuple([int(self._token(INT_TOKEN, "a long")) for _ in range(count)])
        if any(not -(2**63) <= value < 2**63 for value in values):
            raise T7Error(f"expected longs, found {values}", position=start)
        return values

    def read_number(self) -> int | float:
        start = self.position
        return lua_number(parse_float(self._token(WORD, "a number"), start))

    def read_raw(self, count: int) -> bytes:
        start = self.position
        if count < 0:
            raise T7Error(f"expected the length of a string, found {count}", position=start)
        if count > self.size - start:
            left = self.size - start
            raise T7Error(f"expected a string of {count} bytes, but only {left} are left", position=start)
        if count == 0:
            return b""
        self.position = start + count
        self._swallow_line_end()
        return self._buffer[start : start + count]

    def read_elements(self, element: ElementType, count: int, kind: type[Storage]) -> Storage:
        if count == 0:
            return np.ndarray.__new__(kind, (0,), element.dtype)
        if element.dtype.itemsize == 1:
            raw = bytearray(self.read_raw(count))
            return np.ndarray.__new__(kind, (count,), element.dtype, raw)
        start = self.position
        if 2 * count > self.size - start + 1:
            left = self.size - start
            raise T7Error(f"expected {count} elements, but only {left} bytes are left", position=start)
        words = self._words(count)
        if element.dtype.kind == "f":
            values = np.array([parse_float(word, start) for word in words])
            with np.errstate(over="ignore"):  # a number too large for the type is infinite, as scanf has it
                return values.astype(element.dtype).view(kind)
        return parse_integers(words, element, start).view(kind)

    def _words(self, count: int) -> list[bytes]:
        """The next `count` words: usually exactly one line."""
        end = self._buffer.find(b"\n", self.position)
        end = self.size if end < 0 else end
        if end - self.position <= 64 * count:
            words = self._buffer[self.position : end].split()
            if len(words) == count:
                self.position = end
                self._swallow_line_end()
                return words
        words = []
        for _ in range(count):
            match = WORD.match(self._buffer, self.position)
            if match is None:
                raise T7Error(f"expected {count} elements, found {len(words)}", position=self.position)
            words.append(match[1])
            self.position = match.end()
        self._swallow_line_end()
        return words

    def read_entries(self, entries: dict[Any, LuaValue], count: int) -> tuple[int, Any]:
        """Leave every entry to the generic reader."""
        return count, MISSING


def parse_float(word: bytes, position: int) -> float:
    """One number of an ascii file. Microsoft's C library wrote infinities and NaN in its own way."""
    try:
        if word.strip(NUMBER_CHARACTERS):
            return float(MICROSOFT_NUMBERS[word])
        return float(word)
    except (KeyError, ValueError):
        raise T7Error(f"expected a number, found {word[:24]!r}", position=position) from None


def parse_integers(words: list[bytes], element: ElementType, position: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Integer elements, each checked to be one and to fit its type."""
    limits = np.iinfo(element.dtype.str)
    values = []
    for word in words:
        if INT_TOKEN.fullmatch(word) is None or not limits.min <= int(word) <= limits.max:
            raise T7Error(f"expected an element of type {element.name}, found {word[:24]!r}", position=position)
        values.append(int(word))
    return np.array(values, element.dtype)
