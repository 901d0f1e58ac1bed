"""Containers and decorators (the nn manual's chapter of that name)."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from lua_compat.nn.dimensions import from_zero
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes
from lua_compat.nn.simple_math import MulConstant
from lua_compat.nn.table import JoinTable, flattened
from lua_compat.t7_arrays import MOST_DIMENSIONS
from lua_compat.values import LuaTable, TorchObject

__all__ = [
    "GPU",
    "Bottle",
    "CReLU",
    "Concat",
    "ConcatTable",
    "Container",
    "Decorator",
    "DepthConcat",
    "DontCast",
    "MapTable",
    "NaN",
    "Parallel",
    "ParallelTable",
    "WeightNorm",
]

Table = list[Any] | tuple[Any, ...]
_SEQUENCES = (
    "nn.Sequential",
    "nn.Maxout",
    "nn.LayerNormalization",
    "nn.SpatialLPPooling",
    "inn.SpatialSameResponseNormalization",
)


@register(*_SEQUENCES, container=True)
def sequential(fields: Fields) -> nn.Sequential:
    """nn/Sequential.lua, and the classes that are a Sequential of modules they make themselves."""
    return nn.Sequential(*fields.children())


@writes(nn.Sequential, *_SEQUENCES)
def sequential_fields(module: nn.Sequential, out: FieldWriter) -> dict[str, object]:
    return {"modules": out.children(list(module))}


class Container(nn.Module):
    """Modules side by side, in `members`."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(fields.children())

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"modules": out.children(self.members)}


@register("nn.ConcatTable", container=True)
class ConcatTable(Container):
    """The same input to all members; the table of their outputs."""

    def forward(self, x: Any) -> list[Any]:
        return [member(x) for member in self.members]

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "output": LuaTable()}


@register("nn.ParallelTable", container=True)
class ParallelTable(Container):
    """Entry i of a table to member i; the table of their outputs."""

    def forward(self, x: Table) -> list[Any]:
        if len(x) < len(self.members):
            raise ValueError(f"ParallelTable: {len(self.members)} members need as many inputs, found {len(x)}")
        return [member(entry) for member, entry in zip(self.members, x, strict=False)]

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "output": LuaTable(), "gradInput": LuaTable()}


