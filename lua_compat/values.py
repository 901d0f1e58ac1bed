"""Lua and Torch7 values in Python.

| Lua | Python |
|---|---|
| nil, boolean | None, bool |
| number | int where it is whole and below 2**53 in size (but not -0.0), else float |
| string | str where it is UTF-8, else bytes |
| table | `LuaTable` |
| tensor, storage | `Tensor`, `Storage`: NumPy arrays; `CudaTensor`, `CudaStorage` for those of a GPU |
| torch object | `TorchObject` |
| function | `LuaFunction`, never run |

Values, not behaviour: nothing here reads files or computes.
"""

import itertools
import math
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, TypeAlias

import numpy as np

from lua_compat.arrays import CudaStorage, CudaTensor, Storage, Tensor, storage, tensor, torch_typename
from lua_compat.t7_format import default_version

__all__ = [
    "CudaStorage",
    "CudaTensor",
    "LuaFunction",
    "LuaTable",
    "LuaValue",
    "Storage",
    "Tensor",
    "TorchObject",
    "lua_number",
    "storage",
    "tensor",
    "torch_typename",
]

LuaValue: TypeAlias = Any  # one of the table above; its type is only known when the file is read

EXACT_INTEGERS = 2**53  # a Lua number is a double: whole numbers below this are exact


class IdentityKey:
    """A table key that is itself and nothing else: booleans (True is not 1) and arrays (which have no
    hash).
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is IdentityKey and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def lua_number(value: float) -> int | float:
    """A Lua number as Python shows it: int where it is whole and below 2**53 in size, but not -0.0."""
    if value.is_integer() and -EXACT_INTEGERS < value < EXACT_INTEGERS and (value != 0 or math.copysign(1, value) > 0):
        return int(value)
    return value


def table_key(key: Any) -> Any:
    """The form in which a `LuaTable` stores a key, so that keys equal in Lua are equal here, and no others.

    1, 1.0 and numpy.int64(1) are one key, "a" and b"a" are one, True and 1 are two. TypeError for nil, NaN
    and Python values that are not Lua's; the message says which.
    """
    kind = type(key)
    if kind is str:
        return key
    if kind is int:
        return key if -EXACT_INTEGERS < key < EXACT_INTEGERS else number_key(exact_float(key))
    if kind is bool or isinstance(key, np.ndarray):
        return IdentityKey(key)
    if kind is float:
        return number_key(key)
    if kind is bytes:
        return text_or_bytes(key)
    if isinstance(key, np.generic):
        return table_key(key.item())
    if isinstance(key, (LuaTable, TorchObject, LuaFunction)):
        return key
    if key is None:
        raise TypeError("a table key is nil")
    raise TypeError(f"a Lua table has no keys of type {kind.__name__}")


def number_key(value: float) -> int | float:
    """A number as key: -0.0 is 0 and NaN is refused, as in Lua."""
    if math.isnan(value):
        raise TypeError("a table key is NaN")
    return lua_number(value + 0.0)


def exact_float(value: int) -> float:
    """A large int as a double, or TypeError where the double is another number."""
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if converted != value:
        raise TypeError(f"{value} has no exact double; Lua numbers are doubles")
    return converted


def text_or_bytes(raw: bytes) -> str | bytes:
    """A Lua string: str where it is UTF-8, else bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


