"""Convolutions over pictures (nn/SpatialConvolution.lua and its relatives, cudnn.torch SpatialConvolution.lua)."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes, writes_only

__all__ = ["SpatialFullConvolution", "SpatialSubSampling"]


@register(
    "nn.SpatialConvolution", "nn.SpatialConvolutionMM", "nn.SpatialDilatedConvolution", "cudnn.SpatialConvolution"
)
def spatial_convolution(fields: Fields) -> nn.Conv2d:
    """Torch7's weight is (O, I/groups, kH, kW) as PyTorch's.

    nn.SpatialConvolutionMM, and nn.SpatialConvolution until 2016, keep it as (O, I*kH*kW).
    """
    n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
    kernel = (fields.integer("kH"), fields.integer("kW"))
    groups = fields.integer("groups", default=1)
    padding = fields.integer("padding", default=0)  # one field for both directions until October 2014
    if groups < 1 or n_inputs % groups or n_outputs % groups:
        raise fields.error(f"{groups} groups do not divide {n_inputs} input and {n_outputs} output planes")
    convolution = nn.Conv2d(
        n_inputs,
        n_outputs,
        kernel,
        groups=groups,
        bias="bias" in fields,
        stride=(fields.integer("dH", default=1), fields.integer("dW", default=1)),
        padding=(fields.integer("padH", default=padding), fields.integer("padW", default=padding)),
        dilation=(fields.integer("dilationH", default=1), fields.integer("dilationW", default=1)),
        device="meta",  # no memory and no numbers for parameters that are replaced at once
    )
    shape = (n_outputs, n_inputs // groups, *kernel)
    convolution.weight = fields.parameter("weight", shape, may_be_flat=fields.array("weight").ndim == 2)
    if convolution.bias is not None:
        convolution.bias = fields.parameter("bias", (n_outputs,))
    return convolution


@writes(
    nn.Conv2d,
    "nn.SpatialConvolution",
    "nn.SpatialConvolutionMM",
    "nn.SpatialDilatedConvolution",
    "cudnn.SpatialConvolution",
)
def conv2d_fields(module: nn.Conv2d, out: FieldWriter) -> dict[str, object]:
    """A convolution made in PyTorch becomes the class that can do what it does."""
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise out.error(f"{module} has no Torch7 class: only zero padding given in numbers is written")
    is_dilated = module.dilation != (1, 1)
    if is_dilated and module.groups != 1:
        raise out.error(f"{module} has no Torch7 class: none has both dilation and groups")
    if is_dilated:
        out.write_as("nn.SpatialDilatedConvolution")
    elif module.groups != 1:
        out.write_as("cudnn.SpatialConvolution")
    with_dilation = out.typename == "nn.SpatialDilatedConvolution"
    with_groups = out.typename == "cudnn.SpatialConvolution" or None
    fields = {
        **plane_fields(module),
        **kernel_fields(module.kernel_size, module.stride, module.padding),
        "dilationW": module.dilation[1] if with_dilation else None,
        "dilationH": module.dilation[0] if with_dilation else None,
        "groups": with_groups and module.groups,
        "padding": None,
        **out.parameters(weight=module.weight, bias=module.bias),
    }
    if out.typename == "nn.SpatialConvolutionMM":
        flat = {"weight": out.tensor(module.weight), "gradWeight": out.gradient(module.weight)}
        fields |= {name: tensor.reshape(len(module.weight), -1) for name, tensor in flat.items()}
    return fields


def plane_fields(module: nn.modules.conv._ConvNd) -> dict[str, object]:
    """The numbers of planes."""
    return {"nInputPlane": module.in_channels, "nOutputPlane": module.out_channels}


def kernel_fields(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], names: str = "HW"
) -> dict[str, object]:
    """The fields kW, kH, dW, dH, padW, padH (and kT, dT, padT where `names` is "THW") from PyTorch's tuples."""
    fields: dict[str, object] = {}
    for prefix, sizes in (("k", kernel), ("d", stride), ("pad", padding)):
        fields.update({f"{prefix}{name}": size for name, size in zip(names, sizes, strict=True)})
    return fields