@register("nn.Concat", container=True)
class Concat(Container):
    """The same input to all members; their outputs one after the other along a dimension."""

    def __init__(self, members: Iterable[nn.Module], dimension: int):
        super().__init__(members)
        self.dimension = dimension

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(fields.children(), fields.integer("dimension"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "dimension": self.dimension, "outputSize": out.sizes(())}

    def forward(self, x: Any) -> torch.Tensor:
        return torch.cat([member(x) for member in self.members], self.dimension - 1)

    def extra_repr(self) -> str:
        return f"dimension={self.dimension}"


@register("nn.DepthConcat", container=True)
class DepthConcat(Concat):
    """Concat of outputs of different sizes: the smaller ones in the middle of zeros (nn/DepthConcat.lua)."""

    def forward(self, x: Any) -> torch.Tensor:
        outputs = [member(x) for member in self.members]
        largest = [max(sizes) for sizes in zip(*(output.shape for output in outputs), strict=True)]
        return torch.cat([self._centred(output, largest) for output in outputs], self.dimension - 1)

    def _centred(self, x: torch.Tensor, largest: list[int]) -> torch.Tensor:
        pads: list[int] = []
        for dim in reversed(range(x.dim())):
            missing = 0 if dim == self.dimension - 1 else largest[dim] - x.shape[dim]
            pads += [missing // 2, missing - missing // 2]
        return nn.functional.pad(x, pads)


@register("nn.Parallel", container=True)
class Parallel(Container):
    """Slice i of the input to member i; their outputs one after the other along a dimension."""

    def __init__(self, members: Iterable[nn.Module], input_dimension: int, output_dimension: int):
        super().__init__(members)
        self.input_dimension = input_dimension
        self.output_dimension = output_dimension

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(fields.children(), fields.integer("inputDimension"), fields.integer("outputDimension"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        dimensions = {"inputDimension": self.input_dimension, "outputDimension": self.output_dimension}
        return {**super().to_t7(out), **dimensions}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slices = x.unbind(from_zero(self.input_dimension, x.dim()))
        outputs = [member(piece) for member, piece in zip(self.members, slices, strict=False)]
        return torch.cat(outputs, from_zero(self.output_dimension, outputs[0].dim()))


@register("nn.MapTable")
class MapTable(nn.Module):
    """The same module for every entry of a table. Torch7's clones of it are not kept."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    @classmethod
    def from_t7(cls, fields: Fields) -> MapTable:
        if fields.boolean("shared", default=True):
            return cls(fields.module("module"))
        raise fields.error("its clones share no weights, so they are different modules: nn.ParallelTable says so")

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        module = out.module(self.module, "module")
        names = LuaTable(["weight", "bias", "gradWeight", "gradBias"])
        tables = {"modules": LuaTable([module]), "sharedparams": names, "output": LuaTable(), "gradInput": LuaTable()}
        return {"module": module, "shared": True, **tables}

    def forward(self, x: Table) -> list[Any]:
        return [self.module(entry) for entry in x]


@register("nn.DataParallelTable", container=True)
def data_parallel_table(fields: Fields) -> nn.Module:
    """cunn's copies of one module on several GPUs: the module itself, which is written back without them."""
    children = fields.children()
    if not children:
        raise fields.error("it holds no module")
    return children[0]


@register("nn.Decorator", "nn.Profile", "nn.Inception", "nn.Serial", container=True)
class Decorator(nn.Module):
    """What only its module does.

    nn.Profile changes how it runs, not what it gives; nn.Inception and nn.Serial are dpnn's.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(only_child(fields))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        members = out.children([self.module])
        if out.typename != "nn.Profile":
            return {"modules": members}
        timer = {"timer": TorchObject("torch.Timer", {}), "numFwds": 0, "numBwds": 0}
        return {"modules": members, "module": members[1], "summedFwdTime": 0, "summedBwdTime": 0, **timer}

    def forward(self, x: Any) -> Any:
        return self.module(x)


def only_child(fields: Fields) -> nn.Module:
    """The module of a decorator."""
    children = fields.children()
    if len(children) != 1:
        raise fields.error(f"field modules should hold one module, found {len(children)}")
    return children[0]


@register("nn.DontCast", container=True)
class DontCast(Decorator):
    """A module that keeps its type of numbers: `cast_in` brings tensors to it, `cast_out` back (nn/DontCast.lua)."""

    def __init__(self, module: nn.Module, cast_in: bool = False, cast_out: bool = False):
        super().__init__(module)
        self.cast_in = cast_in
        self.cast_out = cast_out

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        cast_in = fields.boolean("castin", default=False)
        return cls(only_child(fields), cast_in, fields.boolean("castout", default=cast_in))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        casts = {"castin": self.cast_in or None, "castout": self.cast_out or None}
        return {**super().to_t7(out), **casts}

    def forward(self, x: Any) -> Any:
        inside = next((parameter.dtype for parameter in self.module.parameters()), None)
        outside = next((tensor.dtype for tensor in flattened(x) if tensor.is_floating_point()), None)
        y = self.module(cast(x, inside) if self.cast_in else x)
        return cast(y, outside) if self.cast_out else y


def cast(value: Any, dtype: torch.dtype | None) -> Any:
    """The floating-point tensors of a nested table in another type."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value
    return [cast(entry, dtype) for entry in value]


@register("nn.GPU", container=True)
class GPU(Decorator):
    """A module on a GPU of its own (counted from 1), which is kept but not followed: `.to()` says where it runs."""

    def __init__(self, module: nn.Module, device: int = 1, out_device: int | None = None):
        super().__init__(module)
        self.device = device
        self.out_device = device if out_device is None else out_device

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        device = fields.integer("device", default=1)
        return cls(only_child(fields), device, fields.integer("outdevice", default=device))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        out.header = LuaTable([out.empty().typename, self.device])
        return {**super().to_t7(out), "device": self.device, "outdevice": self.out_device}


@register("nn.NaN", container=True)
class NaN(Decorator):
    """Raises FloatingPointError where the output has a NaN."""

    def forward(self, x: Any) -> Any:
        y = self.module(x)
        if isinstance(y, torch.Tensor) and bool(y.isnan().any()):
            found = "input" if isinstance(x, torch.Tensor) and bool(x.isnan().any()) else "output"
            raise FloatingPointError(f"NaN found in the {found} of {self.module}")
        return y


@register("nn.Bottle", container=True)
class Bottle(Decorator):
    """Leading dimensions are rolled into the first of the `n_input_dim` that the module takes, and out again."""

    def __init__(self, module: nn.Module, n_input_dim: int = 2, n_output_dim: int | None = None):
        super().__init__(module)
        self.n_input_dim = n_input_dim
        self.n_output_dim = n_input_dim if n_output_dim is None else n_output_dim

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        n_input_dim = fields.integer("nInputDim", default=2)
        n_output_dim = fields.integer("nOutputDim", default=n_input_dim)
        if not (1 <= n_input_dim <= MOST_DIMENSIONS and 1 <= n_output_dim <= MOST_DIMENSIONS):
            raise fields.error(f"nInputDim {n_input_dim} and nOutputDim {n_output_dim} should be numbers of dimensions")
        return cls(only_child(fields), n_input_dim, n_output_dim)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        counts = {"nInputDim": self.n_input_dim, "nOutputDim": self.n_output_dim}
        shapes = {"inShape": torch.zeros(self.n_input_dim), "outShape": torch.zeros(self.n_output_dim)}
        tensors = {name: out.tensor(shape) for name, shape in shapes.items()}
        return {**super().to_t7(out), **counts, **tensors, "dimDelta": self.n_input_dim - self.n_output_dim}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_rolled = x.dim() - self.n_input_dim + 1
        if n_rolled <= 1:
            return self.module(x)  # type: ignore[no-any-return]
        y: torch.Tensor = self.module(x.flatten(0, n_rolled - 1))
        return y.reshape(*x.shape[:n_rolled], *y.shape[1:])


@register("nn.CReLU")
class CReLU(nn.Module):
    """relu(x) and relu(-x) one after the other along the feature maps; `n_input_dims` is that of one sample."""

    def __init__(self, n_input_dims: int, inplace: bool = False):
        super().__init__()
        self.n_input_dims = n_input_dims
        self.inplace = inplace

    @classmethod
    def from_t7(cls, fields: Fields) -> CReLU:
        return cls(fields.integer("nInputDims"), fields.boolean("inplace", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """Written with the modules that Torch7 builds it from."""
        parts = [ConcatTable([nn.Identity(), MulConstant(-1)]), JoinTable(2), nn.ReLU(self.inplace)]
        members = out.children(part.train(self.training) for part in parts)
        return {"nInputDims": self.n_input_dims, "inplace": self.inplace, "modules": members}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], dim=1 if x.dim() == self.n_input_dims + 1 else 0).relu()


@register("nn.WeightNorm")
class WeightNorm(nn.Module):
    """A module whose weight is g * v / sqrt(|v|^2 + 1e-4) for each output (nn/WeightNorm.lua, updateWeight).

    v is (outputs, others), with the outputs of the weight in front; its first dimension is `output_dim`.
    """

    def __init__(self, module: nn.Module, v: nn.Parameter, g: nn.Parameter, output_dim: int = 1):
        super().__init__()
        self.v = v
        self.g = g
        self.module = module
        self.output_dim = output_dim

    @classmethod
    def from_t7(cls, fields: Fields) -> WeightNorm:
        """The file holds the module without its weight (WeightNorm:write)."""
        modules = fields.value("modules")
        inner = modules.get(1) if isinstance(modules, LuaTable) else None
        shape, output_dim = fields.integers("weightSize"), fields.integer("outputDim", default=1)
        if (
            not isinstance(inner, TorchObject)
            or type(inner.payload) is not LuaTable
            or not 1 <= output_dim <= len(shape)
        ):
            raise fields.error("it should hold a module in modules[1], and outputDim one of its weight's dimensions")
        v = fields.array("v")
        if v.size != prod(shape):
            raise fields.error(f"weightSize {shape} should be the size of its {v.size} numbers v")
        whole = TorchObject(inner.typename, {**inner, "weight": np.zeros(shape, v.dtype)})
        module = fields.read(whole, "modules[1]")
        if not isinstance(getattr(module, "weight", None), nn.Parameter):
            raise fields.error(f"modules[1] should be a module with a weight, found {inner.typename}")
        n_outputs = shape[output_dim - 1]
        v_parameter = fields.parameter("v", (n_outputs, v.size // max(n_outputs, 1)))
        g = fields.parameter("g", (n_outputs,) if fields.array("g").ndim == 1 else (n_outputs, 1))
        normed = cls(module, v_parameter, g, output_dim)
        del module.weight  # no longer a parameter of its own
        module.register_buffer("weight", normed.weight(shape).detach(), persistent=False)
        return normed

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        inner = out.module(self.module, "modules[1]")
        bias = {name: inner[name] for name in ("bias", "gradBias") if name in inner}
        shape = tuple(self.module.weight.shape)  # type: ignore[arg-type]
        moved = (shape[self.output_dim - 1], *shape[: self.output_dim - 1], *shape[self.output_dim :])
        without_weight = {name: value for name, value in inner.items() if name not in ("weight", "gradWeight")}
        buffers = {"_norm": torch.zeros(len(self.v), 1), "_scale": torch.zeros(len(self.v))}
        return {
            "modules": LuaTable([TorchObject(inner.typename, without_weight)]),
            "outputDim": self.output_dim,
            "otherDims": self.v.shape[1],
            "viewIn": out.sizes(self.v.shape),
            "viewOut": out.sizes(moved),
            "weightSize": out.sizes(shape),
            **{name: out.tensor(buffer) for name, buffer in buffers.items()},
            **out.parameters(v=self.v, g=self.g),
            **bias,
        }

    def weight(self, shape: tuple[int, ...]) -> torch.Tensor:
        norm = (self.v.pow(2).sum(1, keepdim=True) + 1e-4).sqrt()
        rows = self.v * (self.g.reshape(-1, 1) / norm)
        dim = self.output_dim - 1
        return rows.reshape(shape[dim], *shape[:dim], *shape[dim + 1 :]).movedim(0, dim)

    def forward(self, x: Any) -> Any:
        weight = self.weight(tuple(self.module.weight.shape))  # type: ignore[arg-type]
        return torch.func.functional_call(self.module, {"weight": weight}, (x,))
