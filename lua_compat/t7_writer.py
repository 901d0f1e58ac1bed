"""From values to the bytes of a .t7 file.

Ports torch7 File.lua (writeObject), generic/Tensor.c and generic/Storage.c (write), tds, nn.GPU and cunn's
DataParallelTable. Without recursion, as the reader.
"""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lua_compat.atomic_file import replace_file
from lua_compat.errors import T7Error
from lua_compat.t7_format import (
    CLASS_NAME,
    GENERATOR_BYTES,
    STORAGE_TYPES,
    TENSOR_TYPES,
    VERSION,
    Layout,
    Payload,
    Tag,
    payload_of,
)
from lua_compat.t7_sink import AsciiSink, BinarySink, Sink
from lua_compat.t7_storages import StoragePlan
from lua_compat.values import (
    CudaStorage,
    CudaTensor,
    LuaFunction,
    LuaTable,
    LuaValue,
    Storage,
    TorchObject,
    exact_float,
    key_step,
    torch_typename,
)

__all__ = ["dumps", "save"]

LONGEST = 2**31 - 1  # lengths of strings and tables are C ints


def save(
    path: str | Path,
    value: LuaValue,
    mode: str = "binary",
    *,
    long_size: int = 8,
    byte_order: str = "little",
    referenced: bool = True,
    sync: bool = True,
) -> None:
    """Write a value as torch.save does, so that Torch7 reads it.

    The file is written beside `path` and renamed: a crash leaves the old file whole. Sharing and cycles are
    kept; with `referenced=False` every occurrence is written in full. An entry of a list or dict that is None is left
    out, as nil is of a Lua table: [1, None, 3] has the keys 1 and 3. `long_size` 4 is for Torch7 on Windows and 32-bit
    systems. T7Error where a value has no form in Torch7 (it names the keys down to it)
    or the file cannot be written.
    """
    layout = checked_layout(mode, long_size, byte_order)
    check_name(path)
    try:
        with replace_file(path, sync) as file:
            write_value(file, value, layout, referenced)
    except T7Error as error:
        raise T7Error(f"cannot be written: {error.problem}", file=path, keys=error.keys) from None
    except OSError as error:
        raise T7Error(f"cannot be written: {error.strerror or error}", file=path) from None


def dumps(
    value: LuaValue,
    mode: str = "binary",
    *,
    long_size: int = 8,
    byte_order: str = "little",
    referenced: bool = True,
) -> bytes:
    """The bytes that `save` would write, as torch.serialize gives them."""
    file = io.BytesIO()
    write_value(file, value, checked_layout(mode, long_size, byte_order), referenced)
    return file.getvalue()


def check_name(path: object) -> None:
    """Refuse what names no file: the value in the place of the name, or an open file."""
    if isinstance(path, (str, bytes, os.PathLike)):
        return
    if hasattr(path, "write"):
        raise T7Error("save takes a file's name, not an open file: write lua_compat.dumps(value) into it")
    raise T7Error(f"save takes a file's name and then the value, found a Python {type(path).__name__} as the name")


def checked_layout(mode: str, long_size: int, byte_order: str) -> Layout:
    if mode not in ("binary", "ascii"):
        raise ValueError(f"mode is 'binary' or 'ascii', not {mode!r}")
    if long_size not in (4, 8):
        raise ValueError(f"long_size is 4 or 8, not {long_size!r}")
    if byte_order not in ("little", "big"):
        raise ValueError(f"byte_order is 'little' or 'big', not {byte_order!r}")
    return Layout(mode, long_size, byte_order)


def write_value(file: BinaryIO, value: LuaValue, layout: Layout, referenced: bool) -> None:
    sink: Sink = AsciiSink(file) if layout.mode == "ascii" else BinarySink(file, layout)
    ObjectWriter(sink, StoragePlan(value), referenced).write_object(value)


