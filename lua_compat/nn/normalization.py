"""Normalisations: over batches, over neighbouring maps, over neighbourhoods in pictures."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes
from lua_compat.nn.table import CDivTable, CSubTable

__all__ = [
    "BatchNormalization",
    "CrossMapLRN",
    "SpatialBatchNormalization",
    "SpatialContrastiveNormalization",
    "SpatialDivisiveNormalization",
    "SpatialSubtractiveNormalization",
    "VolumetricBatchNormalization",
]


class _OneSampleToo(nn.modules.batchnorm._BatchNorm):
    """What Torch7 does with one sample and PyTorch's classes refuse or do otherwise (nn/BatchNormalization.lua).

    In evaluation it needs no batch dimension, and gives one; in training too for features alone, for a View drops that
    dimension of a batch of one (Torch7 then stops). In training a batch of one is normalised by the running statistics
    and leaves them as they are.
    """

    n_dims: int  # of a batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == self.n_dims - 1 and (not self.training or self.n_dims == 2):
            x = x.unsqueeze(0)
        if self.training and x.dim() == self.n_dims and x.shape[0] == 1:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class BatchNormalization(_OneSampleToo, nn.BatchNorm1d):
    """nn.BatchNorm1d for (N, C), and (C) as a batch of one."""

    n_dims = 2


class SpatialBatchNormalization(_OneSampleToo, nn.BatchNorm2d):
    """nn.BatchNorm2d for (N, C, H, W), and (C, H, W) in evaluation."""

    n_dims = 4


class VolumetricBatchNormalization(_OneSampleToo, nn.BatchNorm3d):
    """nn.BatchNorm3d for (N, C, T, H, W), and (C, T, H, W) in evaluation."""

    n_dims = 5


BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_BATCH_NORMS: dict[str, type[BatchNormalization | SpatialBatchNormalization | VolumetricBatchNormalization]] = {
    "BatchNormalization": BatchNormalization,
    "SpatialBatchNormalization": SpatialBatchNormalization,
    "VolumetricBatchNormalization": VolumetricBatchNormalization,
}


@register(*(f"{package}.{name}" for package in ("nn", "cudnn") for name in _BATCH_NORMS))
def batch_normalization(
    fields: Fields,
) -> BatchNormalization | SpatialBatchNormalization | VolumetricBatchNormalization:
    """Torch7's momentum and unbiased running variance are PyTorch's own.

    Class version 1 kept running_std = 1 / sqrt(var + eps) in place of running_var.
    """
    eps = float(fields.number("eps", default=1e-5))
    running_mean = fields.buffer("running_mean")
    n_features = running_mean.shape[0]
    affine = "weight" in fields
    module_class = _BATCH_NORMS[fields.typename.partition(".")[2]]
    normalization = module_class(n_features, eps, float(fields.number("momentum", default=0.1)), affine)
    normalization.running_mean = running_mean
    if "running_var" in fields:
        normalization.running_var = fields.buffer("running_var", (n_features,))
    else:
        normalization.running_var = fields.buffer("running_std", (n_features,)).pow(-2) - eps
    if affine:
        normalization.weight = fields.parameter("weight", (n_features,))
        normalization.bias = fields.parameter("bias", (n_features,))
    return normalization


@writes(nn.BatchNorm1d, "nn.BatchNormalization", "cudnn.BatchNormalization")
@writes(nn.BatchNorm2d, "nn.SpatialBatchNormalization", "cudnn.SpatialBatchNormalization")
@writes(nn.BatchNorm3d, "nn.VolumetricBatchNormalization", "cudnn.VolumetricBatchNormalization")
@writes(BatchNormalization, "nn.BatchNormalization", "cudnn.BatchNormalization")
@writes(SpatialBatchNormalization, "nn.SpatialBatchNormalization", "cudnn.SpatialBatchNormalization")
@writes(VolumetricBatchNormalization, "nn.VolumetricBatchNormalization", "cudnn.VolumetricBatchNormalization")
def batch_norm_fields(module: BatchNorm, out: FieldWriter) -> dict[str, object]:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        raise out.error(f"{module} has no Torch7 class: it keeps no running statistics, which evaluation there takes")
    return {
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.affine,
        "running_mean": out.tensor(mean),
        "running_var": out.tensor(variance),
        **out.parameters(weight=module.weight if module.affine else None, bias=module.bias if module.affine else None),
    }


class CrossMapLRN(nn.LocalResponseNorm):
    """nn.LocalResponseNorm, for (C, H, W) as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return super().forward(x.unsqueeze(0)).squeeze(0)
        return super().forward(x)


@register("nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization")
def cross_map_lrn(fields: Fields) -> CrossMapLRN:
    """x / (k + alpha / size * sum x^2)^beta; cudnn.torch's first versions called k K."""
    k = fields.number("K" if "K" in fields else "k", default=1)
    alpha, beta = fields.number("alpha", default=1e-4), fields.number("beta", default=0.75)
    return CrossMapLRN(fields.integer("size"), float(alpha), float(beta), float(k))


