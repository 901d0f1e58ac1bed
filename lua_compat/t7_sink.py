"""The primitives of a .t7 file, written: binary and ascii.

Ports the writing half of torch7 lib/TH/THDiskFile.c, with its formats: %.17g for doubles, %.9g for floats.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from lua_compat.errors import T7Error
from lua_compat.t7_format import Layout

__all__ = ["AsciiSink", "BinarySink", "Sink"]

CHUNK = 1 << 18  # elements converted at a time: little memory beside the array itself


class Sink(Protocol):
    """What the object writer needs of either encoding."""

    def write_int(self, value: int) -> None: ...
    def write_longs(self, *values: int) -> None: ...
    def write_number(self, value: float) -> None: ...
    def write_raw(self, raw: bytes) -> None: ...
    def write_elements(self, values: npt.NDArray[Any]) -> None: ...


class BinarySink:
    """Writes the binary encoding, in either byte order and with longs of 4 or 8 bytes."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        order = "<" if layout.byte_order == "little" else ">"
        self._write = file.write
        self._order = order
        self._long_size = layout.long_size
        self._int = struct.Struct(f"{order}i").pack
        self._double = struct.Struct(f"{order}d").pack

    def write_int(self, value: int) -> None:
        self._write(self._int(value))

    def write_longs(self, *values: int) -> None:
        code = "q" if self._long_size == 8 else "i"
        try:
            self._write(struct.pack(f"{self._order}{len(values)}{code}", *values))
        except struct.error:
            raise T7Error(f"{values} do not fit longs of {self._long_size} bytes") from None

    def write_number(self, value: float) -> None:
        self._write(self._double(value))

    def write_raw(self, raw: bytes) -> None:
        self._write(raw)

    def write_elements(self, values: npt.NDArray[Any]) -> None:
        dtype = values.dtype.newbyteorder("<" if self._order == "<" else ">")
        if values.dtype == np.int64 and self._long_size == 4:
            check_fits_int32(values)
            dtype = np.dtype(f"{self._order}i4")
        if dtype == values.dtype:
            self._write(values.view(np.uint8).data)
            return
        for chunk in chunks(values):
            self._write(chunk.astype(dtype).tobytes())


class AsciiSink:
    """Writes the ascii encoding: each group of values on a line; strings and byte data raw."""

    def __init__(self, file: BinaryIO) -> None:
        self._write = file.write

    def write_int(self, value: int) -> None:
        self._write(b"%d\n" % value)

    def write_longs(self, *values: int) -> None:
        if values:
            self._write(b" ".join([b"%d" % value for value in values]) + b"\n")

    def write_number(self, value: float) -> None:
        self._write(float_text(value, "%.17g").encode() + b"\n")

    def write_raw(self, raw: bytes) -> None:
        if raw:
            self._write(raw)
            self._write(b"\n")

    def write_elements(self, values: npt.NDArray[Any]) -> None:
        if values.size == 0:
            return
        if values.itemsize == 1:
            self.write_raw(values.tobytes())
            return
        text_format = "%d" if values.dtype.kind == "i" else "%.17g" if values.itemsize == 8 else "%.9g"
        separator = ""
        for chunk in chunks(values):
            words = [text_format % value for value in chunk.tolist()]
            if chunk.dtype.kind == "f":
                for index in np.flatnonzero(np.isnan(chunk)).tolist():
                    words[index] = float_text(float(chunk[index]), text_format)
            self._write((separator + " ".join(words)).encode())
            separator = " "
        self._write(b"\n")


def float_text(value: float, text_format: str) -> str:
    """A float as C prints it: unlike Python, C shows the sign of a NaN."""
    if math.isnan(value):
        return "-nan" if math.copysign(1, value) < 0 else "nan"
    return text_format % value


def chunks(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """A 1-d array in pieces."""
    for start in range(0, values.size, CHUNK):
        yield values[start : start + CHUNK]


def check_fits_int32(values: npt.NDArray[Any]) -> None:
    """Refuse to cut longs: Torch7 would drop their upper half."""
    for chunk in chunks(values):
        limits = (int(chunk.min()), int(chunk.max()))
        if limits[0] < -(2**31) or limits[1] >= 2**31:
            raise T7Error(f"a LongStorage with {limits[0]} to {limits[1]} does not fit longs of 4 bytes")
