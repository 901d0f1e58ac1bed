"""The short way to read a small tensor that lies on a storage of its own, all in one piece.

Files with many small tensors consist of little else. What this reader finds it reads just as
`t7_arrays.read_array` does; whatever is out of the ordinary, broken included, it leaves to that one.
"""

import struct
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lua_compat.t7_arrays import ARRAY_CLASSES, MOST_DIMENSIONS
from lua_compat.t7_format import Layout
from lua_compat.t7_runs import SHORTEST_RUN, leading_true, python_numbers
from lua_compat.values import EXACT_INTEGERS, LuaValue, Storage, Tensor

__all__ = ["NUMBER_BYTES", "NewTensor", "NewTensorReader"]

SMALL_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20  # tensors read together share memory, so one kept alive keeps at most this much
NUMBER = 1
TORCH = 4
NUMBER_BYTES = 12  # of a number with its type id


class TensorHeader(NamedTuple):
    """What follows from a tensor's class name."""

    kind: type[Any]
    storage_kind: type[Any]
    dtype: np.dtype[Any]
    storage_header: bytes  # version and class name of its storage


# A tensor that was read, the byte after it, how it lies on its storage (header, sizes, strides, offset from
# 0), and where its storage's number and its elements stand, counted from its beginning.
NewTensor: TypeAlias = tuple[Tensor, int, tuple[TensorHeader, list[int], list[int], int], int, int]


