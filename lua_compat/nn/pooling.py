"""Poolings over pictures and volumes (nn/SpatialMaxPooling.lua and its relatives)."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.convolution_volumetric import three
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["FeatureLPPooling", "SummedAvgPool2d"]

Window = tuple[int, int]


def two(fields: Fields, prefix: str, default: int | None = None) -> Window:
    """The fields PREFIXH, PREFIXW in PyTorch's order."""
    return fields.integer(f"{prefix}H", default), fields.integer(f"{prefix}W", default)


def strides(fields: Fields, kernel: tuple[int, ...], names: str) -> tuple[int, ...]:
    """The fields dH, dW (dT); the kernel's sizes where they are missing."""
    return tuple(fields.integer(f"d{name}", default=size) for name, size in zip(names, kernel, strict=True))


def window_fields(module: nn.Module, names: str) -> dict[str, object]:
    """kH, dH, padH, ... and ceil_mode of a PyTorch pooling, whose sizes may be one number for all directions."""
    fields: dict[str, object] = {"ceil_mode": module.ceil_mode}
    for prefix, sizes in (("k", module.kernel_size), ("d", module.stride), ("pad", module.padding)):
        for position, name in enumerate(names):
            fields[f"{prefix}{name}"] = sizes if isinstance(sizes, int) else sizes[position]  # type: ignore[index]
    return fields


def dilation_fields(module: nn.MaxPool2d | nn.MaxPool3d, names: str, out: FieldWriter) -> dict[str, object]:
    """dilationH, ... where the class has them; a pooling with a dilation becomes that class."""
    sizes = (module.dilation,) * len(names) if isinstance(module.dilation, int) else tuple(module.dilation)
    dilated = {2: "nn.SpatialDilatedMaxPooling", 3: "nn.VolumetricDilatedMaxPooling"}[len(names)]
    if any(size != 1 for size in sizes):
        out.write_as(dilated)
    return {
        f"dilation{name}": size if out.typename == dilated else None for name, size in zip(names, sizes, strict=True)
    }


@register("nn.SpatialMaxPooling", "nn.SpatialDilatedMaxPooling", "cudnn.SpatialMaxPooling", "inn.SpatialMaxPooling")
def spatial_max_pooling(fields: Fields) -> nn.MaxPool2d:
    """inn's (imagine-nn) always rounds the size of its output up."""
    kernel = two(fields, "k")
    return nn.MaxPool2d(
        kernel,
        stride=strides(fields, kernel, "HW"),
        padding=two(fields, "pad", default=0),
        dilation=two(fields, "dilation", default=1),
        ceil_mode=fields.boolean("ceil_mode", default=fields.typename == "inn.SpatialMaxPooling"),
    )


@writes(
    nn.MaxPool2d,
    "nn.SpatialMaxPooling",
    "nn.SpatialDilatedMaxPooling",
    "cudnn.SpatialMaxPooling",
    "inn.SpatialMaxPooling",
)
def max_pool2d_fields(module: nn.MaxPool2d, out: FieldWriter) -> dict[str, object]:
    return {**window_fields(module, "HW"), **dilation_fields(module, "HW", out), "indices": out.indices()}


@register("nn.VolumetricMaxPooling", "nn.VolumetricDilatedMaxPooling", "cudnn.VolumetricMaxPooling")
def volumetric_max_pooling(fields: Fields) -> nn.MaxPool3d:
    kernel = three(fields, "k")
    return nn.MaxPool3d(
        kernel,
        stride=strides(fields, kernel, "THW"),
        padding=three(fields, "pad", default=0),
        dilation=three(fields, "dilation", default=1),
        ceil_mode=fields.boolean("ceil_mode", default=False),
    )


@writes(nn.MaxPool3d, "nn.VolumetricMaxPooling", "nn.VolumetricDilatedMaxPooling", "cudnn.VolumetricMaxPooling")
def max_pool3d_fields(module: nn.MaxPool3d, out: FieldWriter) -> dict[str, object]:
    return {**window_fields(module, "THW"), **dilation_fields(module, "THW", out), "indices": out.indices()}


