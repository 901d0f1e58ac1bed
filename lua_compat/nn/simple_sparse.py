"""Linear layers for sparse input: SparseLinear and IndexLinear."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register
from lua_compat.values import LuaTable

__all__ = ["IndexLinear", "SparseLinear"]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]


@register("nn.SparseLinear")
class SparseLinear(nn.Module):
    """weight (outputs, inputs) times a sparse vector given as pairs (index, value), plus bias.

    One sample is (n, 2); a batch is a table of such, or (N, n, 2). Indices count from 1, or `index_base`; an index
    with value 0 is padding (THNN SparseLinear.c). Values get a gradient here; Torch7 gives them a dense one on request.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, index_base: int = 1):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.index_base = index_base

    @classmethod
    def from_t7(cls, fields: Fields) -> SparseLinear:
        shape = fields.array("weight").shape
        bias = fields.parameter("bias", shape[:1])
        return cls(fields.parameter("weight", shape), bias, 0 if fields.zero_based else 1)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        settings = {"weightDecay": 0, "doGradInput": False, "sparseUpdate": 0, "gradInput": LuaTable()}
        return {**settings, **out.parameters(weight=self.weight, bias=self.bias)}

    def forward(self, x: torch.Tensor | Table) -> torch.Tensor:
        if isinstance(x, torch.Tensor) and x.dim() == 2:
            return self._sample(x)
        return torch.stack([self._sample(sample) for sample in x])

    def _sample(self, pairs: torch.Tensor) -> torch.Tensor:
        index, value = pairs[:, 0].long() - self.index_base, pairs[:, 1]
        weight = self.weight.index_select(1, torch.where(value == 0, 0, index))
        return weight @ value + self.bias


@register("nn.IndexLinear")
class IndexLinear(nn.Module):
    """weight (inputs, outputs) times a sparse vector of a table {keys, values}, plus bias (THNN IndexLinear.c).

    keys and values are (n), two tables of such for a batch, or flat with a third entry: the number of keys of each
    sample. Keys count from `first_key`. With `normalize` the first four columns of weight hold, for each key: the
    largest |value| seen in training, its inverse, a flag, and an offset; values are divided by that maximum.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, first_key: int = 1):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.first_key = first_key
        self.n_normalize = weight.shape[1] - bias.shape[0]

    @classmethod
    def from_t7(cls, fields: Fields) -> IndexLinear:
        bias = fields.parameter("bias", fields.array("bias").shape)
        first_key = -fields.integer("offset", default=-1)
        n_keys, n_columns = (*fields.array("weight").shape, 0, 0)[:2]
        weight = fields.parameter("weight", (n_keys, n_columns))
        return cls(weight, bias, first_key - int(fields.zero_based))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        empty = dict.fromkeys(("gradWeight", "gradWeightBuffer", "valuesBuffer", "normalizedValues"), out.empty())
        running = {"cumSumSizes": LuaTable(), "keys": LuaTable(), "gradWeight": LuaTable(), "counter": 1}
        return {
            **out.parameters(bias=self.bias),
            "weight": out.tensor(self.weight),
            **empty,
            "running": LuaTable(running),
            "sizesCache": LuaTable(),
            "cumSumSizesCache": LuaTable(),
            "normalize": self.n_normalize,
            "inputSize": self.weight.shape[0],
            "outputSize": self.bias.shape[0],
        }

    def forward(self, x: Table | list[Table]) -> torch.Tensor:
        keys, values = x[0], x[1]
        if len(x) == 3:
            sizes = torch.as_tensor(x[2]).reshape(-1).tolist()
            keys, values = keys.split(sizes), values.split(sizes)  # type: ignore[union-attr]
        if isinstance(keys, torch.Tensor):
            return self._sample(keys, values)  # type: ignore[arg-type]
        return torch.stack([self._sample(k, v) for k, v in zip(keys, values, strict=True)])

    def _sample(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        index = keys.long() - self.first_key
        if self.n_normalize:
            values = self._normalized(index, values)
        return values @ self.weight.index_select(0, index)[:, self.n_normalize :] + self.bias

    def _normalized(self, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if self.training:
                largest = torch.maximum(self.weight[index, 0], values.abs())
                self.weight[index, 0] = largest
                self.weight[index, 1] = torch.where(largest > 0, 1 / largest, self.weight[index, 1])
                self.weight[index, 2] = 1
            scale = self.weight[index, :4].clone()
        return torch.where(values.abs() > scale[:, 0], values.sign(), values * scale[:, 1]) + scale[:, 3]
