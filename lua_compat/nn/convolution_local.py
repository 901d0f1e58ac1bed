"""Convolutions with a connection table, and with a kernel of its own at each place."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.convolution import kernel_fields
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register

__all__ = ["SpatialConvolutionLocal", "SpatialConvolutionMap", "SpatialFullConvolutionMap"]


@register("nn.SpatialConvolutionMap")
class SpatialConvolutionMap(nn.Module):
    """One kernel for each row (input plane, output plane) of `connections`, which count from 1.

    weight (n, kH, kW), bias (O); computed as a convolution whose missing kernels are 0 (THNN SpatialConvolutionMap.c).
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, connections: torch.Tensor, stride: tuple[int, int]):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.connections: torch.Tensor
        self.register_buffer("connections", connections)
        self.stride = stride
        self.n_inputs = int(connections[:, 0].max())

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialConvolutionMap:
        connections = fields.buffer("connTable")
        if connections.dim() != 2 or connections.shape[1] != 2 or not len(connections) or connections.min() < 1:
            raise fields.error("field connTable should be rows of two plane numbers that count from 1")
        n_outputs = max(int(connections[:, 1].max()), fields.integer("nOutputPlane", default=1))
        kernel = (fields.integer("kH"), fields.integer("kW"))
        module = cls(
            fields.parameter("weight", (len(connections), *kernel)),
            fields.parameter("bias", (n_outputs,)),
            connections,
            (fields.integer("dH", default=1), fields.integer("dW", default=1)),
        )
        module.n_inputs = max(module.n_inputs, fields.integer("nInputPlane", default=1))
        return module

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        kernel = {"kH": self.weight.shape[1], "kW": self.weight.shape[2], "dH": self.stride[0], "dW": self.stride[1]}
        planes = {"nInputPlane": self.n_inputs, "nOutputPlane": len(self.bias)}
        parameters = out.parameters(weight=self.weight, bias=self.bias)
        return {**planes, **kernel, "connTable": out.tensor(self.connections), **parameters}

    def full_weight(self) -> torch.Tensor:
        """(O, I, kH, kW)"""
        source, target = self.connections.long().sub(1).unbind(1)
        full = self.weight.new_zeros(len(self.bias), self.n_inputs, *self.weight.shape[1:])
        return full.index_put((target, source), self.weight, accumulate=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.full_weight(), self.bias, self.stride)


@register("nn.SpatialFullConvolutionMap")
class SpatialFullConvolutionMap(SpatialConvolutionMap):
    """The same transposed: each input point is spread by the kernel (THNN SpatialFullConvolutionMap.c)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv_transpose2d(x, self.full_weight().transpose(0, 1), self.bias, self.stride)


@register("nn.SpatialConvolutionLocal")
class SpatialConvolutionLocal(nn.Module):
    """A convolution with another kernel at each place: weight (oH, oW, O, I, kH, kW), bias (O, oH, oW)."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, stride: tuple[int, int], padding: tuple[int, int]):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.stride = stride
        self.padding = padding
        self.input_size = (0, 0)  # only Torch7 wants to know it

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialConvolutionLocal:
        n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
        kernel, size = (fields.integer("kH"), fields.integer("kW")), (fields.integer("oH"), fields.integer("oW"))
        module = cls(
            fields.parameter("weight", (*size, n_outputs, n_inputs, *kernel), may_be_flat=True),
            fields.parameter("bias", (n_outputs, *size)),
            (fields.integer("dH", default=1), fields.integer("dW", default=1)),
            (fields.integer("padH", default=0), fields.integer("padW", default=0)),
        )
        module.input_size = (fields.integer("iH"), fields.integer("iW"))
        return module

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        out_h, out_w, n_outputs, n_inputs, *kernel = self.weight.shape
        sizes = {"oH": out_h, "oW": out_w, "iH": self.input_size[0], "iW": self.input_size[1]}
        planes = {"nInputPlane": n_inputs, "nOutputPlane": n_outputs}
        parameters = out.parameters(weight=self.weight, bias=self.bias)
        return {**planes, **sizes, **kernel_fields(tuple(kernel), self.stride, self.padding), **parameters}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        out_h, out_w, n_outputs, *kernel_shape = self.weight.shape
        kernel = (kernel_shape[1], kernel_shape[2])
        windows = functional.unfold(x, kernel, padding=self.padding, stride=self.stride)  # (N, I*kH*kW, oH*oW)
        weight = self.weight.reshape(out_h * out_w, n_outputs, -1)
        y = torch.einsum("nkp,pok->nop", windows, weight)
        return y.reshape(len(x), n_outputs, out_h, out_w) + self.bias
