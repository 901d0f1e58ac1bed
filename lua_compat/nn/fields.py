"""The fields of a Torch7 module while it is read: every access is checked, every error names the place."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds
from torch import nn

from lua_compat.errors import ModuleError
from lua_compat.values import LuaTable, TorchObject

__all__ = ["Fields"]

_MOST_REPEATED = 1 << 26  # bytes that a tensor may show of a smaller storage: readers copy some tensors

ReadModule = Callable[[TorchObject, str], nn.Module]
ReadParameter = Callable[[np.ndarray], nn.Parameter]


class Fields:
    """Checked access to the fields of one Torch7 module.

    `place` is the way to it from the root of the network, as "modules[5].modules[3]". A default is what the class had
    before the field existed; without one a missing field is an error.
    """

    def __init__(
        self,
        module: TorchObject,
        place: str,
        read_module: ReadModule,
        read_parameter: ReadParameter,
        zero_based: bool = False,
    ):
        self.typename = module.typename
        self.place = place
        self.zero_based = zero_based
        self._module = module
        self._read_module = read_module
        self._read_parameter = read_parameter

    def __contains__(self, name: str) -> bool:
        return self._module.get(name) is not None

    def error(self, problem: str) -> ModuleError:
        """A ModuleError that names this module and its place; the caller raises it."""
        return ModuleError(f"{self.typename} at {self.place or 'the root'}: {problem}")

    def value(self, name: str) -> Any:
        """The field as read from the file, None where it is absent."""
        return self._module.get(name)

    def number(self, name: str, default: float | None = None) -> float:
        """A number; whole ones come as int."""
        found = self._module.get(name)
        if found is None:
            if default is None:
                raise self.error(f"field {name} is missing (it has {self._names()})")
            return default
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.error(f"field {name} should be a number, found {_describe(found)}")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        found = self.number(name, default)
        if not _is_whole(found):
            raise self.error(f"field {name} should be a whole number, found {found}")
        return int(found)

    def boolean(self, name: str, default: bool) -> bool:
        """A boolean; absent means the default."""
        found = self._module.get(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise self.error(f"field {name} should be true or false, found {_describe(found)}")
        return found

    def string(self, name: str, default: str | None = None) -> str:
        """A string."""
        found = self._module.get(name)
        if found is None and default is not None:
            return default
        if not isinstance(found, str):
            raise self.error(f"field {name} should be a string, found {_describe(found)}")
        return found

    def integers(self, name: str) -> tuple[int, ...]:
        """Whole numbers: a torch.LongStorage, a tensor or a table of numbers."""
        found = self._module.get(name)
        numbers = found.to_list() if isinstance(found, LuaTable) else self.array(name).reshape(-1).tolist()
        if not all(isinstance(number, int | float) and _is_whole(number) for number in numbers):
            raise self.error(f"field {name} should hold whole numbers, found {_describe(found)}")
        return tuple(int(number) for number in numbers)

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A tensor or storage as a NumPy view; `shape` is checked where given."""
        found = self._module.get(name)
        if not isinstance(found, np.ndarray):
            raise self.error(f"field {name} should be a tensor, found {_describe(found)}")
        low, high = byte_bounds(found)
        if found.nbytes > max(_MOST_REPEATED, high - low):
            raise self.error(f"field {name} repeats {high - low} bytes until they are {found.nbytes}")
        if shape is not None:
            self._check_shape(name, found, shape)
        return found

    def parameter(self, name: str, shape: tuple[int, ...], may_be_flat: bool = False) -> nn.Parameter:
        """A learnable tensor on the file's own memory; tensors shared in the file give one shared Parameter.

        `may_be_flat` takes any shape with as many numbers and views it as `shape`.
        """
        array = self.array(name)
        if may_be_flat and array.size == prod(shape):
            array = array.reshape(shape)
        self._check_shape(name, array, shape)
        return self.shared_parameter(name, array)

    def shared_parameter(self, name: str, array: np.ndarray) -> nn.Parameter:
        """A learnable tensor on `array`, which may be a view of field `name` in another shape."""
        if array.dtype.kind != "f":
            raise self.error(f"field {name} should hold floating-point numbers, found {array.dtype}")
        return self._read_parameter(array)

    def buffer(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """A tensor that is not learned (running statistics), copied so that nothing else writes to it."""
        return torch.from_numpy(np.array(self.array(name, shape)))

    def module(self, name: str) -> nn.Module:
        """The module in a field of its own."""
        return self.read(self._module.get(name), name)

    def read(self, child: object, name: str) -> nn.Module:
        """A module found in field `name`, which may say where in it."""
        if not isinstance(child, TorchObject):
            raise self.error(f"{name} should be a module, found {_describe(child)}")
        return self._read_module(child, f"{self.place}.{name}".lstrip("."))

    def children(self, name: str = "modules") -> list[nn.Module]:
        """The modules of a container, in order."""
        table = self._module.get(name)
        if not isinstance(table, LuaTable):
            raise self.error(f"field {name} should be a table of modules, found {_describe(table)}")
        return [self.read(child, f"{name}[{position}]") for position, child in enumerate(table.to_list(), start=1)]

    def _check_shape(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise self.error(f"field {name} should have shape {_sizes(shape)}, found {_sizes(array.shape)}")

    def _names(self) -> str:
        return ", ".join(sorted(str(name) for name in self._module)) or "no fields"


def _is_whole(number: float) -> bool:
    """Whether it is a whole number that PyTorch can take for a size."""
    return abs(number) < 2**53 and number == int(number)  # neither inf nor nan


def _describe(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, TorchObject):
        return value.typename
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {_sizes(value.shape)}"
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"
