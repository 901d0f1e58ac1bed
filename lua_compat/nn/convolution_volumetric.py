"""Convolutions over volumes: (C, T, H, W) or (N, C, T, H, W) (nn/VolumetricConvolution.lua and its relatives)."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.convolution import adjustments, kernel_fields, plane_fields, whole_padding
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["VolumetricFullConvolution"]


def three(fields: Fields, prefix: str, default: int | None = None) -> tuple[int, int, int]:
    """The fields PREFIXT, PREFIXH, PREFIXW in PyTorch's order."""
    t, h, w = (fields.integer(f"{prefix}{axis}", default) for axis in "THW")
    return t, h, w


@register("nn.VolumetricConvolution", "nn.VolumetricDilatedConvolution", "cudnn.VolumetricConvolution")
def volumetric_convolution(fields: Fields) -> nn.Conv3d:
    """Torch7's weight is (O, I, kT, kH, kW) as PyTorch's."""
    n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
    kernel, groups = three(fields, "k"), fields.integer("groups", default=1)
    convolution = nn.Conv3d(
        n_inputs,
        n_outputs,
        kernel,
        stride=three(fields, "d", default=1),
        padding=three(fields, "pad", default=0),
        dilation=three(fields, "dilation", default=1),
        groups=groups,
        bias="bias" in fields,
        device="meta",
    )
    shape = (n_outputs, n_inputs // groups, *kernel)
    convolution.weight = fields.parameter("weight", shape, may_be_flat=fields.array("weight").ndim == 2)
    if convolution.bias is not None:
        convolution.bias = fields.parameter("bias", (n_outputs,))
    return convolution


@writes(nn.Conv3d, "nn.VolumetricConvolution", "nn.VolumetricDilatedConvolution", "cudnn.VolumetricConvolution")
def conv3d_fields(module: nn.Conv3d, out: FieldWriter) -> dict[str, object]:
    if isinstance(module.padding, str) or module.padding_mode != "zeros" or module.groups != 1:
        raise out.error(f"{module} has no Torch7 class: only zero padding in numbers and no groups are written")
    if module.dilation != (1, 1, 1):
        out.write_as("nn.VolumetricDilatedConvolution")
    with_dilation = out.typename == "nn.VolumetricDilatedConvolution"
    dilation = zip("THW", module.dilation, strict=True)
    return {
        **plane_fields(module),
        **kernel_fields(module.kernel_size, module.stride, module.padding, "THW"),
        **{f"dilation{axis}": size if with_dilation else None for axis, size in dilation},
        **out.parameters(weight=module.weight, bias=module.bias),
    }


class VolumetricFullConvolution(nn.ConvTranspose3d):
    """nn.ConvTranspose3d; of a table {x, target} the result has the size of the target."""

    def forward(self, x: torch.Tensor | list[torch.Tensor], output_size: list[int] | None = None) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            return super().forward(x, output_size)
        adjustment = adjustments(self, x[1].shape[-3:])
        padding = whole_padding(self)
        return nn.functional.conv_transpose3d(x[0], self.weight, self.bias, self.stride, padding, adjustment)


@register("nn.VolumetricFullConvolution", "cudnn.VolumetricFullConvolution")
def volumetric_full_convolution(fields: Fields) -> VolumetricFullConvolution:
    """Torch7's weight is (I, O, kT, kH, kW) as PyTorch's; before it had adjW (2016) it was (O, I, kT, kH, kW)."""
    n_inputs, n_outputs = fields.integer("nInputPlane"), fields.integer("nOutputPlane")
    kernel = three(fields, "k")
    convolution = VolumetricFullConvolution(
        n_inputs,
        n_outputs,
        kernel,
        stride=three(fields, "d", default=1),
        padding=three(fields, "pad" if "padW" in fields else "p", default=0),
        output_padding=three(fields, "adj", default=0),
        bias="bias" in fields,
        device="meta",
    )
    if "adjW" in fields:
        convolution.weight = fields.parameter("weight", (n_inputs, n_outputs, *kernel))
    else:
        weight = fields.array("weight", (n_outputs, n_inputs, *kernel)).swapaxes(0, 1)
        convolution.weight = nn.Parameter(torch.from_numpy(weight.copy()))
    if convolution.bias is not None:
        convolution.bias = fields.parameter("bias", (n_outputs,))
    return convolution


@writes(nn.ConvTranspose3d, "nn.VolumetricFullConvolution", "cudnn.VolumetricFullConvolution")
@writes(VolumetricFullConvolution, "nn.VolumetricFullConvolution", "cudnn.VolumetricFullConvolution")
def volumetric_full_fields(module: nn.ConvTranspose3d, out: FieldWriter) -> dict[str, object]:
    if isinstance(module.padding, str) or module.groups != 1 or module.dilation != (1, 1, 1):
        raise out.error(f"{module} has no Torch7 class: it has groups or dilation")
    adjustment = zip("THW", module.output_padding, strict=True)
    return {
        **plane_fields(module),
        **kernel_fields(module.kernel_size, module.stride, module.padding, "THW"),
        **{f"adj{axis}": size for axis, size in adjustment},
        **{"ones": out.empty(), "finput": out.empty(), "fgradInput": out.empty()},
        **out.parameters(weight=module.weight, bias=module.bias),
    }