class SummedAvgPool2d(nn.AvgPool2d):
    """The average times the size of the kernel: nn.SpatialAveragePooling without `divide`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel_size
        n_kernel = kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
        return super().forward(x) * n_kernel


@register("nn.SpatialAveragePooling", "cudnn.SpatialAveragePooling")
def spatial_average_pooling(fields: Fields) -> nn.AvgPool2d:
    """Files without ceil_mode (before 2015) have neither padding nor the choice to leave it out of the average.

    Files without `divide` (before 2014) hold poolings that sum; cudnn's always divide.
    """
    kernel = two(fields, "k")
    is_old = "ceil_mode" not in fields
    divides = fields.boolean("divide", default=fields.typename.startswith("cudnn."))
    pooling = nn.AvgPool2d if divides else SummedAvgPool2d
    return pooling(
        kernel,
        stride=two(fields, "d", default=1),
        padding=(0, 0) if is_old else two(fields, "pad", default=0),
        ceil_mode=fields.boolean("ceil_mode", default=False),
        count_include_pad=is_old or fields.boolean("count_include_pad", default=True),
    )


@writes(nn.AvgPool2d, "nn.SpatialAveragePooling", "cudnn.SpatialAveragePooling")
@writes(SummedAvgPool2d, "nn.SpatialAveragePooling")
def avg_pool2d_fields(module: nn.AvgPool2d, out: FieldWriter) -> dict[str, object]:
    if module.divisor_override is not None:
        raise out.error(f"{module} has no Torch7 class: it has a divisor of its own")
    divide = not isinstance(module, SummedAvgPool2d)
    return {**window_fields(module, "HW"), "count_include_pad": module.count_include_pad, "divide": divide}


@register("nn.VolumetricAveragePooling", "cudnn.VolumetricAveragePooling")
def volumetric_average_pooling(fields: Fields) -> nn.AvgPool3d:
    """nn's has neither padding nor ceil_mode, cudnn's has both."""
    kernel = three(fields, "k")
    return nn.AvgPool3d(
        kernel,
        stride=strides(fields, kernel, "THW"),  # type: ignore[arg-type]
        padding=three(fields, "pad", default=0),
        ceil_mode=fields.boolean("ceil_mode", default=False),
    )


@writes(nn.AvgPool3d, "nn.VolumetricAveragePooling", "cudnn.VolumetricAveragePooling")
def avg_pool3d_fields(module: nn.AvgPool3d, out: FieldWriter) -> dict[str, object]:
    fields = window_fields(module, "THW")
    if not module.count_include_pad or module.divisor_override is not None:
        raise out.error(f"{module} has no Torch7 class: it leaves out the padding or has a divisor of its own")
    if module.ceil_mode or any(fields[f"pad{axis}"] for axis in "THW"):
        out.write_as("cudnn.VolumetricAveragePooling")
    if out.typename == "nn.VolumetricAveragePooling":
        return {name: value for name, value in fields.items() if "pad" not in name and name != "ceil_mode"}
    return fields


@register("nn.SpatialAdaptiveAveragePooling")
def adaptive_average_pooling(fields: Fields) -> nn.AdaptiveAvgPool2d:
    return nn.AdaptiveAvgPool2d((fields.integer("H"), fields.integer("W")))


@register("nn.SpatialAdaptiveMaxPooling")
def adaptive_max_pooling(fields: Fields) -> nn.AdaptiveMaxPool2d:
    return nn.AdaptiveMaxPool2d((fields.integer("H"), fields.integer("W")))


@writes(nn.AdaptiveAvgPool2d, "nn.SpatialAdaptiveAveragePooling")
@writes(nn.AdaptiveMaxPool2d, "nn.SpatialAdaptiveMaxPooling")
def adaptive_fields(module: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, out: FieldWriter) -> dict[str, object]:
    size = module.output_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if height is None or width is None:
        raise out.error(f"{module} has no Torch7 class: one of its sizes is that of its input")
    indices = out.indices() if isinstance(module, nn.AdaptiveMaxPool2d) else None
    return {"H": height, "W": width, "indices": indices}


@register("nn.FeatureLPPooling")
class FeatureLPPooling(Layer):
    """(sum x^p)^(1/p) over windows of features: (D, ...), or (N, D, ...) where `batch_mode`.

    The gradient where the sum is 0 is 0 (THNN FeatureLPPooling.c).
    """

    width: int
    stride: int
    power: float
    batch_mode: bool = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dim = 1 if self.batch_mode else 0
        sums = x.pow(self.power).unfold(dim, self.width, self.stride).sum(-1)
        is_zero = sums == 0
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, sums).pow(1 / self.power))
