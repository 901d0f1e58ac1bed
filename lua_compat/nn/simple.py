"""Simple layers with parameters: Linear and its relatives, offsets, scales, distances to learned points."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.containers import ParallelTable
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes
from lua_compat.nn.simple_math import MM, norm
from lua_compat.values import LuaTable

__all__ = [
    "Add",
    "Bilinear",
    "CAdd",
    "CMul",
    "Cosine",
    "Euclidean",
    "LinearWeightNorm",
    "LookupTable",
    "Mul",
    "PartialLinear",
    "WeightedEuclidean",
]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]


@register("nn.Linear", "nn.LinearNoBias")
def linear(fields: Fields) -> nn.Linear:
    """Torch7's weight is (outputs, inputs), as PyTorch's. nn.LinearNoBias is Element-Research's."""
    n_outputs, n_inputs = (*fields.array("weight").shape, 0, 0)[:2]
    layer = nn.Linear(n_inputs, n_outputs, bias="bias" in fields, device="meta")
    layer.weight = fields.parameter("weight", (n_outputs, n_inputs))
    if layer.bias is not None:
        layer.bias = fields.parameter("bias", (n_outputs,))
    return layer


@writes(nn.Linear, "nn.Linear", "nn.LinearNoBias")
def linear_fields(module: nn.Linear, out: FieldWriter) -> dict[str, object]:
    return out.parameters(weight=module.weight, bias=module.bias)


class Bilinear(nn.Bilinear):
    """nn.Bilinear of a table {x1, x2}; called with two tensors it is PyTorch's."""

    def forward(self, x: torch.Tensor | Table, second: torch.Tensor | None = None) -> torch.Tensor:
        first, second = x if second is None else (x, second)
        return super().forward(first, second)  # type: ignore[arg-type]


@register("nn.Bilinear")
def bilinear(fields: Fields) -> Bilinear:
    """Torch7's weight is (outputs, inputs 1, inputs 2), as PyTorch's."""
    shape = (*fields.array("weight").shape, 0, 0, 0)[:3]
    layer = Bilinear(shape[1], shape[2], shape[0], bias="bias" in fields, device="meta")
    layer.weight = fields.parameter("weight", shape)
    if layer.bias is not None:
        layer.bias = fields.parameter("bias", (shape[0],))
    return layer


@writes(nn.Bilinear, "nn.Bilinear")
@writes(Bilinear, "nn.Bilinear")
def bilinear_fields(module: nn.Bilinear, out: FieldWriter) -> dict[str, object]:
    gradients = LuaTable([out.empty(), out.empty()])
    return {**out.parameters(weight=module.weight, bias=module.bias), "gradInput": gradients}


@register("nn.LinearWeightNorm")
class LinearWeightNorm(nn.Module):
    """Linear with weight g * v / max(|v|, eps) for each output; v (outputs, inputs), g (outputs, 1)."""

    def __init__(self, v: nn.Parameter, g: nn.Parameter, bias: nn.Parameter | None, eps: float = 1e-16):
        super().__init__()
        self.v = v
        self.g = g
        self.bias = bias
        self.eps = eps

    @classmethod
    def from_t7(cls, fields: Fields) -> LinearWeightNorm:
        shape = fields.array("v").shape
        v, g = fields.parameter("v", shape), fields.parameter("g", (shape[0], 1), may_be_flat=True)
        bias = fields.parameter("bias", (shape[0],)) if "bias" in fields else None
        eps, most = float(fields.number("eps", default=1e-16)), torch.finfo(v.dtype).max
        if not 0 <= eps <= most:
            raise fields.error(f"field eps should be a number from 0 to {most:g}, found {eps}")
        return cls(v, g, bias, eps)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        n_outputs, n_inputs = self.v.shape
        norms = self.norms().detach()
        buffers = {"norm": out.tensor(norms), "scale": out.tensor((self.g / norms).detach())}
        weight = {"weight": out.tensor(self.weight().detach())}
        sizes = {"inputSize": n_inputs, "outputSize": n_outputs, "eps": self.eps}
        return {**sizes, **out.parameters(v=self.v, g=self.g, bias=self.bias), **buffers, **weight}

    def norms(self) -> torch.Tensor:
        return norm(self.v, dim=1, keepdim=True).clamp(min=self.eps)

    def weight(self) -> torch.Tensor:
        return self.v * (self.g / self.norms())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight(), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.v.shape[1]}, out_features={self.v.shape[0]}"


