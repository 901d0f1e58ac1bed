"""Packed networks as .safetensors: the tensors by name, and in the metadata what the layers are, as JSON.

    format   "xnornet packed network"
    version  "1"
    source   the file it was made of
    crc32    of `network` and all tensors, see `_checksum`; files of before it had it are read without
    network  {"objects": [{"class": "nn.Sequential", "fields": {"modules": {"object": 1}}},
                          {"table": [[1, {"object": 2}], ...]},
                          {"class": "xnornet.XnorConvolution", "fields": {"signs": {"tensor": "..."}, "dH": 1, ...}}]}

The objects are those of a .t7 file (object 0 is the network), so that every class of `lua_compat.nn` can be in it and
each field is checked where it is read. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

import lua_compat
from lua_compat.atomic_file import replace_file
from lua_compat.errors import LuaCompatError
from lua_compat.nn import from_torch, to_torch
from lua_compat.values import LuaTable, TorchObject
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.schemes import import_schemes
from xnornet_port.xnor_layers import XnorConvolution

__all__ = ["PACKED_SUFFIX", "is_packed_file", "read_packed", "write_packed"]

PACKED_SUFFIX = ".xnor.safetensors"
_FORMAT, _VERSION = "xnornet packed network", "1"
_ELEMENT_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8")
# What Torch7's modules keep between calls; a packed network is not trained.
_LEFT_OUT = ("output", "gradInput", "indices", "noise", "_type", "train")


def is_packed_file(path: str | Path) -> bool:
    """Whether a file is to be read by `read_packed`, by its name."""
    return str(path).endswith(".safetensors")


def write_packed(network: nn.Module, path: str | Path, source: str) -> None:
    """Write the network of an XnorModel. XnorNetError where a module of it has no Torch7 class to be written as."""
    try:
        described = _Description()
        described.add(from_torch(network))
    except LuaCompatError as error:
        raise XnorNetError(f"{path}: cannot be written: {error}") from error
    text = json.dumps({"objects": described.objects}, allow_nan=False, separators=(",", ":"))
    checksum = _checksum(text, described.tensors)
    metadata = {"format": _FORMAT, "version": _VERSION, "source": source, "network": text, "crc32": checksum}
    content = save(described.tensors, metadata=metadata)
    try:
        with replace_file(path) as file:
            file.write(content)
    except OSError as error:
        raise XnorNetError(f"{path}: cannot be written: {reason_of(error)}") from error


def read_packed(path: str | Path) -> nn.Module:
    """The network of a packed file. XnorNetError, in one line, for a file that is none or a damaged one."""
    metadata, tensors = _contents(path)
    import_schemes()
    try:
        description = json.loads(metadata["network"], parse_constant=_refuse_constant)
        root, used = _objects(description, tensors)
        network = to_torch(root)
    except (LuaCompatError, ValueError, TypeError, RuntimeError, RecursionError, OverflowError) as error:
        raise XnorNetError(f"{path}: a damaged packed network: {reason_of(error)}") from error
    unused = sorted(set(tensors) - used)
    if unused:
        raise XnorNetError(f"{path}: a damaged packed network: no layer uses the tensor {unused[0]}")
    _check_flow(network, path)
    if metadata.get("crc32") not in (None, _checksum(metadata["network"], tensors)):
        raise XnorNetError(f"{path}: a damaged packed network: its numbers are not those that were written")
    return network.eval()


def _checksum(description: str, tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32, in decimal, of the description and, by name, of each tensor's name, type, shape and bytes."""
    crc = zlib.crc32(description.encode())
    for name, array in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return str(crc)