class LuaTable(MutableMapping[Any, Any]):
    """A Lua table: a mutable mapping with Lua's keys, in insertion order.

    The first element of a list is `t[1]`; 1 and True are different keys, 1 and 1.0 the same; tables,
    objects and tensors are keys by identity. Setting a key to None removes it, as nil does. Two tables are
    equal when they are the same table, as in Lua; `lua_compat.equal` compares contents.

    >>> t = LuaTable(["a", "b"]); t["n"] = 2
    >>> t[1], t["n"], t.to_list()
    ('a', 2, ['a', 'b'])
    """

    # `_entries` maps stored keys (see `table_key`) to values; `_has_boxes` says that some keys are
    # IdentityKeys. The reader fills both directly.
    __slots__ = ("__weakref__", "_entries", "_has_boxes")

    def __init__(self, contents: Mapping[Any, Any] | Iterable[Any] = ()) -> None:
        """From a mapping, or from a sequence whose elements get the keys 1..n (None leaves a hole)."""
        self._entries: dict[Any, Any] = {}
        self._has_boxes = False
        if type(contents) is tuple and not contents:  # the usual case while reading
            return
        if isinstance(contents, (str, bytes)):
            raise TypeError(f"a LuaTable is made of a mapping or a list, not of {type(contents).__name__}")
        pairs = contents.items() if isinstance(contents, Mapping) else enumerate(contents, 1)
        for key, value in pairs:
            self[key] = value

    def __getitem__(self, key: Any) -> LuaValue:
        try:
            return self._entries[table_key(key)]
        except TypeError:
            raise KeyError(key) from None

    def __setitem__(self, key: Any, value: LuaValue) -> None:
        stored = table_key(key)
        if value is None:
            self._entries.pop(stored, None)
            return
        self._has_boxes = self._has_boxes or type(stored) is IdentityKey
        self._entries[stored] = value

    def __delitem__(self, key: Any) -> None:
        try:
            del self._entries[table_key(key)]
        except TypeError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[Any]:
        if not self._has_boxes:
            return iter(self._entries)
        return (key.value if type(key) is IdentityKey else key for key in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        try:
            return table_key(key) in self._entries
        except TypeError:
            return False

    def keys(self) -> KeysView[Any]:
        return KeysView(self) if self._has_boxes else self._entries.keys()

    def values(self) -> ValuesView[LuaValue]:
        return self._entries.values()

    def items(self) -> ItemsView[Any, LuaValue]:
        return ItemsView(self) if self._has_boxes else self._entries.items()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def to_list(self) -> list[LuaValue]:
        """The elements at 1, 2, ... up to the first missing key."""
        elements = []
        entries = self._entries
        index = 1
        while index in entries:
            elements.append(entries[index])
            index += 1
        return elements

    def __repr__(self) -> str:
        return f"LuaTable({brief_entries(self)})"


class TorchObject(MutableMapping[Any, Any]):
    """An object of a Torch7 class (nn.Module and the like): a mutable mapping over its fields.

    `typename` is its class, such as "nn.Linear"; `version` the class version it was or will be written
    with. `fields` is the table of fields, which indexing works on: `module["weight"]`.

    A few classes are not one table in the file. `payload` is what was there: for tds.Hash its entries as a
    `LuaTable` (also the fields), for tds.Vec a list (None for nil), for tds.AtomicCounter an int, for
    torch.Generator its bytes; else the fields. nn.GPU and nn.DataParallelTable have a second table in
    front: `header`.
    """

    __slots__ = ("__weakref__", "header", "payload", "typename", "version")

    def __init__(
        self,
        typename: str,
        fields: Mapping[Any, Any] | list[Any] | bytes | int | None = None,
        version: float | None = None,
        header: Mapping[Any, Any] | None = None,
    ) -> None:
        """`fields` becomes the payload: a mapping that is not yet a LuaTable or TorchObject is made into a
        LuaTable.
        """
        self.typename = typename
        self.version: float = default_version(typename) if version is None else version
        self.payload: LuaValue = as_table(fields if fields is not None else {})
        self.header: LuaValue = None if header is None else as_table(header)

    @property
    def fields(self) -> LuaTable:
        """The table of fields; TypeError for the classes that have none."""
        payload = self.payload
        while type(payload) is TorchObject:
            payload = payload.payload
        if type(payload) is not LuaTable:
            raise TypeError(f"{self.typename} has no fields; its content is in .payload ({type(payload).__name__})")
        return payload

    def __getitem__(self, key: Any) -> LuaValue:
        return self.fields[key]

    def __setitem__(self, key: Any, value: LuaValue) -> None:
        self.fields[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.fields[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, key: object) -> bool:
        return key in self.fields

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        if type(self.payload) is LuaTable:
            return f"TorchObject({self.typename!r}, {brief_entries(self.payload)})"
        if type(self.payload) is list:
            return f"TorchObject({self.typename!r}, {brief_elements(self.payload)})"
        return f"TorchObject({self.typename!r}, {brief(self.payload)})"


def as_table(value: Any) -> Any:
    """A mapping as a LuaTable; anything else as it is."""
    if isinstance(value, Mapping) and not isinstance(value, (LuaTable, TorchObject)):
        return LuaTable(value)
    return value


class LuaFunction:
    """A Lua function as the file holds it: bytecode and captured values. It is kept and written back, never
    run.
    """

    __slots__ = ("__weakref__", "bytecode", "tag", "upvalues")

    def __init__(self, bytecode: bytes, upvalues: LuaValue = None, tag: int = 8) -> None:
        """`tag` is the type id in the file: 6, 7 or 8, which differ in how `upvalues` (a table) is laid
        out.
        """
        self.bytecode = bytecode
        self.upvalues: LuaValue = LuaTable() if upvalues is None else upvalues
        self.tag = tag

    def __repr__(self) -> str:
        return f"LuaFunction(<{len(self.bytecode)} bytes>)"


def brief_entries(table: LuaTable, limit: int = 8) -> str:
    """The first entries of a table on one line, nested values shortened."""
    pairs = itertools.islice(table.items(), limit)
    shown = [f"{brief(key)}: {brief(value)}" for key, value in pairs]
    rest = [f"... {len(table)} entries"] if len(table) > limit else []
    return "{" + ", ".join(shown + rest) + "}"


def brief_elements(elements: list[LuaValue], limit: int = 8) -> str:
    """The first elements of a tds.Vec on one line, nested values shortened: it may contain itself."""
    rest = [f"... {len(elements)} elements"] if len(elements) > limit else []
    return "[" + ", ".join([brief(element) for element in elements[:limit]] + rest) + "]"


def brief(value: LuaValue) -> str:
    """One value on one line, without looking inside containers."""
    if isinstance(value, LuaTable):
        return f"<table of {len(value)}>"
    if isinstance(value, TorchObject):
        return f"<{value.typename}>"
    if isinstance(value, np.ndarray):
        return f"<{getattr(value, 'typename', 'array')} {'x'.join(map(str, value.shape))}>"
    if isinstance(value, list):
        return f"<list of {len(value)}>"
    text = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def key_step(key: Any) -> str:
    """A key as a step of a path: `.name` or `[3]`."""
    if type(key) is str and key.isidentifier():
        return f".{key[:80]}"
    if type(key) is IdentityKey:
        key = key.value
    if isinstance(key, (str, bytes)):
        return f"[{key[:80]!r}]"
    if isinstance(key, (bool, int, float)):
        return f"[{key!r}]"
    return f"[{getattr(key, 'typename', type(key).__name__)}]"
