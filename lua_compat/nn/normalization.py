"""Batch normalisation (nn/BatchNormalization.lua, nn/SpatialBatchNormalization.lua)."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__: list[str] = []


@register("nn.SpatialBatchNormalization", "cudnn.SpatialBatchNormalization")
def spatial_batch_normalization(fields: Fields) -> nn.BatchNorm2d:
    """Torch7's momentum and unbiased running variance are PyTorch's own.

    Class version 1 kept running_std = 1 / sqrt(var + eps) in place of running_var.
    """
    eps = float(fields.number("eps", default=1e-5))
    running_mean = fields.buffer("running_mean")
    n_features = running_mean.shape[0]
    affine = "weight" in fields
    normalization = nn.BatchNorm2d(n_features, eps, float(fields.number("momentum", default=0.1)), affine)
    normalization.running_mean = running_mean
    if "running_var" in fields:
        normalization.running_var = fields.buffer("running_var", (n_features,))
    else:
        normalization.running_var = fields.buffer("running_std", (n_features,)).pow(-2) - eps
    if affine:
        normalization.weight = fields.parameter("weight", (n_features,))
        normalization.bias = fields.parameter("bias", (n_features,))
    return normalization


@writes(nn.BatchNorm2d, "nn.SpatialBatchNormalization")
def batch_norm2d_fields(module: nn.BatchNorm2d, out: FieldWriter) -> dict[str, object]:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        mean, variance = torch.zeros(module.num_features), torch.ones(module.num_features)
    return {
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.affine,
        "running_mean": out.tensor(mean),
        "running_var": out.tensor(variance),
        **out.parameters(weight=module.weight if module.affine else None, bias=module.bias if module.affine else None),
    }
