"""Simple layers that only move numbers: select, narrow, reshape, replicate, pad."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.nn.dimensions import from_zero
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes
from lua_compat.values import LuaTable

__all__ = [
    "Collapse",
    "Contiguous",
    "Convert",
    "Copy",
    "Index",
    "MaskedSelect",
    "Narrow",
    "Padding",
    "Replicate",
    "Reshape",
    "Select",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "View",
]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]


@register("nn.Identity")
def identity(fields: Fields) -> nn.Identity:
    return nn.Identity()


@writes(nn.Identity, "nn.Identity")
def identity_fields(module: nn.Identity, out: FieldWriter) -> dict[str, object]:
    return {}


@register("nn.View")
class View(nn.Module):
    """Reshape to `size`, with a batch dimension in front where the input holds several such views.

    One of `size` may be -1 (found from the input). `n_input_dims` says how many trailing dimensions one sample has;
    without it a batch of one loses its batch dimension, as in Torch7 (nn/View.lua, batchsize). Raises ValueError where
    the input does not divide into views.
    """

    def __init__(self, size: tuple[int, ...], n_input_dims: int | None = None):
        super().__init__()
        self.size = size
        self.n_input_dims = n_input_dims
        self.n_elements = prod(n for n in size if n >= 0)

    @classmethod
    def from_t7(cls, fields: Fields) -> View:
        return cls(fields.integers("size"), fields.integer("numInputDims") if "numInputDims" in fields else None)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        size = out.sizes(self.size)
        return {"size": size, "numElements": self.n_elements, "numInputDims": self.n_input_dims}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_batch = self._batch_size(tuple(x.shape))
        return x.reshape(self.size if n_batch is None else (n_batch, *self.size))

    def extra_repr(self) -> str:
        return f"size={self.size}, n_input_dims={self.n_input_dims}"

    def _batch_size(self, shape: tuple[int, ...]) -> int | None:
        n_input_dims = len(shape) if self.n_input_dims is None else self.n_input_dims
        n_outer = max(len(shape) - n_input_dims, 0)
        n_inner = prod(shape[n_outer:])
        if n_inner % self.n_elements:
            raise ValueError(f"View: input of shape {shape} cannot be viewed as {self.size}")
        n_batch = prod(shape[:n_outer]) * (1 if -1 in self.size else n_inner // self.n_elements)
        if n_batch == 1 and (self.n_input_dims is None or len(shape) <= self.n_input_dims):
            return None
        return n_batch


@register("nn.Reshape")
class Reshape(Layer):
    """Reshape to `size`, or to (N, *size) where `batch_mode`.

    Without a batch mode the whole input is reshaped where it has as many elements and more than one row
    (nn/Reshape.lua).
    """

    size: tuple[int, ...]
    batch_mode: bool | None = None

    @classmethod
    def from_t7(cls, fields: Fields) -> Reshape:
        batch_mode = fields.boolean("batchMode", default=False) if "batchMode" in fields else None
        return cls(fields.integers("size"), batch_mode)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        sizes = {"size": out.sizes(self.size), "batchsize": out.sizes((0, *self.size))}
        return {**sizes, "nelement": prod(self.size), "batchMode": self.batch_mode}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_one_sample = x.numel() == prod(self.size) and x.shape[0] != 1
        if self.batch_mode is False or (self.batch_mode is None and is_one_sample):
            return x.reshape(self.size)
        return x.reshape(x.shape[0], *self.size)


@register("nn.Collapse")
class Collapse(Layer):
    """(N, ...) to (N, D); a sample of `n_input_dim` dimensions to (D)."""

    n_input_dim: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.dim() > self.n_input_dim else x.flatten()


@register("nn.Replicate")
class Replicate(Layer):
    """A new dimension of size `nfeatures`; `ndim` is the number of dimensions of one sample."""

    nfeatures: int
    dim: int = 1
    ndim: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset = 1 if self.ndim is not None and x.dim() > self.ndim else 0
        position = self.dim - 1 + offset
        return x.unsqueeze(position).expand(*x.shape[:position], self.nfeatures, *x.shape[position:])


@register("nn.Select")
class Select(Layer):
    """One slice along a dimension; both count from 1, or from -1 at the end."""

    dimension: int
    index: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        selected = x.select(from_zero(self.dimension, x.dim()), self.index - 1 if self.index > 0 else self.index)
        return selected.reshape(1) if x.dim() == 1 else selected


@register("nn.Narrow")
class Narrow(Layer):
    """Slices `index` to `index + length - 1` along a dimension; a negative length counts from the end."""

    dimension: int
    index: int
    length: int = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dim = from_zero(self.dimension, x.dim())
        length = self.length if self.length >= 0 else x.shape[dim] - self.index + self.length + 2
        if self.index < 0:  # nn/Narrow.lua: all but the last `length`
            return x.narrow(dim, 0, x.shape[dim] - length)
        return x.narrow(dim, self.index - 1, length)


@register("nn.Index")
class Index(nn.Module):
    """Slices of x in the order of the indices, of a table {x, indices}; indices count from 1, or `index_base`."""

    def __init__(self, dimension: int, index_base: int = 1):
        super().__init__()
        self.dimension = dimension
        self.index_base = index_base

    @classmethod
    def from_t7(cls, fields: Fields) -> Index:
        return cls(fields.integer("dimension"), 0 if fields.zero_based else 1)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"dimension": self.dimension, "gradInput": LuaTable([out.empty(), out.empty()])}

    def forward(self, x: Table) -> torch.Tensor:
        values, indices = x
        return values.index_select(self.dimension - 1, indices.long() - self.index_base)

    def extra_repr(self) -> str:
        return f"dimension={self.dimension}"


@register("nn.MaskedSelect")
class MaskedSelect(Layer):
    """The numbers of x where the mask is not 0, of a table {x, mask}."""

    def forward(self, x: Table) -> torch.Tensor:
        values, mask = x
        return values.masked_select(mask.bool())

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """With the buffers of Torch7's constructor."""
        buffers = {"_maskIndices": out.indices(), "_maskIndexBuffer": out.indices(), "_gradBuffer": out.empty()}
        on_cpu = lua_compat.tensor(np.zeros(0, np.float32))
        mask = lua_compat.tensor(np.zeros(0, np.uint8))
        return {**super().to_t7(out), **buffers, "_maskIndexBufferCPU": on_cpu, "_gradMask": mask}


