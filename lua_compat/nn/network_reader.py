"""From the modules of a .t7 file to torch.nn modules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.nn.fields import Fields
from lua_compat.nn.placeholder import Placeholder
from lua_compat.nn.registry import Origin, Reader, is_container, origin_of, registered_reader, set_origin
from lua_compat.values import LuaTable, Storage, TorchObject

__all__ = ["load", "to_torch"]

Unknown = Literal["error", "placeholder"]


def load(path: str | Path, *, zero_based: bool = False, unknown: Unknown = "error") -> nn.Module:
    """The network of a .t7 file as a torch.nn.Module on the CPU, in the mode (training or evaluate) it was saved in.

    The options are those of `to_torch`. Raises T7Error for a file that is no .t7, ModuleError where it holds no
    network or a damaged one, and UnknownModuleError for a class that nothing is registered for; each names the file.
    """
    network = lua_compat.load(path)
    try:
        return to_torch(network, zero_based=zero_based, unknown=unknown)
    except ModuleError as error:
        raise type(error)(f"{path}: {error}") from error


def to_torch(network: TorchObject, *, zero_based: bool = False, unknown: Unknown = "error") -> nn.Module:
    """A Torch7 module or criterion as a torch.nn.Module.

    Parameters lie on the memory of the arrays they were read into: parameters flattened on one storage stay so, and
    tensors shared by two modules become one Parameter. Class targets and indices count from 1 as in the experiment
    the file comes from, or from 0 where `zero_based`. A class that nothing is registered for raises UnknownModuleError,
    or becomes a `Placeholder` where `unknown` is "placeholder".
    """
    if not isinstance(network, TorchObject):
        raise ModuleError(f"holds {type(network).__name__}, not a network{_networks_inside(network)}")
    return _NetworkReader(zero_based, unknown).network(network)


def _networks_inside(value: object) -> str:
    """Where in a table the networks are, to be said in an error."""
    entries = value.items() if isinstance(value, LuaTable) else ()
    found = [f"[{key!r}]: {entry.typename}" for key, entry in entries if isinstance(entry, TorchObject)]
    return f" (give to_torch one of its entries: {', '.join(found)})" if found else ""


class _NetworkReader:
    """Remembers what was built, so that shared modules and shared parameters stay shared."""

    def __init__(self, zero_based: bool, unknown: Unknown) -> None:
        self._zero_based = zero_based
        self._unknown = unknown
        self._modules: dict[int, nn.Module] = {}
        self._parameters: dict[tuple[object, ...], nn.Parameter] = {}
        self._storages: dict[int, torch.Tensor] = {}
        self._being_read: set[int] = set()
        self._kept: list[TorchObject] = []  # what is known by its address stays alive, so that it stays its own

    def network(self, root: TorchObject) -> nn.Module:
        """Read the members of containers before the containers: no recursion along nested containers."""
        waiting = [(root, "")]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of values that are replaced
            while waiting:
                source, place = waiting[-1]
                members = [m for m in _members(source, place) if id(m[0]) not in self._modules]
                if members and id(source) not in self._being_read:
                    self._being_read.add(id(source))
                    waiting.extend(reversed(members))
                else:
                    waiting.pop()
                    self._being_read.discard(id(source))
                    self.module(source, place)
        return self._modules[id(root)]

    def module(self, source: TorchObject, place: str) -> nn.Module:
        known = self._modules.get(id(source))
        if known is not None:
            return known
        if id(source) in self._being_read:
            raise ModuleError(f"{source.typename} at {place or 'the root'}: this module contains itself")
        read = registered_reader(source.typename) or self._reader_of_unknown(source, place)
        self._being_read.add(id(source))
        fields = Fields(source, place, self.module, self.parameter, self._zero_based)
        try:
            module = read(fields)
        except (ValueError, RuntimeError, AssertionError) as error:  # what PyTorch's constructors raise
            raise fields.error(f"PyTorch cannot make it of these fields: {error}") from error
        self._being_read.discard(id(source))
        if origin_of(module) is None:  # else its reader handed on a module that it holds
            set_origin(module, Origin(source.typename, _plain_fields(source)))
            module.training = fields.boolean("train", default=True)
        self._modules[id(source)] = module
        self._kept.append(source)
        return module

    def parameter(self, array: np.ndarray) -> nn.Parameter:
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if array.size == 0 or key not in self._parameters:
            self._parameters[key] = nn.Parameter(self._tensor(array))
        return self._parameters[key]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """On the array's memory; a view of one tensor for all arrays of its storage."""
        storage = array.base
        while isinstance(storage, np.ndarray) and not isinstance(storage, Storage):
            storage = storage.base
        if not isinstance(storage, Storage) or storage.dtype != array.dtype or not storage.flags.writeable:
            return torch.from_numpy(np.asarray(array if array.flags.writeable else array.copy()))
        if id(storage) not in self._storages:
            self._storages[id(storage)] = torch.from_numpy(np.asarray(storage))
        addresses = (a.__array_interface__["data"][0] for a in (array, storage))
        offset = (next(addresses) - next(addresses)) // array.itemsize
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return self._storages[id(storage)].as_strided(array.shape, strides, offset)

    def _reader_of_unknown(self, source: TorchObject, place: str) -> Reader:
        if self._unknown == "placeholder":
            return lambda fields: Placeholder(source, place)
        raise UnknownModuleError(
            f"{source.typename} at {place or 'the root'}: no PyTorch module is registered for this class (import the "
            "package that has it, as xnornet_port.layers has nn.BinActiveZ, write one and mark it "
            f"@lua_compat.nn.register({source.typename!r}), or load with unknown='placeholder')"
        )


def _members(source: TorchObject, place: str) -> list[tuple[TorchObject, str]]:
    """What a container's readers will ask for, with their places."""
    modules = source.get("modules") if is_container(source.typename) else None
    if not isinstance(modules, LuaTable):
        return []
    return [
        (child, f"{place}.modules[{position}]".lstrip("."))
        for position, child in enumerate(modules.to_list(), start=1)
        if isinstance(child, TorchObject)
    ]


def _plain_fields(source: TorchObject) -> dict[str, object]:
    return {
        name: value
        for name, value in source.items()
        if isinstance(name, str) and isinstance(value, str | int | float | bool) and name not in ("train", "_type")
    }
