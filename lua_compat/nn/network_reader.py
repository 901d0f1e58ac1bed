"""From the modules of a .t7 file to torch.nn modules."""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.nn.fields import Fields
from lua_compat.nn.registry import Origin, registered_reader, set_origin
from lua_compat.values import TorchObject

__all__ = ["load", "to_torch"]


def load(path: str | PathLike[str]) -> nn.Module:
    """The network of a .t7 file as a torch.nn.Module on the CPU, in the mode (training or evaluate) it was saved in.

    Raises T7Error for a file that is no .t7, ModuleError where it holds no network or a damaged one, and
    UnknownModuleError for a class that nothing is registered for; each names the file.
    """
    network = lua_compat.load(path)
    if not isinstance(network, TorchObject):
        raise ModuleError(
            f"{path}: holds {type(network).__name__}, not a network "
            f"(`python -m cache_tools inspect {path}` shows what is in it)"
        )
    try:
        return to_torch(network)
    except ModuleError as error:
        raise type(error)(f"{path}: {error}") from error


def to_torch(network: TorchObject) -> nn.Module:
    """A Torch7 module or criterion as a torch.nn.Module.

    Parameters lie on the memory of the arrays they were read into: parameters flattened on one storage stay so, and
    tensors shared by two modules become one Parameter.
    """
    return _NetworkReader().module(network, "")


class _NetworkReader:
    """Remembers what was built, so that shared modules and shared parameters stay shared."""

    def __init__(self) -> None:
        self._modules: dict[int, nn.Module] = {}
        self._parameters: dict[tuple[object, ...], nn.Parameter] = {}

    def module(self, source: TorchObject, place: str) -> nn.Module:
        known = self._modules.get(id(source))
        if known is not None:
            return known
        read = registered_reader(source.typename)
        if read is None:
            raise UnknownModuleError(
                f"{source.typename} at {place or 'the root'}: no PyTorch module is registered for this class "
                f"(write one and mark it @lua_compat.nn.register({source.typename!r}))"
            )
        fields = Fields(source, place, self.module, self.parameter)
        module = read(fields)
        set_origin(module, Origin(source.typename))
        module.training = fields.boolean("train", default=True)
        self._modules[id(source)] = module
        return module

    def parameter(self, array: np.ndarray) -> nn.Parameter:
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if array.size == 0 or key not in self._parameters:
            writable = array if array.flags.writeable else array.copy()
            self._parameters[key] = nn.Parameter(torch.from_numpy(np.asarray(writable)))
        return self._parameters[key]
