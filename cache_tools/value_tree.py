"""What a Lua value holds, as a tree of short descriptions: the common ground of the two outputs of `inspect`."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat import LuaFunction, LuaTable, LuaValue, TorchObject
from lua_compat.comparison import array_typename, storage_key
from lua_compat.t7_storages import owning_storage
from lua_compat.values import key_step
from xnornet_port.errors import one_line

__all__ = ["Inventory", "Node", "build_tree", "kind_of", "take_inventory"]

LONGEST_TEXT = 60


@dataclass
class Inventory:
    """Everything in a value, counted."""

    classes: Counter[str] = field(default_factory=Counter)  # torch objects, tensors and storages by class
    tables: int = 0
    functions: int = 0
    storage_numbers: dict[tuple[int, int, str], int] = field(default_factory=dict)
    storage_users: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    storage_bytes: int = 0


@dataclass
class Node:
    """One value: what to show of it, and of what it holds."""

    key: str  # as a step of a path; "" at the top
    kind: str  # "nil", "number", "table", "nn.Linear", "torch.FloatTensor", ...
    details: dict[str, Any] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)
    left_out: int = 0  # entries not shown


def take_inventory(value: LuaValue) -> Inventory:
    """Count what a value holds; each thing once, however often it occurs."""
    inventory = Inventory()
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, (LuaTable, TorchObject, LuaFunction, np.ndarray, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            count_array(value, inventory)
        elif isinstance(value, LuaTable):
            inventory.tables += 1
            waiting.extend(itertools.chain(value.keys(), value.values()))
        elif isinstance(value, TorchObject):
            inventory.classes[value.typename] += 1
            waiting += [value.header, value.payload]
        elif isinstance(value, LuaFunction):
            inventory.functions += 1
            waiting.append(value.upvalues)
        else:
            waiting.extend(value)
    return inventory


def count_array(array: npt.NDArray[Any], inventory: Inventory) -> None:
    inventory.classes[array_typename(array)] += 1
    owner = owning_storage(array)
    if owner is None:
        return
    key = storage_key(owner)
    if key not in inventory.storage_numbers:
        inventory.storage_numbers[key] = len(inventory.storage_numbers) + 1
        inventory.storage_bytes += owner.nbytes
    inventory.storage_users[key] += 1


class TreeBuilder:
    """Builds the tree; an object that occurred before is shown as a reference to its first place."""

    def __init__(self, inventory: Inventory, depth: int, entries: int, statistics: bool) -> None:
        self._inventory = inventory
        self._depth = depth
        self._entries = entries
        self._statistics = statistics
        self._places: dict[int, str] = {}

    def build(self, key: str, value: LuaValue, path: str = "", level: int = 0) -> Node:
        """The node of a value. Recursion is bounded by the depth that is shown."""
        if isinstance(value, (LuaTable, TorchObject, LuaFunction, np.ndarray)):
            if id(value) in self._places:
                return Node(key, kind_of(value), {"same_as": self._places[id(value)] or "the top"})
            self._places[id(value)] = path.removeprefix(".")
        node = Node(key, kind_of(value))
        if isinstance(value, np.ndarray):
            node.details = self._array_details(value)
        elif isinstance(value, LuaTable):
            self._add_entries(node, value, path, level)
        elif isinstance(value, TorchObject):
            self._add_object(node, value, path, level)
        elif isinstance(value, LuaFunction):
            node.details = {"bytes": len(value.bytecode)}
            self._add_entries(node, LuaTable({"<upvalues>": value.upvalues}), path, level)
        elif value is not None:
            node.details = {"value": as_shown(value)}
        return node

    def _add_entries(self, node: Node, table: LuaTable, path: str, level: int) -> None:
        node.details["entries"] = len(table)
        if level >= self._depth:
            node.left_out = len(table)
            return
        for key, value in itertools.islice(table.items(), self._entries):
            step = key_step(key)
            node.children.append(self.build(step, value, path + step, level + 1))
        node.left_out = max(0, len(table) - self._entries)

    def _add_object(self, node: Node, value: TorchObject, path: str, level: int) -> None:
        if value.version != 1:
            node.details["version"] = value.version
        payload = value.payload
        if isinstance(value.header, LuaTable):
            node.children.append(self.build(".<header>", value.header, f"{path}.<header>", level + 1))
        if isinstance(payload, LuaTable):
            self._add_entries(node, payload, path, level)
        elif isinstance(payload, TorchObject):
            node.children.append(self.build(".<payload>", payload, f"{path}.<payload>", level + 1))
        elif isinstance(payload, list):
            self._add_entries(node, LuaTable(payload), path, level)
            node.details["entries"] = len(payload)
        else:
            node.details["value"] = as_shown(payload)

    def _array_details(self, array: npt.NDArray[Any]) -> dict[str, Any]:
        details: dict[str, Any] = {"shape": list(array.shape) if array.shape != (0,) else []}
        if array.size and not array.flags.c_contiguous:
            details["strides"] = [stride // array.itemsize for stride in array.strides]
        owner = owning_storage(array)
        if owner is not None:
            key = storage_key(owner)
            details["storage"] = self._inventory.storage_numbers[key]
            details["storage_users"] = self._inventory.storage_users[key]
            details["storage_bytes"] = owner.nbytes
        if self._statistics and array.size:
            details |= array_statistics(array)
        return details


def build_tree(value: LuaValue, inventory: Inventory, depth: int, entries: int, statistics: bool) -> Node:
    """The tree of a value: `depth` levels down, at most `entries` entries of each table."""
    return TreeBuilder(inventory, depth, entries, statistics).build("", value)


def kind_of(value: LuaValue) -> str:
    """The Lua type of a value, or its class."""
    if isinstance(value, np.ndarray):
        return array_typename(value)
    if isinstance(value, TorchObject):
        return value.typename
    if isinstance(value, LuaTable):
        return "table"
    if isinstance(value, LuaFunction):
        return "function"
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, (str, bytes)) else "number"


def as_shown(value: Any) -> Any:
    """A plain value for showing: numbers and booleans as they are, texts shortened, unprintable characters escaped."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        return repr(value[:LONGEST_TEXT]) + ("..." if len(value) > LONGEST_TEXT else "")
    text = value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
    return one_line(text)


def array_statistics(array: npt.NDArray[Any]) -> dict[str, float]:
    """Smallest, largest and mean element; a repeated dimension counts once."""
    shown = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
    values = np.asarray(array)[shown]
    with np.errstate(all="ignore"):
        mean = values.mean(dtype=np.float64)
    return {"min": values.min().item(), "max": values.max().item(), "mean": float(mean)}
