"""From torch.nn modules back to the modules of a .t7 file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.nn.class_names import Names, renamed
from lua_compat.nn.registry import Origin, is_container, origin_of, registered_writer
from lua_compat.values import CudaTensor, LuaTable, Storage, Tensor, TorchObject

__all__ = ["FieldWriter", "from_torch"]

_ELEMENT_NAMES = {torch.float32: "Float", torch.float64: "Double", torch.float16: "Half", torch.int64: "Long"}
_ELEMENT_DTYPES = {"Float": np.float32, "Double": np.float64, "Half": np.float16, "Long": np.int64}

Memory = Literal["cpu", "cuda"]


def from_torch(module: nn.Module, *, names: Names = "kept", memory: Memory = "cpu") -> TorchObject:
    """A network as the Torch7 object that real Torch7 loads and runs.

    Class names are those the network was loaded with, else the nn.* class of the PyTorch module; `names` "nn" or
    "cudnn" turns them all into one family, as cudnn.convert did. `memory` "cuda" writes the tensors as
    torch.CudaTensor. Tensors are views without copies where the module is on the CPU: save before you train on.
    Parameters that lie on one storage are written on one storage. Activations are left out, as after clearState.
    Raises UnknownModuleError for a PyTorch module without a registered writer, ValueError for unknown `names` or
    `memory`.
    """
    if names not in get_args(Names) or memory not in get_args(Memory):
        raise ValueError(
            f"names is one of {get_args(Names)}, memory of {get_args(Memory)}; found {names!r}, {memory!r}"
        )
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    return _NetworkWriter(dtype, names, memory).network(module)


class _NetworkWriter:
    """Remembers what was written, so that shared modules and shared storages stay shared."""

    def __init__(self, dtype: torch.dtype, names: Names, memory: Memory) -> None:
        self._names = names
        self._memory = memory
        self._element = self._element_name(dtype)
        self._modules: dict[int, TorchObject] = {}
        self._storages: dict[tuple[int, int, torch.dtype], Storage] = {}
        self._gradients: dict[int, Tensor] = {}
        self._kept: list[object] = []  # what is known by its address stays alive, so that the address stays its own

    def network(self, root: nn.Module) -> TorchObject:
        """Write the members of containers before the containers: no recursion along nested containers."""
        waiting = [(root, "")]
        entered: set[int] = set()
        while waiting:
            module, place = waiting[-1]
            members = [m for m in _members(module, place) if id(m[0]) not in self._modules]
            if members and id(module) not in entered:
                entered.add(id(module))
                waiting.extend(reversed(members))
            else:
                waiting.pop()
                self.module(module, place)
        return self._modules[id(root)]

    def module(self, module: nn.Module, place: str) -> TorchObject:
        known = self._modules.get(id(module))
        if known is not None:
            return known
        origin = origin_of(module)
        registered = registered_writer(type(module), origin.typename if origin else None)
        if registered is None:
            raise UnknownModuleError(
                f"{type(module).__name__} at {place or 'the root'}: no Torch7 class is registered for this PyTorch "
                f"module (mark a function of it @lua_compat.nn.writes, or its class @lua_compat.nn.register)"
            )
        default_typename, write = registered
        origin = origin or Origin(default_typename)
        out = FieldWriter(self, place, origin.typename)
        fields = {**origin.extra, **self._base_fields(module), **write(module, out)}
        typename, fields = renamed(out.typename, fields, self._names, place)
        there = {name: value for name, value in fields.items() if value is not None}
        written = TorchObject(typename, there, header=out.header)
        self._modules[id(module)] = written
        self._kept.append(module)
        return written

    def empty(self) -> Tensor:
        """An empty tensor of the network's type."""
        return lua_compat.tensor(np.zeros(0, _ELEMENT_DTYPES[self._element]), self._type(self._element))

    def tensor(self, tensor: torch.Tensor) -> Tensor:
        """The tensor as a view of one array for its whole storage."""
        element = self._element_name(tensor.dtype)
        storage = tensor.detach().untyped_storage()
        key = (storage.data_ptr(), storage.nbytes(), tensor.dtype)
        if key not in self._storages:
            n_elements = storage.nbytes() // tensor.element_size()
            whole = tensor.detach().as_strided((n_elements,), (1,), 0)
            self._storages[key] = lua_compat.storage(whole.cpu().numpy(), self._type(element, "Storage"))
            self._kept.append(whole)
        strides = tuple(stride * tensor.element_size() for stride in tensor.stride())
        offset = tensor.storage_offset() * tensor.element_size()
        kind = Tensor if self._memory == "cpu" else CudaTensor
        flat = self._storages[key]
        return np.ndarray.__new__(kind, tuple(tensor.shape), flat.dtype, flat, offset, strides)

    def gradient(self, parameter: torch.Tensor) -> Tensor:
        """The parameter's gradient; zeros where it has none (Torch7's modules always own one)."""
        if id(parameter) not in self._gradients:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros(parameter.shape, dtype=parameter.dtype)
            self._gradients[id(parameter)] = self.tensor(gradient)
            self._kept.append(parameter)
        return self._gradients[id(parameter)]

    def _base_fields(self, module: nn.Module) -> dict[str, object]:
        return {
            "output": self.empty(),
            "gradInput": self.empty(),
            "_type": self._type(self._element),
            "train": module.training,
        }

    def _type(self, element: str, kind: str = "Tensor") -> str:
        if self._memory == "cuda":
            element = "Cuda" if element == "Float" else f"Cuda{element}"
        return f"torch.{element}{kind}"

    def _element_name(self, dtype: torch.dtype) -> str:
        element = _ELEMENT_NAMES.get(dtype)
        if element is None:
            raise UnknownModuleError(
                f"Torch7 has no tensor of type {dtype}: convert the network first, as with module.float()"
            )
        return element


