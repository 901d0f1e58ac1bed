"""Transfer functions (the nn manual's chapter of that name; cudnn.torch Pointwise.lua, SoftMax.lua)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.nn.dimensions import feature_dimension
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["ChannelPReLU", "LogSoftMax", "Power", "RReLU", "SoftMax", "SoftMin"]


def _without_settings(typename: str, module_class: type[nn.Module], *others: str) -> None:
    """Register a class that has no fields on either side."""
    register(typename, *others)(lambda fields: module_class())
    writes(module_class, typename, *others)(lambda module, out: {})


def _is_inplace(fields: Fields) -> bool:
    return fields.boolean("inplace", default=False)


_without_settings("nn.Tanh", nn.Tanh, "cudnn.Tanh")
_without_settings("nn.Sigmoid", nn.Sigmoid, "cudnn.Sigmoid")
_without_settings("nn.SoftSign", nn.Softsign)
_without_settings("nn.LogSigmoid", nn.LogSigmoid)


@register("nn.ReLU", "cudnn.ReLU")
def relu(fields: Fields) -> nn.ReLU:
    """nn/ReLU.lua is Threshold(0, 0)."""
    return nn.ReLU(_is_inplace(fields))


@writes(nn.ReLU, "nn.ReLU", "cudnn.ReLU")
def relu_fields(module: nn.ReLU, out: FieldWriter) -> dict[str, object]:
    return {"inplace": module.inplace, "threshold": 0, "val": 0}


@register("nn.Threshold")
def threshold(fields: Fields) -> nn.Threshold:
    return nn.Threshold(
        float(fields.number("threshold", default=1e-6)), float(fields.number("val", default=0)), _is_inplace(fields)
    )


@writes(nn.Threshold, "nn.Threshold")
def threshold_fields(module: nn.Threshold, out: FieldWriter) -> dict[str, object]:
    return {"threshold": module.threshold, "val": module.value, "inplace": module.inplace}


@register("nn.ReLU6")
def relu6(fields: Fields) -> nn.ReLU6:
    return nn.ReLU6(_is_inplace(fields))


@writes(nn.ReLU6, "nn.ReLU6")
def relu6_fields(module: nn.ReLU6, out: FieldWriter) -> dict[str, object]:
    return {"inplace": module.inplace}


@register("nn.HardTanh", "nn.Clamp")
def hard_tanh(fields: Fields) -> nn.Hardtanh:
    """Both have gradient 0 at the bounds themselves, as PyTorch's Hardtanh (and unlike torch.clamp)."""
    return nn.Hardtanh(
        float(fields.number("min_val", default=-1)), float(fields.number("max_val", default=1)), _is_inplace(fields)
    )


@writes(nn.Hardtanh, "nn.HardTanh", "nn.Clamp")
def hard_tanh_fields(module: nn.Hardtanh, out: FieldWriter) -> dict[str, object]:
    return {"min_val": module.min_val, "max_val": module.max_val, "inplace": module.inplace}


@register("cudnn.ClippedReLU")
def clipped_relu(fields: Fields) -> nn.Hardtanh:
    """min(max(x, 0), ceiling)"""
    return nn.Hardtanh(0.0, float(fields.number("ceiling")), _is_inplace(fields))


@register("nn.HardShrink")
def hard_shrink(fields: Fields) -> nn.Hardshrink:
    return nn.Hardshrink(float(fields.number("lambda", default=0.5)))


@register("nn.SoftShrink")
def soft_shrink(fields: Fields) -> nn.Softshrink:
    return nn.Softshrink(float(fields.number("lambda", default=0.5)))


@writes(nn.Hardshrink, "nn.HardShrink")
@writes(nn.Softshrink, "nn.SoftShrink")
def shrink_fields(module: nn.Hardshrink | nn.Softshrink, out: FieldWriter) -> dict[str, object]:
    return {"lambda": module.lambd}