@register("nn.SpatialDepthWiseConvolution")
def depth_wise_convolution(fields: Fields) -> nn.Conv2d:
    """Output planes m * I to m * I + m - 1 come from input plane m: PyTorch's convolution in I groups.

    Torch7's weight is (m, I * kH * kW), bias (m, I), PyTorch's (I * m, 1, kH, kW) and (I * m).
    """
    n_inputs, multiplier = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
    kernel = (fields.integer("kH"), fields.integer("kW"))
    padding = fields.integer("padding", default=0)
    convolution = nn.Conv2d(
        n_inputs,
        n_inputs * multiplier,
        kernel,
        groups=n_inputs,
        bias="bias" in fields,
        stride=(fields.integer("dH", default=1), fields.integer("dW", default=1)),
        padding=(fields.integer("padH", default=padding), fields.integer("padW", default=padding)),
        device="meta",
    )
    weight = fields.array("weight").reshape(multiplier, n_inputs, *kernel)
    convolution.weight = nn.Parameter(torch.from_numpy(weight.swapaxes(0, 1).reshape(-1, 1, *kernel).copy()))
    if convolution.bias is not None:
        bias = fields.array("bias", (multiplier, n_inputs))
        convolution.bias = nn.Parameter(torch.from_numpy(bias.T.flatten()))
    return convolution