@register("nn.Squeeze")
class Squeeze(Layer):
    """Without a dimension of size 1, or all of them; with `num_input_dims` a batch of one stays one."""

    dim: int | None = None
    num_input_dims: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_batch = self.num_input_dims is not None and x.dim() == self.num_input_dims + 1
        if self.dim is not None:
            return x.squeeze(self.dim if is_batch else self.dim - 1)
        squeezed = x.squeeze()
        squeezed = squeezed.unsqueeze(0) if is_batch and len(x) == 1 else squeezed
        return squeezed.reshape(1) if squeezed.dim() == 0 else squeezed


@register("nn.Unsqueeze")
class Unsqueeze(Layer):
    """A dimension of size 1 at `pos`, which counts in one sample of `num_input_dims` dimensions."""

    pos: int
    num_input_dims: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset = 0 if self.num_input_dims is None else x.dim() - self.num_input_dims
        return x.unsqueeze(self.pos - 1 + offset)


@register("nn.Transpose")
class Transpose(nn.Module):
    """Swap pairs of dimensions one after the other; they count in one sample of `num_input_dims` dimensions."""

    def __init__(self, permutations: tuple[tuple[int, int], ...], num_input_dims: int | None = None):
        super().__init__()
        self.permutations = permutations
        self.num_input_dims = num_input_dims

    @classmethod
    def from_t7(cls, fields: Fields) -> Transpose:
        table = fields.value("permutations")
        entries = table.to_list() if isinstance(table, LuaTable) else [None]
        pairs = [entry.to_list() if isinstance(entry, LuaTable) else [] for entry in entries]
        if any(len(pair) != 2 or not all(isinstance(dim, int) for dim in pair) for pair in pairs):
            raise fields.error("field permutations should be a table of pairs of dimensions")
        n_input_dims = fields.integer("numInputDims") if "numInputDims" in fields else None
        return cls(tuple((int(a), int(b)) for a, b in pairs), n_input_dims)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        pairs = LuaTable([LuaTable(list(pair)) for pair in self.permutations])
        return {"permutations": pairs, "numInputDims": self.num_input_dims}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset = 0 if self.num_input_dims is None else x.dim() - self.num_input_dims
        for first, second in self.permutations:
            x = x.transpose(first - 1 + offset, second - 1 + offset)
        return x.contiguous()

    def extra_repr(self) -> str:
        return f"{self.permutations}"


