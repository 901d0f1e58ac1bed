"""Which storage an array is written on.

In Torch7 every tensor is a view of a storage, and tensors that share memory share a storage. A tensor read
from a file has its `Storage` as base, and keeps it whole. For any other NumPy array the storage is the
memory that it spans; arrays of one value that overlap in memory get one storage together, so that they
still overlap when read again.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided

from lua_compat.values import LuaFunction, LuaTable, LuaValue, Storage, TorchObject

__all__ = ["Placement", "StoragePlan"]

CONTAINERS = (LuaTable, TorchObject, LuaFunction, Mapping, list, tuple)


class Placement(NamedTuple):
    """Where a tensor lies: its storage's elements, its offset there (from 0) and its strides, both in
    elements.
    """

    storage: npt.NDArray[Any]
    offset: int
    strides: tuple[int, ...]


class Span(NamedTuple):
    """Memory of arrays that overlap: its first and last address, and an array that starts at the first."""

    low: int
    high: int
    first: npt.NDArray[Any]


class StoragePlan:
    """Places the arrays of one value on storages."""

    def __init__(self, value: LuaValue) -> None:
        """`value` is what will be written, all of it."""
        self._value = value
        self._spans: dict[tuple[str, int], list[Span]] | None = None

    def place(self, array: npt.NDArray[Any]) -> Placement | None:
        """The storage of an array and where it lies there; None for an empty array without a storage."""
        owner = owning_storage(array)
        if owner is not None:
            return placed_on(array, owner)
        if array.size == 0:
            return None
        if not is_expressible(array):
            array = array.copy(order="C")
            return placed_on(array, array.reshape(-1))
        return placed_on(array, self._span_of(array))

    def _span_of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The memory of all arrays that overlap with `array`, as a 1-d array."""
        if self._spans is None:
            self._spans = merged_spans(foreign_arrays(self._value))
        low, _ = byte_bounds(array)
        spans = self._spans[span_group(array)]
        span = spans[bisect_right(spans, low, key=lambda each: each.low) - 1]
        count = (span.high - span.low) // array.itemsize
        return as_strided(span.first, (count,), (array.itemsize,))


def owning_storage(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The storage that an array is a view of, as a plain array; None where it is none's or not of its type."""
    found: Storage | None = None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, Storage):
            found = base
        base = base.base
    if found is None or found.dtype != array.dtype or not found.flags.c_contiguous or found.ndim != 1:
        return None
    low, high = byte_bounds(array) if array.size else (address_of(array), address_of(array))
    start = address_of(found)
    inside = start <= low and high <= start + found.nbytes and (low - start) % array.itemsize == 0
    return found.view(np.ndarray) if inside and is_expressible(array) else None


def is_expressible(array: npt.NDArray[Any]) -> bool:
    """Whether Torch7 can have these strides: whole elements, none negative."""
    return array.itemsize > 0 and all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)


def placed_on(array: npt.NDArray[Any], storage: npt.NDArray[Any]) -> Placement:
    offset = (address_of(array) - address_of(storage)) // array.itemsize
    return Placement(storage, offset, tuple(stride // array.itemsize for stride in array.strides))


def address_of(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def span_group(array: npt.NDArray[Any]) -> tuple[str, int]:
    """Arrays can share a storage when they are of one type and in step."""
    return array.dtype.str, address_of(array) % array.itemsize


def merged_spans(arrays: list[npt.NDArray[Any]]) -> dict[tuple[str, int], list[Span]]:
    """The memory of arrays, overlapping pieces merged, in order of address."""
    groups: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for array in sorted(arrays, key=address_of):
        low, high = byte_bounds(array)
        spans = groups[span_group(array)]
        if spans and low < spans[-1].high:
            spans[-1] = spans[-1]._replace(high=max(high, spans[-1].high))
        else:
            spans.append(Span(low, high, array.view(np.ndarray)))
    return groups


def foreign_arrays(value: LuaValue) -> list[npt.NDArray[Any]]:
    """Every array inside a value that is on no storage yet and needs one of its own or shared."""
    found = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, np.ndarray):
            if value.size and value.ndim and is_expressible(value) and owning_storage(value) is None:
                found.append(value.view(np.uint8) if value.dtype == np.bool_ else value)
        elif isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(parts_of(value))
    return found


def parts_of(value: LuaValue) -> list[LuaValue]:
    """What a container holds, keys included."""
    if isinstance(value, TorchObject):
        return [value.header, value.payload]
    if isinstance(value, LuaFunction):
        return [value.upvalues]
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value)