def _contents(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata, checked, and all tensors."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or "network" not in metadata:
                raise XnorNetError(
                    f"{path}: a safetensors file, but not a packed network; "
                    f"python -m cache_tools convert model.t7 model{PACKED_SUFFIX} makes one"
                )
            if metadata.get("version") != _VERSION:
                raise XnorNetError(f"{path}: version {metadata.get('version')} of the format; this reads {_VERSION}")
            for name in file.keys():  # noqa: SIM118  not a dictionary
                found = file.get_slice(name)
                if found.get_dtype() not in _ELEMENT_TYPES or not found.get_shape():
                    raise XnorNetError(f"{path}: tensor {name}: {found.get_dtype()} {found.get_shape()} is not read")
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise XnorNetError(f"{path}: file not found") from error
    except TypeError as error:
        raise XnorNetError(f"a packed file is given by its name, not {type(path).__name__}") from error
    except (SafetensorError, OSError) as error:
        if _is_torch7(path):
            raise XnorNetError(
                f"{path}: a Torch7 file, not a packed one: XnorModel.from_model(load_model(path)) packs its network, "
                f"python -m cache_tools convert model.t7 model{PACKED_SUFFIX} writes it packed"
            ) from error
        raise XnorNetError(f"{path}: not a safetensors file, or a damaged one ({reason_of(error)})") from error


def _is_torch7(path: str | Path) -> bool:
    """Whether a file begins as a network's .t7 file: with the type of an object, as text or in either byte order."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return head[:2] == b"4\n" or head in (b"\4\0\0\0", b"\0\0\0\4")


class _Description:
    """Turns Torch7 objects into the JSON of the metadata and named tensors; what is shared stays shared."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.tensors: dict[str, np.ndarray] = {}
        self._positions: dict[int, int] = {}
        self._tensor_names: dict[tuple[object, ...], str] = {}
        self._waiting: list[tuple[TorchObject | LuaTable, str]] = []

    def add(self, root: TorchObject) -> None:
        """Describe the network, object after object: no recursion along long graphs."""
        self._reference(root, "")
        for value, place in self._waiting:  # grows while it is gone through
            described = self.objects[self._positions[id(value)]]
            if isinstance(value, TorchObject):
                kept = {key: entry for key, entry in value.items() if not _is_left_out(key)}
                described["class"] = value.typename
                described["fields"] = {str(key): self._value(kept[key], f"{place}.{key}") for key in kept}
            else:
                entries = value.items()
                described["table"] = [[self._value(k, place), self._value(v, f"{place}.{k}")] for k, v in entries]

    def _reference(self, value: TorchObject | LuaTable, place: str) -> dict[str, int]:
        if isinstance(value, TorchObject) and value.header is not None:
            raise LuaCompatError(f"{value.typename} at {place or 'the root'} is not kept in packed files")
        if id(value) not in self._positions:
            self._positions[id(value)] = len(self.objects)
            self.objects.append({})
            self._waiting.append((value, place))
        return {"object": self._positions[id(value)]}

    def _value(self, value: object, place: str) -> object:
        if isinstance(value, TorchObject | LuaTable):
            return self._reference(value, place)
        if isinstance(value, np.ndarray):
            return {"tensor": self._tensor(value, place.lstrip("."))}
        if isinstance(value, float) and not math.isfinite(value):
            return {"number": repr(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise LuaCompatError(f"{type(value).__name__} at {place} is not kept in packed files")

    def _tensor(self, array: np.ndarray, name: str) -> str:
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if key not in self._tensor_names:
            self._tensor_names[key] = name
            self.tensors[name] = np.ascontiguousarray(np.asarray(array).view(np.ndarray))
        return self._tensor_names[key]


def _is_left_out(key: object) -> bool:
    return key in _LEFT_OUT or (isinstance(key, str) and key.startswith("grad"))


def _objects(description: object, tensors: dict[str, np.ndarray]) -> tuple[TorchObject, set[str]]:
    """The first object of the metadata, with its tensors, and the names used. ValueError says what is wrong."""
    entries = description.get("objects") if isinstance(description, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError("its metadata lists no objects")
    objects = [_empty_object(entry, position) for position, entry in enumerate(entries)]
    used: set[str] = set()

    def value(described: object) -> Any:
        if not isinstance(described, dict):
            return described
        if len(described) == 1:
            ((kind, content),) = described.items()
            if kind == "object" and isinstance(content, int) and 0 <= content < len(objects):
                return objects[content]
            if kind == "number" and content in ("nan", "inf", "-inf"):
                return float(content)
            if kind == "tensor" and content in tensors:
                used.add(content)
                return lua_compat.tensor(tensors[content])
        raise ValueError(f"its metadata has {json.dumps(described)[:60]}, which is not there")

    for entry, target in zip(entries, objects, strict=True):
        pairs = entry["table"] if isinstance(target, LuaTable) else entry["fields"].items()
        for key, described in pairs:
            target[value(key)] = value(described)
    root = objects[0]
    if not isinstance(root, TorchObject):
        raise ValueError("object 0 of its metadata is not the network")
    return root, used


def _empty_object(entry: object, position: int) -> TorchObject | LuaTable:
    """An object without its contents, whose form is checked."""
    if isinstance(entry, dict) and isinstance(entry.get("class"), str) and isinstance(entry.get("fields"), dict):
        return TorchObject(entry["class"])
    table = entry.get("table") if isinstance(entry, dict) else None
    if isinstance(table, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in table):
        return LuaTable()
    raise ValueError(f"object {position} of its metadata is neither a module nor a table")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in its metadata")


def _check_flow(network: nn.Module, path: str | Path) -> None:
    """XnorNetError where a layer that gives bits is not followed by one that takes as many."""
    for container in (nn.Sequential(network), *network.modules()):
        is_sequence = type(container) is nn.Sequential
        # of a Sequential not children(), which leaves out the second place of a module
        children = list(container if is_sequence else container.children())  # type: ignore[arg-type]
        followers = [*children, None][1:] if is_sequence else [None] * len(children)
        for layer, follower in zip(children, followers, strict=True):
            if not isinstance(layer, XnorConvolution) or layer.thresholds is None:
                continue
            takes_bits = isinstance(follower, XnorConvolution) and not follower.input_scaled
            if not takes_bits or getattr(follower, "in_channels", None) != layer.out_channels:
                raise XnorNetError(
                    f"{path}: a damaged packed network: {layer.place} gives bits of {layer.out_channels} channels, "
                    "and no binary layer that takes them follows"
                )