@register("nn.PartialLinear")
class PartialLinear(nn.Module):
    """Linear of which only the outputs in `partition` (counted from 1) are computed (nn/PartialLinear.lua)."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, partition: torch.Tensor):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.partition: torch.Tensor
        self.register_buffer("partition", partition)

    @classmethod
    def from_t7(cls, fields: Fields) -> PartialLinear:
        network = fields.module("network")
        table = next((module for module in network.modules() if isinstance(module, LookupTable)), None)
        if table is None:
            raise fields.error("field network should hold an nn.LookupTable")
        n_outputs = table.weight.shape[0]
        bias = fields.parameter("bias", (1, n_outputs)) if "bias" in fields else None
        return cls(
            table.weight,  # type: ignore[arg-type]
            bias,
            fields.buffer("partition"),
        )

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """Written with the network that Torch7 builds it from."""
        n_outputs, n_inputs = self.weight.shape
        table = LookupTable(n_outputs, n_inputs, device="meta")
        table.weight = self.weight
        network = nn.Sequential(ParallelTable([nn.Identity(), table]), MM(trans_b=True)).train(self.training)
        columns = torch.arange(1, n_outputs + 1, dtype=self.weight.dtype)
        fields = {"network": out.module(network, "network"), "inputsize": n_inputs, "outputsize": n_outputs}
        partition = {"allcolumns": out.tensor(columns), "partition": out.tensor(self.partition)}
        return {**fields, **partition, **out.parameters(bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.partition.long() - 1
        return functional.linear(x, self.weight[columns], None if self.bias is None else self.bias[0, columns])


@register("nn.Add")
class Add(nn.Module):
    """x + bias, for (D) or (N, D, ...); a bias of one number where it is `scalar`."""

    def __init__(self, bias: nn.Parameter, scalar: bool = False):
        super().__init__()
        self.bias = bias
        self.scalar = scalar

    @classmethod
    def from_t7(cls, fields: Fields) -> Add:
        bias = fields.parameter("bias", fields.array("bias").shape)
        return cls(bias, fields.boolean("scalar", default=bias.numel() == 1))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"scalar": self.scalar, "_ones": out.tensor(torch.ones(1)), **out.parameters(bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scalar:
            return x + self.bias
        if x.shape == self.bias.shape:
            return x + self.bias
        return (x.flatten(1) + self.bias.flatten()).view_as(x)


class _Componentwise(nn.Module):
    """One learned number per component: of one sample, of each sample of a batch, or expanded over size-1 dimensions.

    nn/CMul.lua and nn/CAdd.lua, updateOutput.
    """

    def _spread(self, learned: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if x.numel() == learned.numel():
            return learned.view_as(x)
        if learned.dim() == x.dim():
            return learned
        return learned.reshape(1, -1).expand(len(x), -1).reshape(x.shape)


@register("nn.CAdd")
class CAdd(_Componentwise):
    """x + bias, component by component."""

    def __init__(self, bias: nn.Parameter):
        super().__init__()
        self.bias = bias

    @classmethod
    def from_t7(cls, fields: Fields) -> CAdd:
        return cls(fields.parameter("bias", fields.array("bias").shape))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"size": out.sizes(self.bias.shape), **out.parameters(bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self._spread(self.bias, x)


@register("inn.MeanSubtraction")
class MeanSubtraction(nn.Module):
    """x - mean, the mean of one sample for all (imagine-nn MeanSubtraction.lua)."""

    def __init__(self, mean: torch.Tensor):
        super().__init__()
        self.mean: torch.Tensor
        self.register_buffer("mean", mean)

    @classmethod
    def from_t7(cls, fields: Fields) -> MeanSubtraction:
        return cls(fields.buffer("mean"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"mean": out.tensor(self.mean)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sample = self.mean[0] if self.mean.dim() == 4 else self.mean
        return x - sample


@register("nn.CMul")
class CMul(_Componentwise):
    """x * weight, component by component."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    @classmethod
    def from_t7(cls, fields: Fields) -> CMul:
        return cls(fields.parameter("weight", fields.array("weight").shape))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"size": out.sizes(self.weight.shape), **out.parameters(weight=self.weight)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self._spread(self.weight, x)


