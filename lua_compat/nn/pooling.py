"""Pooling (nn/SpatialMaxPooling.lua)."""

from __future__ import annotations

import numpy as np
from torch import nn

import lua_compat
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__: list[str] = []


@register("nn.SpatialMaxPooling", "cudnn.SpatialMaxPooling")
def spatial_max_pooling(fields: Fields) -> nn.MaxPool2d:
    kernel = (fields.integer("kH"), fields.integer("kW"))
    return nn.MaxPool2d(
        kernel,
        stride=(fields.integer("dH", default=kernel[0]), fields.integer("dW", default=kernel[1])),
        padding=(fields.integer("padH", default=0), fields.integer("padW", default=0)),
        ceil_mode=fields.boolean("ceil_mode", default=False),
    )


@writes(nn.MaxPool2d, "nn.SpatialMaxPooling")
def max_pool2d_fields(module: nn.MaxPool2d, out: FieldWriter) -> dict[str, object]:
    (kernel_h, kernel_w), (stride_h, stride_w) = _pair(module.kernel_size), _pair(module.stride)
    pad_h, pad_w = _pair(module.padding)
    return {
        "kW": kernel_w,
        "kH": kernel_h,
        "dW": stride_w,
        "dH": stride_h,
        "padW": pad_w,
        "padH": pad_h,
        "ceil_mode": module.ceil_mode,
        "indices": lua_compat.tensor(np.zeros(0, np.int64)),
    }


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
