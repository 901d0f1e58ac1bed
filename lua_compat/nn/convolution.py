"""Convolutions (nn/SpatialConvolution.lua, cudnn.torch SpatialConvolution.lua)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__: list[str] = []


@register("nn.SpatialConvolution", "nn.SpatialConvolutionMM", "cudnn.SpatialConvolution")
def spatial_convolution(fields: Fields) -> nn.Conv2d:
    """Torch7's weight is (O, I/groups, kH, kW) as PyTorch's; SpatialConvolutionMM keeps it as (O, I*kH*kW)."""
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
        device="meta",  # no memory and no numbers for parameters that are replaced at once
    )
    flat = fields.typename == "nn.SpatialConvolutionMM"
    convolution.weight = fields.parameter("weight", (n_outputs, n_inputs // groups, *kernel), may_be_flat=flat)
    if convolution.bias is not None:
        convolution.bias = fields.parameter("bias", (n_outputs,))
    return convolution


@writes(nn.Conv2d, "nn.SpatialConvolution")
def conv2d_fields(module: nn.Conv2d, out: FieldWriter) -> dict[str, object]:
    if isinstance(module.padding, str) or module.padding_mode != "zeros" or module.dilation != (1, 1):
        raise out.error(f"{module} has no Torch7 class yet: only zero padding in numbers and dilation 1 are written")
    (pad_h, pad_w), (kernel_h, kernel_w), (stride_h, stride_w) = module.padding, module.kernel_size, module.stride
    return {
        "nInputPlane": module.in_channels,
        "nOutputPlane": module.out_channels,
        "kW": kernel_w,
        "kH": kernel_h,
        "dW": stride_w,
        "dH": stride_h,
        "padW": pad_w,
        "padH": pad_h,
        "groups": module.groups,
        **out.parameters(weight=module.weight, bias=module.bias),
    }