@register("nn.Mul")
class Mul(CMul):
    """x * weight, one learned number."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return out.parameters(weight=self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@register("nn.Cosine")
class Cosine(nn.Module):
    """The cosine of the angle between (D) or (N, D) and each row of weight (outputs, D)."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    @classmethod
    def from_t7(cls, fields: Fields) -> Cosine:
        return cls(fields.parameter("weight", fields.array("weight").shape))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return out.parameters(weight=self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norms = norm(self.weight, dim=1) + 1e-12  # the eps of nn/Cosine.lua
        input_norms = norm(x, dim=-1, keepdim=True) + 1e-12
        return functional.linear(x, self.weight) / norms / input_norms


@register("nn.Euclidean")
class Euclidean(nn.Module):
    """The distance of (D) or (N, D) from each column of weight (D, outputs)."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    @classmethod
    def from_t7(cls, fields: Fields) -> Euclidean:
        return cls(fields.parameter("weight", fields.array("weight").shape))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**out.parameters(weight=self.weight), "fastBackward": True}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return norm(x.unsqueeze(-1) - self.weight, dim=-2)


@register("nn.WeightedEuclidean")
class WeightedEuclidean(Euclidean):
    """Euclidean with the differences multiplied by diag_cov (D, outputs)."""

    def __init__(self, weight: nn.Parameter, diag_cov: nn.Parameter):
        super().__init__(weight)
        self.diag_cov = diag_cov

    @classmethod
    def from_t7(cls, fields: Fields) -> WeightedEuclidean:
        shape = fields.array("weight").shape
        return cls(fields.parameter("weight", shape), fields.parameter("diagCov", shape))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return out.parameters(weight=self.weight, diagCov=self.diag_cov)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return norm((x.unsqueeze(-1) - self.weight) * self.diag_cov, dim=-2)


class LookupTable(nn.Embedding):
    """nn.Embedding for indices of any type that count from 1, or from `index_base`.

    The row of `padding_idx` gets no gradient; rows are brought to `max_norm` when used, as in Torch7.
    """

    index_base = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.long() - self.index_base)


@register("nn.LookupTable")
def lookup_table(fields: Fields) -> LookupTable:
    """nn/LookupTable.lua; a `paddingValue` outside 1..n is none."""
    n_rows, n_columns = (*fields.array("weight").shape, 0, 0)[:2]
    padding = fields.integer("paddingValue", default=0)
    table = LookupTable(
        n_rows,
        n_columns,
        padding_idx=padding - 1 if 1 <= padding <= n_rows else None,
        max_norm=float(fields.number("maxNorm")) if "maxNorm" in fields else None,
        norm_type=float(fields.number("normType", default=2)),
        scale_grad_by_freq=fields.boolean("shouldScaleGradByFreq", default=False),
        device="meta",
    )
    table.weight = fields.parameter("weight", (n_rows, n_columns))
    table.index_base = 0 if fields.zero_based else 1
    return table


@writes(nn.Embedding, "nn.LookupTable")
@writes(LookupTable, "nn.LookupTable")
def lookup_table_fields(module: nn.Embedding, out: FieldWriter) -> dict[str, object]:
    return {
        "paddingValue": 0 if module.padding_idx is None else module.padding_idx + 1,
        "maxNorm": module.max_norm,
        "normType": None if module.max_norm is None else module.norm_type,
        "shouldScaleGradByFreq": module.scale_grad_by_freq or None,
        **out.parameters(weight=module.weight),
    }