@register("nn.Contiguous")
class Contiguous(Layer):
    """The same numbers, one after the other in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous()


@register("nn.Copy")
class Copy(nn.Module):
    """Into another type: that of `like`. From or to the GPU it leaves the numbers where they are."""

    def __init__(self, dtype: torch.dtype, dont_cast: bool = False):
        super().__init__()
        self.dont_cast = dont_cast
        self.like: torch.Tensor
        self.register_buffer("like", torch.zeros(0, dtype=dtype), persistent=False)

    @classmethod
    def from_t7(cls, fields: Fields) -> Copy:
        return cls(fields.buffer("output").dtype, fields.boolean("dontCast", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"output": out.tensor(self.like), "dontCast": self.dont_cast or None}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.like.dtype)


@register("nn.Padding")
class Padding(Layer):
    """|pad| slices of `value`, before slice `index` (pad < 0) or before the last `index - 1` slices (pad > 0)."""

    dim: int
    pad: int
    n_input_dim: int | None = None
    value: float = 0.0
    index: int = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dim = self.dim if self.n_input_dim is not None and x.dim() != self.n_input_dim else self.dim - 1
        at = self.index - 1 if self.pad <= 0 else x.shape[dim] - self.index + 1
        shape = [*x.shape]
        shape[dim] = abs(self.pad)
        before, after = x.narrow(dim, 0, at), x.narrow(dim, at, x.shape[dim] - at)
        return torch.cat([before, x.new_full(shape, self.value), after], dim)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "outputSize": out.sizes(())}


@register("nn.Convert")
class Convert(Layer):
    """From one layout to another, as "bchw" to "bhwc"; b is the batch, the others mean what the user means.

    Transpositions; "b..." to "bf" flattens each sample; "bt", "bf" with one feature to "b" selects it; "b" to "bt"
    adds a dimension (nn/Convert.lua).
    """

    input_shape: str
    output_shape: str

    known: ClassVar[tuple[str, ...]] = ("b", "bf", "bt")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_sample = self.input_shape != "b*" and x.dim() < len(self.input_shape)
        batch_in, batch_out = self.input_shape.index("b"), self.output_shape.index("b")
        converted = self._converted(x.unsqueeze(batch_in) if is_sample else x, batch_in)
        return converted.squeeze(batch_out) if is_sample else converted

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        shapes = {"inputShape": self.input_shape, "outputShape": self.output_shape}
        batch = {"inputBatchDim": self.input_shape.index("b") + 1, "outputBatchDim": self.output_shape.index("b") + 1}
        n_in, n_out = (-1 if shape == "b*" else len(shape) for shape in shapes.values())
        transposition = self._is_transposition() if n_in == n_out else None
        counts = {"nInputDim": n_in, "nOutputDim": n_out, "transposition": transposition}
        return {**shapes, **batch, **counts, "modules": LuaTable()}

    def _is_transposition(self) -> bool:
        return sorted(self.input_shape) == sorted(self.output_shape)

    def _converted(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        if self.input_shape == self.output_shape:
            return x
        if self._is_transposition():
            return x.permute([self.input_shape.index(axis) for axis in self.output_shape])
        if self.output_shape == "bf" and self.input_shape != "bt":
            return x.unsqueeze(1) if len(self.input_shape) == 1 else x.movedim(batch, 0).flatten(1)
        if self.output_shape == "b" and set(self.input_shape) in ({"b", "t"}, {"b", "f"}):
            return x.select(1 - batch, 0)
        if self.output_shape == "bt" and self.input_shape == "b":
            return x.unsqueeze(1)
        raise ValueError(f"Convert: no conversion from shape {self.input_shape} to {self.output_shape}")
