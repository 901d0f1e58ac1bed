"""The primitives of an ascii .t7 file.

Ports the reading half of torch7 lib/TH/THDiskFile.c in its ascii mode.
"""

import re
from typing import Any

import numpy as np

from lua_compat.errors import T7Error
from lua_compat.t7_format import ElementType, Layout
from lua_compat.t7_key_guard import KeyGuard
from lua_compat.t7_source import MISSING, read_class
from lua_compat.values import LuaValue, Storage, lua_number

__all__ = ["AsciiSource"]

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
        self.has_longs = False
        self.guard = KeyGuard()
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
        self.has_longs = True
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

    def read_class(self) -> tuple[str, float]:
        return read_class(self)

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
        longest = min(self.size, self.position + 64 * count)
        end = self._buffer.find(b"\n", self.position, longest)
        if end >= 0 or longest == self.size:
            end = end if end >= 0 else self.size
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
