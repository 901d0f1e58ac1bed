"""From torch.nn modules back to the modules of a .t7 file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.nn.registry import Origin, origin_of, registered_writer
from lua_compat.values import LuaTable, Tensor, TorchObject

__all__ = ["FieldWriter", "from_torch"]

_ELEMENT_TYPES = {
    torch.float32: "torch.FloatTensor",
    torch.float64: "torch.DoubleTensor",
    torch.float16: "torch.HalfTensor",
    torch.int64: "torch.LongTensor",
}
_ELEMENT_DTYPES = {
    "torch.FloatTensor": np.float32,
    "torch.DoubleTensor": np.float64,
    "torch.HalfTensor": np.float16,
    "torch.LongTensor": np.int64,
}


def from_torch(module: nn.Module) -> TorchObject:
    """A network as the Torch7 object that real Torch7 loads and runs.

    Class names are those the network was loaded with, else the nn.* class of the PyTorch module. Tensors are CPU
    tensors without copies where the module is on the CPU: save before you train on. Parameters that lie on one
    storage are written on one storage. Activations are left out, as after clearState. Raises UnknownModuleError for a
    PyTorch module without a registered writer.
    """
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    return _NetworkWriter(_typename(dtype)).module(module, "")


def _typename(dtype: torch.dtype) -> str:
    typename = _ELEMENT_TYPES.get(dtype)
    if typename is None:
        raise UnknownModuleError(
            f"Torch7 has no tensor of type {dtype}: convert the network first, as with module.float()"
        )
    return typename


class _NetworkWriter:
    """Remembers what was written, so that shared modules and shared storages stay shared."""

    def __init__(self, tensor_type: str) -> None:
        self._tensor_type = tensor_type
        self._modules: dict[int, TorchObject] = {}
        self._storages: dict[tuple[int, torch.dtype], np.ndarray] = {}
        self._gradients: dict[int, Tensor] = {}

    def module(self, module: nn.Module, place: str) -> TorchObject:
        known = self._modules.get(id(module))
        if known is not None:
            return known
        registered = registered_writer(module)
        if registered is None:
            raise UnknownModuleError(
                f"{type(module).__name__} at {place or 'the root'}: no Torch7 class is registered for this PyTorch "
                f"module (mark a function of it @lua_compat.nn.writes, or its class @lua_compat.nn.register)"
            )
        default_typename, write = registered
        origin = origin_of(module) or Origin(default_typename)
        fields = write(module, FieldWriter(self, place))
        written = TorchObject(
            origin.typename,
            {
                **fields,
                "output": self.empty(),
                "gradInput": self.empty(),
                "_type": self._tensor_type,
                "train": module.training,
            },
        )
        self._modules[id(module)] = written
        return written

    def empty(self) -> Tensor:
        """An empty tensor of the network's type."""
        return lua_compat.tensor(np.zeros(0, _ELEMENT_DTYPES[self._tensor_type]), self._tensor_type)

    def tensor(self, tensor: torch.Tensor) -> Tensor:
        """The tensor as a view of one array for its whole storage."""
        typename = _typename(tensor.dtype)
        storage = tensor.detach().untyped_storage()
        key = (storage.data_ptr(), tensor.dtype)
        if key not in self._storages:
            n_elements = storage.nbytes() // tensor.element_size()
            whole = tensor.detach().as_strided((n_elements,), (1,), 0)
            self._storages[key] = whole.cpu().numpy()
        flat = self._storages[key]
        strides = tuple(stride * tensor.element_size() for stride in tensor.stride())
        view: np.ndarray = np.ndarray(
            tuple(tensor.shape), flat.dtype, flat, tensor.storage_offset() * tensor.element_size(), strides
        )
        return lua_compat.tensor(view, typename)

    def gradient(self, parameter: torch.Tensor) -> Tensor:
        """The parameter's gradient; zeros where it has none (Torch7's modules always own one)."""
        if id(parameter) not in self._gradients:
            if parameter.grad is not None:
                self._gradients[id(parameter)] = self.tensor(parameter.grad)
            else:
                self._gradients[id(parameter)] = self.tensor(torch.zeros(parameter.shape, dtype=parameter.dtype))
        return self._gradients[id(parameter)]


class FieldWriter:
    """What a registered writer may ask for while it lists the fields of its module."""

    def __init__(self, network: _NetworkWriter, place: str):
        self.place = place
        self._network = network

    def error(self, problem: str) -> ModuleError:
        """A ModuleError that names the module's place; the writer raises it."""
        return ModuleError(f"{self.place or 'the root'}: {problem}")

    def empty(self) -> Tensor:
        """An empty tensor of the network's type, for a field that holds activations."""
        return self._network.empty()

    def tensor(self, tensor: torch.Tensor) -> Tensor:
        """A buffer as a Torch7 tensor."""
        return self._network.tensor(tensor)

    def parameters(self, **parameters: torch.Tensor | None) -> dict[str, object]:
        """Fields NAME and gradNAME for each parameter that is there: weight gives weight and gradWeight."""
        fields: dict[str, object] = {}
        for name, parameter in parameters.items():
            if parameter is not None:
                fields[name] = self._network.tensor(parameter)
                fields["grad" + name[0].upper() + name[1:]] = self._network.gradient(parameter)
        return fields

    def children(self, modules: list[nn.Module]) -> LuaTable:
        """The modules of a container."""
        return LuaTable(
            [
                self._network.module(child, f"{self.place}.modules[{position}]".lstrip("."))
                for position, child in enumerate(modules, start=1)
            ]
        )
