"""Simple layers without parameters that compute: constants, reductions, products, distances, noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.nn.dimensions import from_zero
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register
from lua_compat.values import LuaTable

__all__ = [
    "MM",
    "MV",
    "AddConstant",
    "Constant",
    "CosineDistance",
    "DotProduct",
    "GradientReversal",
    "L1Penalty",
    "Max",
    "Mean",
    "Min",
    "MulConstant",
    "Normalize",
    "OneHot",
    "PairwiseDistance",
    "PrintSize",
    "Sum",
    "WhiteNoise",
    "ZeroGrad",
]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]


@register("nn.AddConstant")
class AddConstant(nn.Module):
    """x + constant; a tensor constant is added to each sample (nn/AddConstant.lua)."""

    @staticmethod
    def operation(x: torch.Tensor, constant: float | torch.Tensor) -> torch.Tensor:
        return x + constant

    def __init__(self, constant: float | torch.Tensor, inplace: bool = False):
        super().__init__()
        self.inplace = inplace
        self.constant: float | torch.Tensor
        if isinstance(constant, torch.Tensor):
            self.register_buffer("constant", constant)
        else:
            self.constant = constant

    @classmethod
    def from_t7(cls, fields: Fields) -> AddConstant:
        is_tensor = isinstance(fields.value("constant_scalar"), np.ndarray)
        constant = fields.buffer("constant_scalar") if is_tensor else fields.number("constant_scalar")
        return cls(constant, fields.boolean("inplace", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        constant = out.tensor(self.constant) if isinstance(self.constant, torch.Tensor) else self.constant
        return {"constant_scalar": constant, "inplace": self.inplace}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.operation(x, self.constant)
        return x.copy_(result) if self.inplace else result

    def extra_repr(self) -> str:
        return f"{self.constant}"


@register("nn.MulConstant")
class MulConstant(AddConstant):
    """x * constant (nn/MulConstant.lua)."""

    @staticmethod
    def operation(x: torch.Tensor, constant: float | torch.Tensor) -> torch.Tensor:
        return x * constant


@register("nn.Sum")
class Sum(Layer):
    """The sum over a dimension, or its mean where `size_average`."""

    dimension: int = 1
    n_input_dims: int | None = None
    size_average: bool = False
    squeeze: bool = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dim = from_zero(self.dimension, x.dim(), self.n_input_dims)
        keep = not self.squeeze or x.dim() == 1  # Torch7 has no tensor without dimensions
        return x.mean(dim, keepdim=keep) if self.size_average else x.sum(dim, keepdim=keep)


@register("nn.Mean")
class Mean(Sum):
    """Sum with `size_average` (files before 2015 have neither field)."""

    size_average: bool = True


@register("nn.Max")
class Max(Layer):
    """The maximum over a dimension."""

    dimension: int = 1
    n_input_dims: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.extremes(x, from_zero(self.dimension, x.dim(), self.n_input_dims), keep=x.dim() == 1)

    def extremes(self, x: torch.Tensor, dim: int, keep: bool) -> torch.Tensor:
        return x.max(dim, keepdim=keep).values


@register("nn.Min")
class Min(Max):
    """The minimum over a dimension."""

    def extremes(self, x: torch.Tensor, dim: int, keep: bool) -> torch.Tensor:
        return x.min(dim, keepdim=keep).values


@register("nn.MM")
class MM(Layer):
    """a @ b of a table of two matrices, or two batches of matrices."""

    n_gradients = 2

    trans_a: bool = False
    trans_b: bool = False

    def forward(self, x: Table) -> torch.Tensor:
        a, b = x
        return (a.mT if self.trans_a else a) @ (b.mT if self.trans_b else b)


@register("nn.MV")
class MV(Layer):
    """matrix @ vector of a table of both, or of batches of both."""

    n_gradients = 2

    trans: bool = False

    def forward(self, x: Table) -> torch.Tensor:
        matrix, vector = x
        return ((matrix.mT if self.trans else matrix) @ vector.unsqueeze(-1)).squeeze(-1)


@register("nn.Normalize")
class Normalize(Layer):
    """x / (sum |x|^p + eps)^(1/p) for each row of (D) or (N, D); for p = inf, x / (max |x| + eps)."""

    p: float
    eps: float = 1e-10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if math.isinf(self.p):
            return x / (x.abs().amax(-1, keepdim=True) + self.eps)
        return x / (x.abs().pow(self.p).sum(-1, keepdim=True) + self.eps).pow(1 / self.p)


@register("nn.CosineDistance")
class CosineDistance(Layer):
    """The cosine of the angle between the rows of two (D) or (N, D); the result is (1) or (N)."""

    n_gradients = 2

    def forward(self, x: Table) -> torch.Tensor:
        return cosine(*x)


def norm(x: torch.Tensor, dim: int, p: float = 2.0, keepdim: bool = False) -> torch.Tensor:
    """The p-norm along a dimension, with gradient 0 where it is 0."""
    found: torch.Tensor = torch.linalg.vector_norm(x, p, dim, keepdim)
    return found


def rows(x: torch.Tensor) -> torch.Tensor:
    """(D) as (1, D)."""
    return x.unsqueeze(0) if x.dim() == 1 else x


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a.b / sqrt((a.a + eps) (b.b + eps)) for each row, with the eps of nn/CosineDistance.lua."""
    a, b = rows(a), rows(b)
    squares = ((a * a).sum(1) + 1e-12) * ((b * b).sum(1) + 1e-12)
    return (a * b).sum(1) * squares.rsqrt()


@register("nn.DotProduct")
class DotProduct(Layer):
    """The product of the rows of two (D) or (N, D); the result is (1) or (N)."""

    n_gradients = 2

    def forward(self, x: Table) -> torch.Tensor:
        return (rows(x[0]) * rows(x[1])).sum(1)