@writes_only(nn.Conv2d, "nn.SpatialDepthWiseConvolution")
def depth_wise_fields(module: nn.Conv2d, out: FieldWriter) -> dict[str, object]:
    n_inputs, multiplier = module.in_channels, module.out_channels // module.in_channels

    def transposed(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().reshape(n_inputs, multiplier, -1).transpose(0, 1).reshape(multiplier, -1).contiguous()

    fields: dict[str, object] = {}
    for name, parameter in (("weight", module.weight), ("bias", module.bias)):
        if parameter is not None:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            fields[name] = out.tensor(transposed(parameter))
            fields[f"grad{name.title()}"] = out.tensor(transposed(gradient))
    padding = module.padding if not isinstance(module.padding, str) else (0, 0)
    kernel = kernel_fields(module.kernel_size, module.stride, padding)
    return {"nInputPlane": n_inputs, "nOutputPlane": multiplier, **kernel, **fields, "padding": None}


class SpatialFullConvolution(nn.ConvTranspose2d):
    """nn.ConvTranspose2d; of a table {x, target} the result has the height and width of the target.

    nn/SpatialFullConvolution.lua, calculateAdj.
    """

    def forward(self, x: torch.Tensor | list[torch.Tensor], output_size: list[int] | None = None) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            return super().forward(x, output_size)
        adjustment = adjustments(self, x[1].shape[-2:])
        padding = whole_padding(self)
        return nn.functional.conv_transpose2d(x[0], self.weight, self.bias, self.stride, padding, adjustment)


def whole_padding(module: nn.modules.conv._ConvNd) -> tuple[int, ...]:
    """The padding in numbers; "same" and "valid" mean nothing for a transposed convolution."""
    return (0,) * len(module.kernel_size) if isinstance(module.padding, str) else module.padding


def adjustments(module: nn.modules.conv._ConvNd, target: tuple[int, ...]) -> list[int]:
    """What to add to the size of a transposed convolution's output so that it is the target's."""
    sizes = zip(target, whole_padding(module), module.kernel_size, module.stride, strict=True)
    return [(n + 2 * pad - kernel) % stride for n, pad, kernel, stride in sizes]


@register("nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution")
def full_convolution(fields: Fields) -> SpatialFullConvolution:
    """Torch7's weight is (I, O, kH, kW) as PyTorch's."""
    n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
    kernel = (fields.integer("kH"), fields.integer("kW"))
    convolution = SpatialFullConvolution(
        n_inputs,
        n_outputs,
        kernel,
        bias="bias" in fields,
        stride=(fields.integer("dH", default=1), fields.integer("dW", default=1)),
        padding=(fields.integer("padH", default=0), fields.integer("padW", default=0)),
        output_padding=(fields.integer("adjH", default=0), fields.integer("adjW", default=0)),
        device="meta",
    )
    convolution.weight = fields.parameter("weight", (n_inputs, n_outputs, *kernel))
    if convolution.bias is not None:
        convolution.bias = fields.parameter("bias", (n_outputs,))
    return convolution


@writes(nn.ConvTranspose2d, "nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution")
@writes(SpatialFullConvolution, "nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution")
def full_convolution_fields(module: nn.ConvTranspose2d, out: FieldWriter) -> dict[str, object]:
    if isinstance(module.padding, str) or module.groups != 1 or module.dilation != (1, 1):
        raise out.error(f"{module} has no Torch7 class: it has groups or dilation")
    return {
        **plane_fields(module),
        **kernel_fields(module.kernel_size, module.stride, module.padding),
        "adjW": module.output_padding[1],
        "adjH": module.output_padding[0],
        "ones": out.empty(),
        **out.parameters(weight=module.weight, bias=module.bias),
    }


@register("nn.SpatialSubSampling")
class SpatialSubSampling(nn.Module):
    """weight * sum + bias over kernel windows, one weight and one bias for each plane (THNN SpatialSubSampling.c)."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, kernel: tuple[int, int], stride: tuple[int, int]):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.kernel = kernel
        self.stride = stride

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialSubSampling:
        shape = (fields.integer("nInputPlane"),)
        kernel = (fields.integer("kH"), fields.integer("kW"))
        stride = (fields.integer("dH", default=1), fields.integer("dW", default=1))
        return cls(fields.parameter("weight", shape), fields.parameter("bias", shape), kernel, stride)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        sizes = {k: v for k, v in kernel_fields(self.kernel, self.stride, (0, 0)).items() if "pad" not in k}
        parameters = out.parameters(weight=self.weight, bias=self.bias)
        return {"nInputPlane": len(self.weight), **sizes, **parameters}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = nn.functional.avg_pool2d(x, self.kernel, self.stride, divisor_override=1)
        return sums * self.weight[:, None, None] + self.bias[:, None, None]


@register("nn.SpatialConvolutionCUDA")
class SpatialConvolutionCUDA(nn.Module):
    """The batch-last convolution of 2012: (C, H, W, N) to (O, H', W', N), weight (I, kH, kW, O), bias later."""

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter | None, stride: tuple[int, int], padding: tuple[int, int]
    ):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.stride = stride
        self.padding = padding

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialConvolutionCUDA:
        n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
        weight = fields.parameter("weight", (n_inputs, fields.integer("kH"), fields.integer("kW"), n_outputs))
        padding = fields.integer("padding", default=0)
        return cls(
            weight,
            fields.parameter("bias", (n_outputs,)) if "bias" in fields else None,
            (fields.integer("dH", default=1), fields.integer("dW", default=1)),
            (fields.integer("padH", default=padding), fields.integer("padW", default=padding)),
        )

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        n_inputs, kernel_h, kernel_w, n_outputs = self.weight.shape
        sizes = kernel_fields((kernel_h, kernel_w), self.stride, self.padding)
        parameters = out.parameters(weight=self.weight, bias=self.bias)
        planes = {"nInputPlane": n_inputs, "nOutputPlane": n_outputs}
        return {**planes, **sizes, "padding": self.padding[0], **parameters}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.permute(3, 0, 1, 2)
        y = nn.functional.conv2d(x.permute(3, 0, 1, 2), weight, self.bias, self.stride, self.padding)
        return y.permute(1, 2, 3, 0)
