"""Comparing two Lua values: what they hold, and what they share.

Two values are equal when Torch7 could not tell one from the other: same types, keys, strings and numbers
(NaN equals NaN, -0.0 is not 0), same tensors of the same type on storages shared in the same way, same
cycles. The order of a table's entries does not count.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat.t7_storages import owning_storage
from lua_compat.values import (
    CudaStorage,
    CudaTensor,
    IdentityKey,
    LuaFunction,
    LuaTable,
    LuaValue,
    Storage,
    TorchObject,
    brief,
    key_step,
    torch_typename,
)

__all__ = ["Difference", "differences", "equal"]

MOST_ELEMENTS = 1 << 20  # elements compared at a time
LONGEST_PATH = 1 << 12  # characters of a path that are kept


@dataclass(frozen=True)
class Difference:
    """One difference: the keys down to it ("" at the top) and what differs, in words."""

    keys: str
    what: str

    def __str__(self) -> str:
        return f"{self.keys}: {self.what}" if self.keys else self.what


def equal(left: LuaValue, right: LuaValue) -> bool:
    """Whether two values are equal in contents and sharing. Python's own dicts, lists and arrays count as
    Lua's.
    """
    return next(differences(left, right), None) is None


def differences(left: LuaValue, right: LuaValue, tolerance: float = 0.0) -> Iterator[Difference]:
    """All differences, from the top down. Elements of float tensors may differ by `tolerance` in absolute
    size.
    """
    comparison = Comparison(tolerance)
    waiting = [("", left, right)]
    while waiting:
        keys, left, right = waiting.pop()
        below: list[tuple[str, LuaValue, LuaValue]] = []
        for what in comparison.compare(left, right, below):
            yield Difference(keys.removeprefix("."), what)
        waiting.extend((longer(keys, step), one, other) for step, one, other in reversed(below))


def longer(keys: str, step: str) -> str:
    """A path with one step more; without the middle of a very long one, or deep nesting would take quadratic time."""
    keys += step
    return keys if len(keys) <= LONGEST_PATH else f"{keys[: LONGEST_PATH // 4]}...{keys[-LONGEST_PATH // 4 :]}"


class Comparison:
    """Remembers which object of one side stands for which of the other."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._partners: dict[tuple[str, Any], Any] = {}
        self._kept: list[Any] = []

    def compare(self, left: Any, right: Any, below: list[tuple[str, Any, Any]]) -> Iterator[str]:
        """Differences of two values themselves; pairs inside them that are still to be compared go to
        `below`.
        """
        kind = kind_of(left)
        if kind != kind_of(right):
            yield f"{kind} {brief(left)} against {kind_of(right)} {brief(right)}"
        elif kind in ("table", "object", "function", "tensor", "storage"):
            yield from self._compare_shared(kind, left, right, below)
        elif scalar_bits(left) != scalar_bits(right):
            yield f"{brief(left)} against {brief(right)}"

    def _compare_shared(self, kind: str, left: Any, right: Any, below: list[tuple[str, Any, Any]]) -> Iterator[str]:
        known = self._are_partners(id(left), id(right))
        if known is not None:
            if not known:
                yield f"{kind} is shared differently"
            return
        self._kept += [left, right]
        if kind == "table":
            yield from compare_tables(as_lua_table(left), as_lua_table(right), below)
        elif kind == "object":
            if (left.typename, left.version) != (right.typename, right.version):
                yield f"{left.typename} {left.version} against {right.typename} {right.version}"
            below.append(("", left.header, right.header))
            below.append(("", left.payload, right.payload))
        elif kind == "function":
            if (left.tag, left.bytecode) != (right.tag, right.bytecode):
                yield f"functions differ ({len(left.bytecode)} and {len(right.bytecode)} bytes)"
            below.append((".<upvalues>", left.upvalues, right.upvalues))
        else:
            yield from self._compare_arrays(left, right)

    def _are_partners(self, left: Any, right: Any) -> bool | None:
        """Whether two things stand for each other; None when both are new, and from now on they do."""
        partners = self._partners
        if ("left", left) not in partners and ("right", right) not in partners:
            partners["left", left], partners["right", right] = right, left
            return None
        return bool(partners.get(("left", left)) == right and partners.get(("right", right)) == left)

    def _compare_arrays(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Iterator[str]:
        names = array_typename(left), array_typename(right)
        if names[0] != names[1] or left.shape != right.shape:
            yield f"{names[0]} {size_text(left)} against {names[1]} {size_text(right)}"
            return
        owners = owning_storage(left), owning_storage(right)
        keys = [storage_key(owner) for owner in owners if owner is not None and owner.size]
        if len(keys) == 2 and self._are_partners(*keys) is False:
            yield "storage is shared differently"
        what = array_difference(left, right, self._tolerance)
        if what:
            yield what


def kind_of(value: Any) -> str:
    """The Lua type of a value."""
    if value is None:
        return "nil"
    if isinstance(value, (bool, np.bool_)):
        return "boolean"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return "number"
    if isinstance(value, (str, bytes, bytearray)):
        return "string"
    if isinstance(value, np.ndarray):
        return "storage" if isinstance(value, Storage) else "tensor"
    if isinstance(value, TorchObject):
        return "object"
    if isinstance(value, LuaFunction):
        return "function"
    if isinstance(value, (Mapping, list, tuple)):
        return "table"
    raise TypeError(f"a Python {type(value).__name__} is no Lua value")


def scalar_bits(value: Any) -> Any:
    """What two equal strings, numbers, booleans or nils have in common, and unequal ones do not."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if value is None or isinstance(value, (bool, np.bool_)):
        return value
    number = float(value)
    return "nan" if number != number else struct.pack("<d", number)


def as_lua_table(value: Any) -> LuaTable:
    return value if isinstance(value, LuaTable) else LuaTable(value)


def compare_tables(left: LuaTable, right: LuaTable, below: list[tuple[str, Any, Any]]) -> Iterator[str]:
    """Pair the entries of two tables: by key, and those with objects for keys in their order."""
    one, other = left._entries, right._entries
    objects: tuple[list[Any], list[Any]] = ([], [])
    for entries, found in zip((one, other), objects, strict=True):
        found.extend(key for key in entries if is_object_key(key))
    for key, value in one.items():
        if is_object_key(key):
            continue
        if key in other:
            below.append((key_step(key), value, other[key]))
        else:
            yield f"{key_step(key)} only on the left: {brief(value)}"
    for key, value in other.items():
        if key not in one and not is_object_key(key):
            yield f"{key_step(key)} only on the right: {brief(value)}"
    if len(objects[0]) != len(objects[1]):
        yield f"{len(objects[0])} against {len(objects[1])} keys that are objects"
    for key, partner in zip(*objects, strict=False):
        below.append((".<a key>", unboxed(key), unboxed(partner)))
        below.append((key_step(key), one[key], other[partner]))


def is_object_key(key: Any) -> bool:
    """Whether a stored key is a table, object or array, which is not equal to any key of another file."""
    key = unboxed(key)
    return not isinstance(key, (bool, int, float, str, bytes))


def unboxed(key: Any) -> Any:
    return key.value if type(key) is IdentityKey else key


def array_typename(array: npt.NDArray[Any]) -> str:
    is_storage = isinstance(array, Storage)
    is_cuda = isinstance(array, (CudaTensor, CudaStorage))
    return torch_typename(array.dtype, is_cuda, "Storage" if is_storage else "Tensor")


def storage_key(storage: npt.NDArray[Any]) -> tuple[int, int, str]:
    """What identifies a storage: its memory and its type."""
    return storage.__array_interface__["data"][0], storage.size, storage.dtype.str


def size_text(array: npt.NDArray[Any]) -> str:
    return "x".join(map(str, array.shape))


def array_difference(left: npt.NDArray[Any], right: npt.NDArray[Any], tolerance: float) -> str:
    """How many elements of two arrays of one shape differ, the first and the worst; "" where none."""
    one, other = np.asarray(left), np.asarray(right)
    repeated = [a == 0 and b == 0 for a, b in zip(one.strides, other.strides, strict=True)]
    shown = tuple(slice(0, 1) if each else slice(None) for each in repeated)  # an expand is compared once
    one, other = one[shown], other[shown]
    summary = ArraySummary()
    for start in range(0, one.shape[0] if one.size else 0, step := rows_at_a_time(one)):
        summary.add(one[start : start + step], other[start : start + step], start, tolerance)
    return summary.text()


def rows_at_a_time(array: npt.NDArray[Any]) -> int:
    """How many leading rows make a block of a moderate size."""
    row_size: int = max(1, array.size // max(1, array.shape[0]))
    return max(1, MOST_ELEMENTS // row_size)


class ArraySummary:
    """Differing elements of two arrays, gathered block by block."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self.worst = ""
        self.worst_size = -1.0

    def add(self, one: npt.NDArray[Any], other: npt.NDArray[Any], first_row: int, tolerance: float) -> None:
        """`first_row` is the row of the whole arrays with which these blocks begin."""
        unequal = elements_unequal(one, other, tolerance)
        indices = np.argwhere(unequal)
        if len(indices) == 0:
            return
        self.count += len(indices)
        sizes = np.abs(one[unequal].astype(np.float64) - other[unequal].astype(np.float64))
        sizes = np.where(np.isnan(sizes), np.inf, sizes)
        worst = int(sizes.argmax())
        if not self.first:
            self.first = element_text(one, other, indices[0], first_row)
        if sizes[worst] > self.worst_size:
            self.worst_size = float(sizes[worst])
            self.worst = element_text(one, other, indices[worst], first_row)

    def text(self) -> str:
        if not self.count:
            return ""
        elements = "element differs" if self.count == 1 else "elements differ"
        return f"{self.count} {elements}; first {self.first}; worst by {self.worst_size:.6g}: {self.worst}"


def elements_unequal(one: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.bool_]:
    """Which elements differ; NaN equals NaN, -0.0 is not 0 (unless a tolerance allows it)."""
    if one.dtype.kind != "f":
        unequal: npt.NDArray[np.bool_] = one != other
        return unequal
    with np.errstate(invalid="ignore", over="ignore"):
        if tolerance > 0:
            same = (one == other) | (np.abs(one.astype(np.float64) - other.astype(np.float64)) <= tolerance)
        else:
            same = (one == other) & (np.signbit(one) == np.signbit(other))
    unequal = ~(same | (np.isnan(one) & np.isnan(other)))
    return unequal


def element_text(one: npt.NDArray[Any], other: npt.NDArray[Any], index: Any, first_row: int) -> str:
    """An element on both sides, with its index from 1 as in Lua."""
    place = [int(each) + 1 for each in index]
    place[0] += first_row
    at = tuple(index)
    return f"{place}: {one[at]} against {other[at]}"