@writes(nn.LocalResponseNorm, "nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN")
@writes(CrossMapLRN, "nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization")
def cross_map_lrn_fields(module: nn.LocalResponseNorm, out: FieldWriter) -> dict[str, object]:
    return {"size": module.size, "alpha": module.alpha, "beta": module.beta, "k": module.k, "K": None}


def frozen(network: nn.Module) -> nn.Module:
    """Its parameters as buffers: Torch7 does not learn them, and does not count them among the parameters."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return network


def part_of_ones(estimator: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the estimator finds in a picture of ones: the part of its window that lies inside, at each place."""
    with torch.no_grad():
        part: torch.Tensor = estimator(torch.ones_like(x[0] if x.dim() == 4 else x))
    return part


@register("nn.SpatialSubtractiveNormalization")
class SpatialSubtractiveNormalization(nn.Module):
    """x - its weighted mean over neighbourhoods and maps (nn/SpatialSubtractiveNormalization.lua)."""

    def __init__(self, mean_estimator: nn.Module, kernel: torch.Tensor, n_planes: int):
        super().__init__()
        self.mean_estimator = mean_estimator
        self.kernel: torch.Tensor
        self.register_buffer("kernel", kernel)
        self.n_planes = n_planes

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialSubtractiveNormalization:
        estimator = frozen(fields.module("meanestimator"))
        return cls(estimator, fields.buffer("kernel"), fields.integer("nInputPlane", default=1))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {
            **normalization_fields(self.kernel, self.n_planes, out),
            "meanestimator": out.module(self.mean_estimator, "meanestimator"),
            "subtractor": out.module(CSubTable().train(self.training), "subtractor"),
            "divider": out.module(CDivTable().train(self.training), "divider"),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means: torch.Tensor = self.mean_estimator(x) / part_of_ones(self.mean_estimator, x)  # ((N,) C, 1, H, W)
        return x - means.view_as(x)


@register("nn.SpatialDivisiveNormalization")
class SpatialDivisiveNormalization(nn.Module):
    """x / its weighted deviation over neighbourhoods and maps, where that is above a threshold."""

    def __init__(
        self,
        mean_estimator: nn.Module,
        deviation_estimator: nn.Module,
        kernel: torch.Tensor,
        n_planes: int,
        threshold: tuple[float, float] = (1e-4, 1e-4),
    ):
        super().__init__()
        self.mean_estimator = mean_estimator
        self.deviation_estimator = deviation_estimator
        self.kernel: torch.Tensor
        self.register_buffer("kernel", kernel)
        self.n_planes = n_planes
        self.thresholder = nn.Threshold(*threshold)

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialDivisiveNormalization:
        threshold = float(fields.number("threshold", default=1e-4))
        return cls(
            frozen(fields.module("meanestimator")),
            frozen(fields.module("stdestimator")),
            fields.buffer("kernel"),
            fields.integer("nInputPlane", default=1),
            (threshold, float(fields.number("thresval", default=threshold))),
        )

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {
            **normalization_fields(self.kernel, self.n_planes, out),
            "threshold": self.thresholder.threshold,
            "thresval": self.thresholder.value,
            "meanestimator": out.module(self.mean_estimator, "meanestimator"),
            "stdestimator": out.module(self.deviation_estimator, "stdestimator"),
            "normalizer": out.module(CDivTable().train(self.training), "normalizer"),
            "divider": out.module(CDivTable().train(self.training), "divider"),
            "thresholder": out.module(self.thresholder, "thresholder"),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviations = self.deviation_estimator(x) / part_of_ones(self.mean_estimator, x)
        thresholded: torch.Tensor = self.thresholder(deviations)
        return x / thresholded.view_as(x)


@register("nn.SpatialContrastiveNormalization")
class SpatialContrastiveNormalization(nn.Module):
    """First the subtractive, then the divisive normalisation."""

    def __init__(self, normalizer: nn.Module, kernel: torch.Tensor, n_planes: int, threshold: float, value: float):
        super().__init__()
        self.normalizer = normalizer
        self.kernel: torch.Tensor
        self.register_buffer("kernel", kernel)
        self.n_planes = n_planes
        self.threshold = threshold
        self.threshold_value = value

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialContrastiveNormalization:
        threshold = float(fields.number("threshold", default=1e-4))
        value = float(fields.number("thresval", default=threshold))
        n_planes = fields.integer("nInputPlane", default=1)
        return cls(fields.module("normalizer"), fields.buffer("kernel"), n_planes, threshold, value)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        fields = {"nInputPlane": self.n_planes, "kernel": out.tensor(self.kernel)}
        thresholds = {"threshold": self.threshold, "thresval": self.threshold_value}
        return {**fields, **thresholds, "normalizer": out.module(self.normalizer, "normalizer")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.normalizer(x)
        return result


def normalization_fields(kernel: torch.Tensor, n_planes: int, out: FieldWriter) -> dict[str, object]:
    """`coef` is computed anew by Torch7 because its size fits no picture."""
    return {"nInputPlane": n_planes, "kernel": out.tensor(kernel), "coef": out.tensor(torch.zeros(1, 1, 1))}