@register("nn.SoftPlus")
def soft_plus(fields: Fields) -> nn.Softplus:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold (20 since 2014)."""
    return nn.Softplus(float(fields.number("beta", default=1)), float(fields.number("threshold", default=20)))


@writes(nn.Softplus, "nn.SoftPlus")
def soft_plus_fields(module: nn.Softplus, out: FieldWriter) -> dict[str, object]:
    return {"beta": module.beta, "threshold": module.threshold}


@register("nn.ELU")
def elu(fields: Fields) -> nn.ELU:
    return nn.ELU(float(fields.number("alpha", default=1)), _is_inplace(fields))


@writes(nn.ELU, "nn.ELU")
def elu_fields(module: nn.ELU, out: FieldWriter) -> dict[str, object]:
    return {"alpha": module.alpha, "inplace": module.inplace}


@register("nn.LeakyReLU")
def leaky_relu(fields: Fields) -> nn.LeakyReLU:
    return nn.LeakyReLU(float(fields.number("negval", default=0.01)), _is_inplace(fields))


@writes(nn.LeakyReLU, "nn.LeakyReLU")
def leaky_relu_fields(module: nn.LeakyReLU, out: FieldWriter) -> dict[str, object]:
    return {"negval": module.negative_slope, "inplace": module.inplace}


@register("nn.TanhShrink")
def tanh_shrink(fields: Fields) -> nn.Tanhshrink:
    return nn.Tanhshrink()


@writes(nn.Tanhshrink, "nn.TanhShrink")
def tanh_shrink_fields(module: nn.Tanhshrink, out: FieldWriter) -> dict[str, object]:
    return {"tanh": out.module(nn.Tanh().train(module.training), "tanh")}


@register("nn.GatedLinearUnit")
def gated_linear_unit(fields: Fields) -> nn.GLU:
    """Halves along `dim`, which counts from 1; without it along the last dimension."""
    return nn.GLU(fields.integer("dim", default=0) - 1)


@writes(nn.GLU, "nn.GatedLinearUnit")
def gated_linear_unit_fields(module: nn.GLU, out: FieldWriter) -> dict[str, object]:
    return {"dim": None if module.dim == -1 else module.dim + 1}


class ChannelPReLU(nn.PReLU):
    """PReLU with a slope for each feature map of (C), (N, C), (C, H, W), (N, C, H, W) or (N, C, T, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() in (1, 3):
            return super().forward(x.unsqueeze(0)).squeeze(0)
        return super().forward(x)


@register("nn.PReLU")
def prelu(fields: Fields) -> nn.PReLU:
    """nOutputPlane 0 is one slope for all."""
    n_planes = fields.integer("nOutputPlane", default=0)
    weight = fields.parameter("weight", (max(n_planes, 1),))
    module = nn.PReLU() if n_planes == 0 else ChannelPReLU(n_planes, device="meta")
    module.weight = weight
    return module


@writes(nn.PReLU, "nn.PReLU")
@writes(ChannelPReLU, "nn.PReLU")
def prelu_fields(module: nn.PReLU, out: FieldWriter) -> dict[str, object]:
    is_shared = type(module) is nn.PReLU and module.num_parameters == 1
    return {"nOutputPlane": 0 if is_shared else module.num_parameters, **out.parameters(weight=module.weight)}


@register("nn.RReLU")
class RReLU(nn.Module):
    """nn.RReLU, with slopes from a Torch7 generator where one is set (THNN RReLU.c: one draw per x <= 0, in order)."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False):
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace
        self.generator: Generator | None = None

    @classmethod
    def from_t7(cls, fields: Fields) -> RReLU:
        lower, upper = fields.number("lower", default=1 / 8), fields.number("upper", default=1 / 3)
        return cls(float(lower), float(upper), _is_inplace(fields))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"lower": self.lower, "upper": self.upper, "inplace": self.inplace, "noise": out.empty()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.generator is None or not self.training:
            return nn.functional.rrelu(x, self.lower, self.upper, self.training, self.inplace)
        n_slopes = int((x <= 0).sum())
        slopes = np.array([self.generator.uniform(self.lower, self.upper) for _ in range(n_slopes)], np.float32)
        noise = torch.ones_like(x)
        noise[x <= 0] = torch.from_numpy(slopes).to(x)
        return x.mul_(noise) if self.inplace else x * noise

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"


class _SoftMax(nn.Module):
    """Over the features as Torch7 finds them: of (C), (N, C), (C, H, W) or (N, C, H, W) it is C.

    `whole_sample`: cudnn.SoftMax and cudnn.LogSoftMax (CUDNN_SOFTMAX_MODE_INSTANCE) take C, H and W together.
    """

    def __init__(self, whole_sample: bool = False):
        super().__init__()
        self.whole_sample = whole_sample

    @classmethod
    def from_t7(cls, fields: Fields) -> _SoftMax:
        return cls(whole_sample=fields.typename in ("cudnn.SoftMax", "cudnn.LogSoftMax"))

    def _over_features(self, function: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        dim = feature_dimension(x)
        if self.whole_sample and x.dim() > 2:
            return function(x.flatten(dim), dim).view_as(x)
        return function(x, dim)


@register("nn.SoftMax", "nn.SpatialSoftMax", "cudnn.SoftMax", "cudnn.SpatialSoftMax", "cudnn.VolumetricSoftMax")
class SoftMax(_SoftMax):
    """exp(x) / sum(exp(x)) over the features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._over_features(torch.softmax, x)


@register(
    "nn.LogSoftMax",
    "nn.SpatialLogSoftMax",
    "cudnn.LogSoftMax",
    "cudnn.SpatialLogSoftMax",
    "cudnn.VolumetricLogSoftMax",
)
class LogSoftMax(_SoftMax):
    """log(softmax(x)) over the features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._over_features(torch.log_softmax, x)


@writes(nn.Softmax, "nn.SoftMax")
@writes(nn.LogSoftmax, "nn.LogSoftMax")
def softmax_fields(module: nn.Softmax | nn.LogSoftmax, out: FieldWriter) -> dict[str, object]:
    """Made in PyTorch: over dimension 1, as Torch7's for batches."""
    if module.dim != 1:
        raise out.error(f"{module} has no Torch7 class: only dim=1 is written")
    return {}


@register("nn.SoftMin")
class SoftMin(_SoftMax):
    """softmax(-x) over the features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._over_features(torch.softmax, -x)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"mininput": out.empty()}


@register("nn.Power")
class Power(Layer):
    """x ** pow"""

    pow: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**self.pow


@register("nn.Sqrt")
class Sqrt(Layer):
    """sqrt(x), with a gradient of 0 where it is 0 (THNN Sqrt.c, which ignores eps)."""

    eps: float = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_zero = x == 0
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, x).sqrt())


@register("nn.Square")
class Square(Layer):
    """x * x"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


@register("nn.Exp")
class Exp(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


@register("nn.Log")
class Log(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


@register("nn.Abs")
class Abs(Layer):
    """|x|; the gradient at 0 is THNN's, 1 (Abs.c: z >= 0)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x >= 0, x, -x)