class NewTensorReader:
    """Reads new tensors from the bytes of one binary file of the machine's own byte order."""

    def __init__(self, buffer: Any, layout: Layout) -> None:
        self._buffer = buffer
        self._size = len(buffer)
        self._view = memoryview(buffer)
        self._order = order = "<" if layout.byte_order == "little" else ">"
        code = "q" if layout.long_size == 8 else "i"
        self._pair = struct.Struct(f"{order}ii").unpack_from
        self._head = struct.Struct(f"{order}iii3si").unpack_from
        self._int = struct.Struct(f"{order}i").unpack_from
        self._long = struct.Struct(f"{order}{code}")
        self._number = struct.Struct(f"{order}id").unpack_from
        self._shapes = [struct.Struct(f"{order}{2 * ndim + 1}{code}ii") for ndim in range(MOST_DIMENSIONS + 1)]
        self._headers = tensor_headers(order)

    def read(self, memo: dict[int, LuaValue], position: int) -> NewTensor | None:
        """The new tensor at `position`, entered in the memo with its storage; else None."""
        buffer = self._buffer
        first = position
        try:
            tag, index, _, version, length = self._head(buffer, position)
            if tag != TORCH or version != b"V 1" or index in memo:
                return None
            start = position + 19
            position = start + length
            header = self._headers.get(buffer[start:position]) if length > 0 else None
            if header is None:
                return None
            (ndim,) = self._int(buffer, position)
            if not 0 < ndim <= MOST_DIMENSIONS:
                return None
            shape = self._shapes[ndim]
            *numbers, offset, tag, storage_index = shape.unpack_from(buffer, position + 4)
            start = position + 4 + shape.size
            position = start + len(header.storage_header)
            if tag != TORCH or storage_index in memo or buffer[start:position] != header.storage_header:
                return None
            (count,) = self._long.unpack_from(buffer, position)
        except struct.error:
            return None
        data = position + self._long.size
        end = data + count * header.dtype.itemsize
        sizes, strides = numbers[:ndim], numbers[ndim:]
        if not data <= end <= self._size or end > data + SMALL_BYTES or index == storage_index:
            return None
        is_whole = strides == [1] and sizes == [count] and offset == 1 and count > 0  # nearly all are
        if not is_whole and not fits(sizes, strides, offset, count):
            return None
        storage = np.ndarray.__new__(header.storage_kind, (count,), header.dtype, bytearray(self._view[data:end]))
        memo[storage_index] = storage
        memo[index] = tensor = tensor_on(storage, header, sizes, strides, offset - 1)
        return tensor, end, (header, sizes, strides, offset - 1), start - 4 - first, data - first

    def read_entries(
        self, memo: dict[int, LuaValue], entries: dict[Any, LuaValue], most: int, position: int
    ) -> tuple[int, int]:
        """Read up to `most` table entries that are a whole number and a new tensor. Returns how many there were and
        where the next entry begins.
        """
        for taken in range(most):
            try:
                tag, key = self._number(self._buffer, position)
            except struct.error:
                return taken, position
            found = self.read(memo, position + NUMBER_BYTES) if tag == NUMBER and key.is_integer() else None
            if found is None:
                return taken, position
            entries[int(key) if -EXACT_INTEGERS < key < EXACT_INTEGERS else key] = found[0]
            position = found[1]
        return most, position

    def read_more(
        self, memo: dict[int, LuaValue], entries: dict[Any, LuaValue], most: int, first: int, found: NewTensor
    ) -> tuple[int, int]:
        """Read up to `most` table entries that differ from the entry at `first`, a number and the tensor
        `found`, in their keys, memo numbers and elements only. Returns how many there were and where the
        next entry begins.
        """
        _, position, _, storage_index_at, data_at = found
        stride = position - first
        fixed = np.ones(stride, np.bool_)
        for start, end in ((4, 12), (16, 20), (12 + storage_index_at, 16 + storage_index_at)):
            fixed[start:end] = False
        fixed[12 + data_at :] = False
        pattern = np.frombuffer(self._buffer, np.uint8, stride, first)[fixed]
        done, wanted = 0, SHORTEST_RUN
        while done < most:
            looked_at = min(wanted, most - done, (len(self._buffer) - position) // stride)
            rows = np.frombuffer(self._buffer, np.uint8, looked_at * stride, position).reshape(looked_at, stride)
            keys = field(rows, 4, f"{self._order}f8")
            alike = (rows[:, fixed] == pattern).all(axis=1) & ~np.isnan(keys)
            taken = leading_true(alike)
            if not self._add_tensors(memo, entries, rows[:taken], keys[:taken], found):
                break
            position += taken * stride
            done += taken
            if taken < wanted:
                break
            wanted = max(SHORTEST_RUN, min(2 * wanted, BLOCK_BYTES // stride))
        return done, position

    def _add_tensors(
        self,
        memo: dict[int, LuaValue],
        entries: dict[Any, LuaValue],
        rows: npt.NDArray[np.uint8],
        keys: npt.NDArray[Any],
        found: NewTensor,
    ) -> bool:
        """Make the tensors of a block of entries; False, and nothing made, where their numbers are not all
        new.
        """
        _, _, (header, sizes, strides, offset), storage_index_at, data_at = found
        indices = field(rows, 16, f"{self._order}i4").tolist()
        storage_indices = field(rows, 12 + storage_index_at, f"{self._order}i4").tolist()
        new = {*indices, *storage_indices}
        if len(new) < 2 * len(rows) or not memo.keys().isdisjoint(new):
            return False
        elements = np.ascontiguousarray(rows[:, 12 + data_at :]).view(header.dtype)
        storages = [row.view(header.storage_kind) for row in elements]
        tensors = [tensor_on(storage, header, sizes, strides, offset) for storage in storages]
        memo.update(zip(storage_indices, storages, strict=True))
        memo.update(zip(indices, tensors, strict=True))
        entries.update(zip(python_numbers(keys + 0.0), tensors, strict=True))
        return True


def field(rows: npt.NDArray[np.uint8], start: int, code: str) -> npt.NDArray[Any]:
    """The number that stands at the same place in each row, `code` being its NumPy type."""
    dtype = np.dtype(code)
    return np.ascontiguousarray(rows[:, start : start + dtype.itemsize]).view(dtype)[:, 0]


def tensor_on(storage: Storage, header: TensorHeader, sizes: list[int], strides: list[int], offset: int) -> Tensor:
    """A tensor on a storage that it fits. `offset` counts from 0."""
    tensor: Tensor
    if strides == [1] and sizes[0] == storage.size:
        tensor = storage.view(header.kind)
        return tensor
    itemsize = header.dtype.itemsize
    byte_strides = [stride * itemsize for stride in strides]
    tensor = np.ndarray.__new__(header.kind, sizes, header.dtype, storage, offset * itemsize, byte_strides)
    return tensor


def tensor_headers(order: str) -> dict[bytes, TensorHeader]:
    """What follows from each class name, for the types whose elements can stand as they are."""
    headers = {}
    for name, tensor in ARRAY_CLASSES.items():
        storage = tensor.storage
        if storage is None or storage.element.name == "Long":  # the size of longs varies
            continue
        if storage.element.dtype.newbyteorder("<" if order == "<" else ">") != storage.element.dtype:
            continue
        raw = storage.typename.encode("ascii")
        storage_header = struct.pack(f"{order}i3si", 3, b"V 1", len(raw)) + raw
        headers[name.encode("ascii")] = TensorHeader(tensor.kind, storage.kind, storage.element.dtype, storage_header)
    return headers


def fits(sizes: list[int], strides: list[int], offset: int, count: int) -> bool:
    """Whether a tensor has elements, no more than its storage, and all of them in it. `offset` counts from 1."""
    last, elements = offset, 1
    for size, stride in zip(sizes, strides, strict=True):
        elements *= size
        if size < 1 or not 0 <= stride <= count or elements > count:
            return False
        last += (size - 1) * stride
    return offset >= 1 and last <= count
