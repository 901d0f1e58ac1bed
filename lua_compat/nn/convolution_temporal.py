"""Convolutions and poolings over sequences: (T, F) or (N, T, F), frames before features."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register

__all__ = [
    "TemporalConvolution",
    "TemporalDynamicKMaxPooling",
    "TemporalMaxPooling",
    "TemporalRowConvolution",
    "TemporalSubSampling",
]


@register("nn.TemporalConvolution", "cudnn.TemporalConvolution")
class TemporalConvolution(nn.Module):
    """weight (O, kW * F): the frames of a window one after the other; bias (O) (THNN TemporalConvolution.c)."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.kernel = kernel
        self.stride = stride
        self.padding = padding  # only cudnn's class has one

    @classmethod
    def from_t7(cls, fields: Fields) -> TemporalConvolution:
        of_cudnn = fields.typename.startswith("cudnn.")  # a convolution over a picture that is F wide
        kernel = fields.integer("kH" if of_cudnn else "kW")
        n_inputs, n_outputs = fields.integer("inputFrameSize"), fields.integer("outputFrameSize")
        weight = fields.parameter("weight", (n_outputs, kernel * n_inputs), may_be_flat=True)
        stride = fields.integer("dH" if of_cudnn else "dW", default=1)
        padding = fields.integer("padH", default=0) if of_cudnn else 0
        return cls(weight, fields.parameter("bias", (n_outputs,)), kernel, stride, padding)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        n_outputs, n_inputs = len(self.weight), self.weight.shape[1] // self.kernel
        sizes: dict[str, object] = {"kW": self.kernel, "dW": self.stride}
        if self.padding or out.typename == "cudnn.TemporalConvolution":
            out.write_as("cudnn.TemporalConvolution")
            sizes = {"kH": self.kernel, "dH": self.stride, "padH": self.padding, "padW": 0, "kW": n_inputs, "dW": 1}
            sizes |= {"nInputPlane": 1, "nOutputPlane": n_outputs, "groups": 1}
        frames = {"inputFrameSize": n_inputs, "outputFrameSize": n_outputs}
        return {**frames, **sizes, **out.parameters(weight=self.weight, bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.reshape(len(self.weight), self.kernel, -1).transpose(1, 2)
        return functional.conv1d(x.mT, weight, self.bias, self.stride, self.padding).mT

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


@register("nn.TemporalRowConvolution")
class TemporalRowConvolution(nn.Module):
    """A kernel of its own for each feature: weight (F, 1, kW), bias (F) or none.

    `feature_first`: the input is (F, T) or (N, F, T).
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, stride: int = 1, feature_first: bool = False):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.stride = stride
        self.feature_first = feature_first

    @classmethod
    def from_t7(cls, fields: Fields) -> TemporalRowConvolution:
        n_features = fields.integer("inputFrameSize")
        weight = fields.parameter("weight", (n_features, 1, fields.integer("kW")))
        bias = fields.parameter("bias", (n_features,)) if "bias" in fields else None
        return cls(weight, bias, fields.integer("dW", default=1), fields.boolean("featFirst", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        sizes = {"inputFrameSize": len(self.weight), "kW": self.weight.shape[2], "dW": self.stride}
        return {**sizes, "featFirst": self.feature_first, **out.parameters(weight=self.weight, bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.feature_first else x.mT
        y = functional.conv1d(x, self.weight, self.bias, self.stride, groups=len(self.weight))
        return y if self.feature_first else y.mT


@register("nn.TemporalSubSampling")
class TemporalSubSampling(nn.Module):
    """weight * sum over a window + bias, for each feature (THNN TemporalSubSampling.c)."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, kernel: int, stride: int = 1):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.kernel = kernel
        self.stride = stride

    @classmethod
    def from_t7(cls, fields: Fields) -> TemporalSubSampling:
        shape = (fields.integer("inputFrameSize"),)
        weight, bias = fields.parameter("weight", shape), fields.parameter("bias", shape)
        return cls(weight, bias, fields.integer("kW"), fields.integer("dW", default=1))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        sizes = {"inputFrameSize": len(self.weight), "kW": self.kernel, "dW": self.stride}
        return {**sizes, **out.parameters(weight=self.weight, bias=self.bias)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unfold(-2, self.kernel, self.stride).sum(-1) * self.weight + self.bias


@register("nn.TemporalMaxPooling")
class TemporalMaxPooling(nn.Module):
    """The maximum over windows of frames, for each feature."""

    def __init__(self, kernel: int, stride: int | None = None):
        super().__init__()
        self.kernel = kernel
        self.stride = kernel if stride is None else stride

    @classmethod
    def from_t7(cls, fields: Fields) -> TemporalMaxPooling:
        kernel = fields.integer("kW")
        return cls(kernel, fields.integer("dW", default=kernel))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"kW": self.kernel, "dW": self.stride}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool1d(x.mT, self.kernel, self.stride).mT

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


@register("nn.TemporalDynamicKMaxPooling")
class TemporalDynamicKMaxPooling(Layer):
    """The k largest numbers of each feature in their order; k = max(min_k, ceil(factor * T))."""

    min_k: int
    factor: float = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k = max(self.min_k, math.ceil(self.factor * x.shape[-2]))
        indices = x.topk(k, dim=-2).indices.sort(dim=-2).values
        return x.gather(-2, indices)
