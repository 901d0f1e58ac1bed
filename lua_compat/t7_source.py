"""The primitives of a binary .t7 file: ints, longs, doubles, strings and storage elements.

Ports the reading half of torch7 lib/TH/THDiskFile.c. A source walks forward through one file or one block
of bytes; nothing is read outside it, and no memory is taken before the bytes that justify it were seen to
be there.
"""

import mmap
import struct
from io import RawIOBase
from typing import Any, Protocol

import numpy as np

from lua_compat.errors import T7Error
from lua_compat.t7_format import CLASS_NAME, VERSION, ElementType, Layout
from lua_compat.t7_key_guard import KEYS_AT_ONCE, KeyGuard
from lua_compat.t7_runs import FEWEST_ENTRIES, LONGEST_ENTRY, EntryShape, Patience, read_run
from lua_compat.values import EXACT_INTEGERS, LuaValue, Storage, lua_number, text_or_bytes

__all__ = ["MISSING", "BinarySource", "Source", "read_class"]

MISSING: Any = object()  # no key yet

# Below this a storage is copied out of the bytes already in memory; above, it is read from the file on its
# own.
LARGE_STORAGE = 1 << 16


class Source(Protocol):
    """What the object reader needs of either encoding. `position` is the byte that is read next."""

    layout: Layout
    position: int
    size: int
    has_longs: bool  # whether any was read so far
    guard: KeyGuard

    def at_end(self) -> bool: ...
    def require_objects(self, count: int) -> None: ...
    def read_int(self) -> int: ...
    def read_longs(self, count: int) -> tuple[int, ...]: ...
    def read_number(self) -> int | float: ...
    def read_raw(self, count: int) -> bytes: ...
    def read_class(self) -> tuple[str, float]: ...
    def read_elements(self, element: ElementType, count: int, kind: type[Storage]) -> Storage: ...
    def read_entries(self, entries: dict[Any, LuaValue], count: int) -> tuple[int, Any]: ...


def read_class(source: Source) -> tuple[str, float]:
    """Class name and version. Before versions existed the name stood where the version is now, version 0."""
    start = source.position
    raw = source.read_raw(source.read_int())
    version: float = 0
    match = VERSION.fullmatch(raw)
    if match is not None:
        version = float(raw[2:]) if match[2] else int(match[1])
        raw = source.read_raw(source.read_int())
    if CLASS_NAME.fullmatch(raw) is None:
        raise T7Error(f"expected a class name, found {raw[:40]!r}", position=start)
    return raw.decode("ascii"), version


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
        self.has_longs = False
        self.guard = KeyGuard()
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
        self._pair = struct.Struct(f"{order}ii").unpack_from
        self._version_one = struct.pack(f"{order}i3s", 3, b"V 1")
        self._class_names: dict[bytes, str] = {}
        self._in_file: dict[str, np.dtype[Any]] = {}

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
        self.has_longs = True
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

    def read_class(self) -> tuple[str, float]:
        start = self.position
        if self._buffer[start : start + 7] != self._version_one:
            return read_class(self)
        (length,) = self._int(self._buffer, start + 7)
        name = self._class_names.get(self._buffer[start + 11 : start + 11 + length]) if length > 0 else None
        if name is None:
            name, version = read_class(self)
            self._class_names[name.encode("ascii")] = name
            return name, version
        self.position = start + 11 + length
        return name, 1

    def read_elements(self, element: ElementType, count: int, kind: type[Storage]) -> Storage:
        dtype = self._in_file.get(element.name) or self._type_in_file(element)
        start = self.position
        nbytes = count * dtype.itemsize
        if nbytes > self.size - start:
            raise self.cut_short(f"{count} elements", nbytes)
        self.position = start + nbytes
        if count == 0:
            return np.ndarray.__new__(kind, (0,), element.dtype)
        if self._views and dtype.itemsize == element.dtype.itemsize:
            return np.ndarray.__new__(kind, (count,), dtype, self._buffer, start)
        if nbytes < LARGE_STORAGE:
            storage = np.ndarray.__new__(kind, (count,), dtype, bytearray(self._view[start : start + nbytes]))
        else:
            storage = np.ndarray.__new__(kind, (count,), dtype)
            self._fill(storage.view(np.uint8).data, start)
        return storage if dtype == element.dtype else storage.astype(element.dtype).view(kind)

    def _type_in_file(self, element: ElementType) -> np.dtype[Any]:
        """The type of elements as they stand in this file: its byte order, its size of a long."""
        code = f"i{self.layout.long_size}" if element.name == "Long" else element.dtype.str[1:]
        dtype = self._in_file[element.name] = np.dtype(self._order + code)
        return dtype

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
        """Read table entries while keys are numbers or strings and values those or booleans.

        Returns how many of `count` entries are left and, if the key of the next was read and its value is
        something else, that key (else MISSING). The generic reader goes on from there.
        """
        buffer, size, read_pair, read_double = self._buffer, self.size, self._pair, self._double
        position = self.position  # self.position follows behind: after whole keys and whole values
        patience = Patience(8)
        check_at = count - KEYS_AT_ONCE
        key: Any
        while count and position + 12 <= size:
            first = position
            key_tag, length = read_pair(buffer, position)
            if key_tag == 2:
                start, position = position + 8, position + 8 + length
                if not start <= position <= size:
                    break
                key = text_or_bytes(buffer[start:position])
            elif key_tag == 1:
                (key,) = read_double(buffer, position + 4)
                position += 12
                if key.is_integer() and -EXACT_INTEGERS < key < EXACT_INTEGERS:
                    key = int(key)
                elif key != key:
                    break
            else:
                break
            self.position = position
            if position + 12 > size:
                return count, key
            tag, length = read_pair(buffer, position)
            if tag == 1:
                entries[key] = lua_number(read_double(buffer, position + 4)[0])
                position += 12
            elif tag == 2:
                start, position = position + 8, position + 8 + length
                if not start <= position <= size:
                    return count, key
                try:
                    entries[key] = buffer[start:position].decode()
                except UnicodeDecodeError:
                    entries[key] = buffer[start:position]
            elif tag == 5:
                entries[key] = length == 1
                position += 8
            else:
                return count, key
            self.position = position
            count -= 1
            patience.left -= 1
            if count < check_at:
                self.guard.check(entries)
                check_at = count - KEYS_AT_ONCE
            if patience.left <= 0 and count >= FEWEST_ENTRIES and position - first <= LONGEST_ENTRY:
                shape = EntryShape(key_tag, tag, position - first)
                taken, self.position = read_run(buffer, self.position, self._order, shape, count, entries, self.guard)
                count -= taken
                patience.note(taken)
            position = self.position
        return count, MISSING