class Parts:
    """The parts of a container that are still to be written, and the key of the one that is next."""

    __slots__ = ("key", "owner", "values")

    def __init__(self, owner: LuaValue, values: Iterator[LuaValue], key: Any = None) -> None:
        self.owner = owner
        self.key = key  # None where the part has none
        self.values = values

    def path_step(self) -> str:
        return "" if self.key is None else key_step(self.key)


class ObjectWriter:
    """Writes one value: numbers its tables, objects and functions and writes each of them once."""

    def __init__(self, sink: Sink, plan: StoragePlan, referenced: bool) -> None:
        self._sink = sink
        self._plan = plan
        self._referenced = referenced
        self._indices: dict[Any, int] = {}
        self._count = 0
        self._kept: list[Any] = []  # what is numbered by its id must not go away and leave the id to another
        self._waiting: list[Parts] = []

    def write_object(self, value: LuaValue) -> None:
        """Write a value and all it holds. T7Error, with the keys, where something has no form in Torch7."""
        waiting = self._waiting = [Parts(None, iter((value,)))]
        try:
            while waiting:
                for part in waiting[-1].values:
                    parts = self._write(part)
                    if parts is not None:
                        self._check_no_cycle(parts)
                        waiting.append(parts)
                        break
                else:
                    waiting.pop()
        except T7Error as error:
            raise T7Error(error.problem, keys=self._path()) from None
        except TypeError as error:
            raise T7Error(str(error), keys=self._path()) from None

    def _path(self) -> str:
        steps = [parts.path_step() for parts in self._waiting]
        if len(steps) > 40:
            steps = [*steps[:20], f"...({len(steps) - 40} more)...", *steps[-20:]]
        return "".join(steps).removeprefix(".")

    def _check_no_cycle(self, parts: Parts) -> None:
        if not self._referenced and any(each.owner is parts.owner for each in self._waiting):
            raise T7Error("the value contains itself, which cannot be written with referenced=False")

    def _write(self, value: LuaValue) -> Parts | None:
        """Write a value; of a container only the beginning, and return its parts."""
        sink = self._sink
        if isinstance(value, (str, bytes, bytearray)):
            sink.write_int(Tag.STRING)
            self._write_string(value)
        elif isinstance(value, (bool, np.bool_)):  # before the numbers: a Python bool is an int
            sink.write_int(Tag.BOOLEAN)
            sink.write_int(int(value))
        elif isinstance(value, (int, np.integer)):
            sink.write_int(Tag.NUMBER)
            sink.write_number(exact_float(int(value)))
        elif isinstance(value, (float, np.floating)):
            sink.write_int(Tag.NUMBER)
            sink.write_number(float(value))
        elif value is None:
            sink.write_int(Tag.NIL)
        else:
            return self._write_shared(value)
        return None

    def _write_string(self, value: str | bytes | bytearray) -> None:
        if not isinstance(value, (str, bytes, bytearray)):  # the bytecode of a function, or a class name
            raise T7Error(f"expected a string, found a Python {type(value).__name__}: {shown(value)}")
        try:
            raw = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        except UnicodeEncodeError:
            raise T7Error(f"the text {value[:40]!r} has no UTF-8 form; give bytes") from None
        if len(raw) > LONGEST:
            raise T7Error(f"a string of {len(raw)} bytes; Torch7's longest is {LONGEST}")
        self._sink.write_int(len(raw))
        self._sink.write_raw(raw)

    def _write_shared(self, value: LuaValue) -> Parts | None:
        """A table, array, object or function: its number, and the rest where it is new."""
        if isinstance(value, np.ndarray):
            self._write_array(value)
            return None
        if isinstance(value, LuaFunction):
            return self._write_function(value)
        if isinstance(value, TorchObject):
            return self._write_instance(value) if self._is_new(Tag.TORCH, id(value), value) else None
        if isinstance(value, (Mapping, list, tuple)):
            if not self._is_new(Tag.TABLE, id(value), value):
                return None
            table = value if isinstance(value, LuaTable) else table_of(value)
            self._sink.write_int(checked_count(len(table)))
            return table_parts(value, table)
        raise T7Error(why_not(value))

    def _is_new(self, tag: int, key: Any, value: Any) -> bool:
        """Write the type id and the number of an object; True where its contents must follow."""
        self._sink.write_int(tag)
        index = self._indices.get(key) if self._referenced else None
        if index is not None:
            self._sink.write_int(index)
            return False
        self._count += 1
        self._indices[key] = self._count
        self._kept.append(value)
        self._sink.write_int(checked_count(self._count))
        return True

    def _write_function(self, function: LuaFunction) -> Parts | None:
        if function.tag == Tag.OLDEST_FUNCTION:
            if any(each.owner is function for each in self._waiting):
                raise T7Error("a function of type 6 holds itself, which its form in the file has no number for")
            self._sink.write_int(Tag.OLDEST_FUNCTION)
        elif function.tag not in (Tag.LEGACY_FUNCTION, Tag.FUNCTION):
            raise T7Error(f"a function's tag is 6, 7 or 8, not {shown(function.tag)}")
        elif not self._is_new(function.tag, id(function), function):
            return None
        self._write_string(function.bytecode)
        return Parts(function, iter((function.upvalues,)), "<upvalues>")

    def _write_class(self, typename: str, version: float) -> None:
        raw_version = f"V {version}".encode()
        if VERSION.fullmatch(raw_version) is None:
            raise T7Error(f"the version of {typename} is a number from 0 on, not {shown(version)}")
        self._sink.write_int(len(raw_version))
        self._sink.write_raw(raw_version)
        self._write_string(typename)

    def _write_instance(self, value: TorchObject) -> Parts | None:
        """An object of any class but tensors and storages, with the payload its class has."""
        sink = self._sink
        check_class_name(value.typename)
        payload = payload_of(value.typename, value.version)
        self._write_class(value.typename, value.version)
        if payload is Payload.ONE_OBJECT or payload is Payload.TWO_OBJECTS:
            if not isinstance(value.payload, (Mapping, list)):
                raise T7Error(f"the payload of {value.typename} is a table, not {shown(value.payload)}")
            parts = (value.payload,) if payload is Payload.ONE_OBJECT else (value.header, value.payload)
            return Parts(value, iter(parts))
        if payload is Payload.PAIRS:
            sink.write_longs(len(value.fields))
            return table_parts(value, value.fields)
        if payload is Payload.ELEMENTS:
            elements = value.payload if isinstance(value.payload, list) else value.fields.to_list()
            sink.write_longs(len(elements))
            return Parts(value, iter(elements))
        if payload is Payload.LONG:
            if type(value.payload) is not int or not -(2**63) <= value.payload < 2**63:
                raise T7Error(f"the payload of {value.typename} is an int of 64 bits, not {shown(value.payload)}")
            sink.write_longs(value.payload)
            return None
        if payload is Payload.NOTHING:
            return None
        if not isinstance(value.payload, bytes) or len(value.payload) != GENERATOR_BYTES:
            raise T7Error(f"the payload of {value.typename} is {GENERATOR_BYTES} bytes")
        sink.write_raw(value.payload)
        return None

    def _write_array(self, array: npt.NDArray[Any]) -> None:
        """A storage, or a tensor and its storage."""
        if array.dtype == np.bool_:
            array = self._as_bytes(array)
        if isinstance(array, Storage):
            if array.ndim != 1 or not array.flags.c_contiguous:
                raise T7Error(f"a storage is 1-d and contiguous, not {array.shape} with strides {array.strides}")
            self._write_storage(array.view(np.ndarray), isinstance(array, CudaStorage))
            return
        if isinstance(array, np.ma.MaskedArray):
            raise T7Error("a masked array, whose mask would be lost: give .filled() or .data")
        if array.ndim == 0:
            raise T7Error("a 0-dimensional array; Torch7 has none: give a number, or an array of shape (1,)")
        is_cuda = isinstance(array, CudaTensor)
        typename = torch_typename(array.dtype, is_cuda, "Tensor")
        if not self._is_new(Tag.TORCH, id(array), array):
            return
        self._write_class(typename, 1)
        placement = self._plan.place(array)
        ndim = 0 if array.shape == (0,) else array.ndim  # an empty tensor has no dimensions
        self._sink.write_int(ndim)
        if ndim:
            strides = placement.strides if placement else [s // array.itemsize for s in array.strides]
            self._sink.write_longs(*array.shape)
            self._sink.write_longs(*strides)
        self._sink.write_longs(placement.offset + 1 if placement else 1)
        if placement is None:
            self._sink.write_int(Tag.NIL)
        else:
            self._write_storage(placement.storage, is_cuda)

    def _as_bytes(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Booleans as the bytes that Torch7 has for them, always the same array for the same booleans."""
        key = ("bytes", id(array))
        if key not in self._indices:
            self._indices[key] = len(self._kept)
            self._kept += [array.view(np.uint8), array]
        converted: npt.NDArray[Any] = self._kept[self._indices[key]]
        return converted

    def _write_storage(self, elements: npt.NDArray[Any], is_cuda: bool) -> None:
        """A storage; the same memory is the same storage."""
        start = elements.__array_interface__["data"][0] if elements.size else id(elements)
        key = (start, elements.size, elements.dtype.str, is_cuda)
        if self._is_new(Tag.TORCH, key, elements):
            self._write_class(torch_typename(elements.dtype, is_cuda, "Storage"), 1)
            self._sink.write_longs(elements.size)
            self._sink.write_elements(elements)


def shown(value: object) -> str:
    """The beginning of a value's repr, in one line."""
    return " ".join(repr(value).split())[:60]


def why_not(value: object) -> str:
    """Why a value cannot be written, and what to do. Of PyTorch's it goes by the names: it is not imported here."""
    classes = [f"{kind.__module__}.{kind.__name__}" for kind in type(value).__mro__]
    if "torch.Tensor" in classes:
        convert = "float().numpy()" if str(getattr(value, "dtype", "")) == "torch.bfloat16" else "numpy()"
        return f"a torch.Tensor is not written itself: give tensor.detach().cpu().{convert}"
    if "torch.nn.modules.module.Module" in classes:
        return f"a torch.nn.Module ({type(value).__name__}): give lua_compat.nn.from_torch(network)"
    return f"a Python {type(value).__name__} has no form in Torch7: {shown(value)}"


def check_class_name(typename: str) -> None:
    """Refuse a class name that would not be found in the file again, or that says there is an array."""
    if not isinstance(typename, str) or CLASS_NAME.fullmatch(typename.encode("utf-8", "replace")) is None:
        raise T7Error(f"{shown(typename)} is no class name: letters, digits, points and _ up to 256")
    if typename in TENSOR_TYPES or typename in STORAGE_TYPES:
        raise T7Error(f"a TorchObject cannot be a {typename}: use lua_compat.tensor or lua_compat.storage")


def table_of(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> LuaTable:
    """A Python mapping or sequence as a table; two keys that are one in Lua, as "a" and b"a", are refused."""
    table = LuaTable(value)
    values = value.values() if isinstance(value, Mapping) else value
    if len(table) != sum(each is not None for each in values):
        raise T7Error(f"two keys of a Python {type(value).__name__} are one key in Lua")
    return table


def table_parts(owner: LuaValue, table: LuaTable) -> Parts:
    """Keys and values of a table in turn."""
    parts = Parts(owner, iter(()))

    def keys_and_values() -> Iterator[LuaValue]:
        for key, value in table.items():
            parts.key = key
            yield key
            yield value

    parts.values = keys_and_values()
    return parts


def checked_count(count: int) -> int:
    if count > LONGEST:
        raise T7Error(f"{count} entries or objects; Torch7's most is {LONGEST}")
    return count