@register("nn.PairwiseDistance")
class PairwiseDistance(Layer):
    """The p-norm of the difference of the rows of two (D) or (N, D); the result is (1) or (N)."""

    table_fields = ("gradInput",)

    norm: float = 2.0

    def forward(self, x: Table) -> torch.Tensor:
        return norm(rows(x[0] - x[1]), dim=1, p=self.norm)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "diff": out.empty()}


@register("nn.Constant")
class Constant(nn.Module):
    """The same tensor whatever the input; for each sample where the input has more than `n_input_dim` dimensions."""

    def __init__(self, value: torch.Tensor, n_input_dim: int | None = None):
        super().__init__()
        self.value: torch.Tensor
        self.register_buffer("value", value)
        self.n_input_dim = n_input_dim

    @classmethod
    def from_t7(cls, fields: Fields) -> Constant:
        return cls(fields.buffer("value"), fields.integer("nInputDim") if "nInputDim" in fields else None)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"value": out.tensor(self.value), "nInputDim": self.n_input_dim}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.n_input_dim is not None and x.dim() > self.n_input_dim:
            return self.value.expand(len(x), *self.value.shape)
        return self.value.clone()


@register("nn.WhiteNoise")
class WhiteNoise(nn.Module):
    """x + normal noise in training, x + mean in testing."""

    def __init__(self, mean: float = 0.0, std: float = 0.1):
        super().__init__()
        self.mean = mean
        self.std = std
        self.generator: Generator | None = None

    @classmethod
    def from_t7(cls, fields: Fields) -> WhiteNoise:
        return cls(float(fields.number("mean", default=0)), float(fields.number("std", default=0.1)))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"mean": self.mean, "std": self.std, "noise": out.empty()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x + self.mean
        if self.generator is None:
            return x + torch.empty_like(x).normal_(self.mean, self.std)
        noise = self.generator.fill_normal(np.empty(tuple(x.shape), np.float32), self.mean, self.std)
        return x + torch.from_numpy(noise).to(x)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


@register("nn.OneHot")
class OneHot(nn.Module):
    """Indices (...) to vectors (..., output_size) with a one at the index; indices count from 1, or `index_base`."""

    def __init__(self, output_size: int, index_base: int = 1):
        super().__init__()
        self.output_size = output_size
        self.index_base = index_base
        self.like: torch.Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)  # the type of the output

    @classmethod
    def from_t7(cls, fields: Fields) -> OneHot:
        return cls(fields.integer("outputSize"), 0 if fields.zero_based else 1)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"outputSize": self.output_size}

    def forward(self, x: torch.Tensor | int) -> torch.Tensor:
        index = torch.as_tensor(x, device=self.like.device).long() - self.index_base
        return nn.functional.one_hot(index, self.output_size).to(self.like.dtype)


@register("nn.PrintSize")
class PrintSize(Layer):
    """Hands its input on. Torch7's prints the size; here use a forward hook, or print the network."""

    prefix: str = "PrintSize"

    def forward(self, x: Any) -> Any:
        return x


class _WithGradient(torch.autograd.Function):
    """The input itself, and for its gradient scale * gradient + addition."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float, addition: torch.Tensor) -> torch.Tensor:
        ctx.scale = scale
        ctx.save_for_backward(addition)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (addition,) = ctx.saved_tensors
        return gradients[0] * ctx.scale + addition, None, None


def with_gradient(x: torch.Tensor, scale: float, addition: torch.Tensor) -> torch.Tensor:
    return _WithGradient.apply(x, scale, addition)  # type: ignore[no-any-return, no-untyped-call]


@register("nn.ZeroGrad")
class ZeroGrad(Layer):
    """The input; its gradient is 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return with_gradient(x, 0.0, x.new_zeros(()))


@register("nn.GradientReversal")
class GradientReversal(Layer):
    """The input; its gradient is times -lambda."""

    lambda_: float = 1.0

    @classmethod
    def from_t7(cls, fields: Fields) -> GradientReversal:
        return cls(float(fields.number("lambda", default=1)))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"lambda": self.lambda_}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return with_gradient(x, -self.lambda_, x.new_zeros(()))


@register("nn.L1Penalty")
class L1Penalty(Layer):
    """The input; its gradient gets sign(x) * l1weight (/ number of elements where `size_average`) added."""

    l1weight: float
    size_average: bool = False
    provide_output: bool = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.l1weight / x.numel() if self.size_average else self.l1weight
        return with_gradient(x, 1.0 if self.provide_output else 0.0, x.detach().sign() * scale)


@register("nn.CriterionTable")
class CriterionTable(nn.Module):
    """A criterion as a module: a table {input, target} to the loss."""

    def __init__(self, criterion: nn.Module):
        super().__init__()
        self.criterion = criterion

    @classmethod
    def from_t7(cls, fields: Fields) -> CriterionTable:
        return cls(fields.module("criterion"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"criterion": out.module(self.criterion, "criterion"), "gradInput": LuaTable()}

    def forward(self, x: Table) -> torch.Tensor:
        loss: torch.Tensor = self.criterion(*x)
        return loss


@register("nn.ModuleFromCriterion")
class ModuleFromCriterion(CriterionTable):
    """nngraph/ModuleFromCriterion.lua: the loss as a tensor of one number; no gradient for the target."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        gradients = LuaTable([out.empty(), out.empty()])
        return {**super().to_t7(out), "output": out.tensor(torch.zeros(1)), "gradInput": gradients}

    def forward(self, x: Table) -> torch.Tensor:
        prediction, target = x
        loss: torch.Tensor = self.criterion(prediction, target.detach())
        return loss.reshape(1)
