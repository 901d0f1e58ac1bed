"""Simple layers (nn/Linear.lua, nn/Identity.lua, nn/View.lua)."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["View"]


@register("nn.Linear")
def linear(fields: Fields) -> nn.Linear:
    """Torch7's weight is (outputs, inputs), as PyTorch's."""
    n_outputs, n_inputs = (fields.array("weight").shape + (0, 0))[:2]
    layer = nn.Linear(n_inputs, n_outputs, bias="bias" in fields, device="meta")
    layer.weight = fields.parameter("weight", (n_outputs, n_inputs))
    if layer.bias is not None:
        layer.bias = fields.parameter("bias", (n_outputs,))
    return layer


@writes(nn.Linear, "nn.Linear")
def linear_fields(module: nn.Linear, out: FieldWriter) -> dict[str, object]:
    return out.parameters(weight=module.weight, bias=module.bias)


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
        size = tuple(int(n) for n in fields.array("size"))
        n_input_dims = fields.integer("numInputDims") if "numInputDims" in fields else None
        return cls(size, n_input_dims)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        size = lua_compat.storage(np.array(self.size, np.int64))
        fields: dict[str, object] = {"size": size, "numElements": self.n_elements}
        return fields if self.n_input_dims is None else {**fields, "numInputDims": self.n_input_dims}

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