def _members(module: nn.Module, place: str) -> list[tuple[nn.Module, str]]:
    """The children of a container, with their places."""
    registered = registered_writer(type(module), None)
    if registered is None or not is_container(registered[0]):
        return []
    # not children(), which leaves out the second place of a module
    children: Iterable[nn.Module] = module if isinstance(module, nn.Sequential) else _child_list(module)
    return [(child, f"{place}.modules[{position}]".lstrip(".")) for position, child in enumerate(children, start=1)]


def _child_list(module: nn.Module) -> Iterable[nn.Module]:
    members = getattr(module, "members", None)
    return members if isinstance(members, nn.ModuleList) else ()


class FieldWriter:
    """What a registered writer may ask for while it lists the fields of its module.

    `typename` is the Torch7 class that is being written, `header` a table in front of its fields, which only nn.GPU
    has. A field whose value is None is left out.
    """

    def __init__(self, network: _NetworkWriter, place: str, typename: str):
        self.place = place
        self.typename = typename
        self.header: LuaTable | None = None
        self._network = network

    def error(self, problem: str) -> ModuleError:
        """A ModuleError that names the module's place; the writer raises it."""
        return ModuleError(f"{self.place or 'the root'}: {problem}")

    def write_as(self, typename: str) -> None:
        """Write the module under another class name than the one it came with."""
        self.typename = typename

    def empty(self) -> Tensor:
        """An empty tensor of the network's type, for a field that holds activations."""
        return self._network.empty()

    def indices(self) -> Tensor:
        """An empty torch.LongTensor, for a field that holds indices of maxima."""
        return lua_compat.tensor(np.zeros(0, np.int64))

    def sizes(self, sizes: Sequence[int]) -> Storage:
        """Whole numbers as a torch.LongStorage."""
        return lua_compat.storage(np.array(sizes, np.int64))

    def tensor(self, tensor: torch.Tensor) -> Tensor:
        """A buffer as a Torch7 tensor."""
        return self._network.tensor(tensor)

    def gradient(self, parameter: torch.Tensor) -> Tensor:
        """The gradient of a parameter as a Torch7 tensor."""
        return self._network.gradient(parameter)

    def parameters(self, **parameters: torch.Tensor | None) -> dict[str, object]:
        """Fields NAME and gradNAME for each parameter that is there: weight gives weight and gradWeight."""
        fields: dict[str, object] = {}
        for name, parameter in parameters.items():
            gradient = "grad" + name[0].upper() + name[1:]
            fields[name] = None if parameter is None else self.tensor(parameter)
            fields[gradient] = None if parameter is None else self.gradient(parameter)
        return fields

    def module(self, module: nn.Module, name: str) -> TorchObject:
        """A child in a field of its own."""
        return self._network.module(module, f"{self.place}.{name}".lstrip("."))

    def children(self, modules: Iterable[nn.Module], name: str = "modules") -> LuaTable:
        """The modules of a container."""
        return LuaTable([self.module(child, f"{name}[{k}]") for k, child in enumerate(modules, start=1)])
