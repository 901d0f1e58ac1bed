"""Criterions: called with (input, target), class targets counted from 1 as in the Torch7 experiment.

Each gives a tensor without dimensions. The ones on a table of inputs are in criterion_pairs.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import Reader, register, writes
from lua_compat.nn.transfer import LogSoftMax

__all__ = [
    "BCECriterion",
    "ClassNLLCriterion",
    "ClassSimplexCriterion",
    "Criterion",
    "CrossEntropyCriterion",
    "DistKLDivCriterion",
    "L1Cost",
    "MarginCriterion",
    "MultiLabelMarginCriterion",
    "MultiLabelSoftMarginCriterion",
    "MultiMarginCriterion",
    "SpatialAutoCropMSECriterion",
    "WeightedMSECriterion",
]

CRITERION_FIELDS: dict[str, object] = {"output": 0, "train": None, "_type": None}  # those a criterion has or lacks


def reduced(losses: torch.Tensor, size_average: bool) -> torch.Tensor:
    return losses.mean() if size_average else losses.sum()


def reduction_of(fields: Fields) -> str:
    """PyTorch's name for Torch7's field sizeAverage."""
    return "mean" if fields.boolean("sizeAverage", default=True) else "sum"


def _same_in_pytorch(typename: str, module_class: type[nn.Module]) -> None:
    """Register a criterion on (input, target) of which only sizeAverage is to be said."""
    read: Reader = lambda fields: module_class(reduction=reduction_of(fields))  # noqa: E731
    register(typename)(read)

    @writes(module_class, typename)
    def fields(module: Any, out: FieldWriter) -> dict[str, object]:
        if module.reduction not in ("mean", "sum"):
            raise out.error(f"{module} has no Torch7 class: its reduction should be mean or sum")
        return {**CRITERION_FIELDS, "sizeAverage": module.reduction == "mean"}


_same_in_pytorch("nn.MSECriterion", nn.MSELoss)
_same_in_pytorch("nn.AbsCriterion", nn.L1Loss)
_same_in_pytorch("nn.SmoothL1Criterion", nn.SmoothL1Loss)
_same_in_pytorch("nn.SoftMarginCriterion", nn.SoftMarginLoss)


class Criterion(Layer):
    """A base for criterions of our own."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), **CRITERION_FIELDS}


@register("nn.DistKLDivCriterion")
class DistKLDivCriterion(Criterion):
    """t (log t - x) for log-probabilities x, averaged over all numbers."""

    size_average: bool = True

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return reduced(functional.kl_div(x, target, reduction="none"), self.size_average)


class _WeightedCriterion(nn.Module):
    """A base for criterions with weights for classes or outputs, and class targets that count from `index_base`."""

    def __init__(self, weights: torch.Tensor | None = None, size_average: bool = True, index_base: int = 1):
        super().__init__()
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights)
        self.size_average = size_average
        self.index_base = index_base

    @classmethod
    def from_t7(cls, fields: Fields) -> _WeightedCriterion:
        weights = fields.buffer("weights") if "weights" in fields else None
        return cls(weights, fields.boolean("sizeAverage", default=True), 0 if fields.zero_based else 1)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        weights = None if self.weights is None else out.tensor(self.weights)
        return {**CRITERION_FIELDS, "sizeAverage": self.size_average, "weights": weights}

    def classes(self, target: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
        """Class targets as PyTorch counts them, with the shape that belongs to the input's."""
        classes = torch.as_tensor(target, device=like.device).long() - self.index_base
        return classes.reshape(()) if like.dim() == 1 else classes


@register("nn.ClassNLLCriterion", "nn.SpatialClassNLLCriterion")
class ClassNLLCriterion(_WeightedCriterion):
    """Negative log likelihood of log-probabilities (C), (N, C) or (N, C, H, W), averaged over the (weighted) targets.

    nn/ClassNLLCriterion.lua; targets 1..C (or 0..C-1, with `index_base` 0); those equal to `ignore_index`, in the
    same counting, count nothing.
    """

    def __init__(
        self,
        weights: torch.Tensor | None = None,
        size_average: bool = True,
        ignore_index: int = -100,
        index_base: int = 1,
    ):
        super().__init__(weights, size_average, index_base)
        self.ignore_index = ignore_index

    @classmethod
    def from_t7(cls, fields: Fields) -> ClassNLLCriterion:
        weights = fields.buffer("weights") if "weights" in fields else None
        base = 0 if fields.zero_based else 1
        ignore_index = fields.integer("ignoreIndex", default=-100) + base - 1
        return cls(weights, fields.boolean("sizeAverage", default=True), ignore_index, base)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        numbers = {"output_tensor": torch.zeros(1), "total_weight_tensor": torch.ones(1)}
        buffers = {name: out.tensor(number) for name, number in numbers.items()}
        fields = {**super().to_t7(out), **buffers, "target": out.tensor(torch.zeros(1, dtype=torch.int64))}
        with_ignoring = out.typename == "nn.ClassNLLCriterion"
        return {**fields, "ignoreIndex": self.ignore_index - self.index_base + 1 if with_ignoring else None}

    def forward(self, x: torch.Tensor, target: torch.Tensor | int) -> torch.Tensor:
        return functional.nll_loss(
            x,
            self.classes(target, like=x),
            self.weights,
            ignore_index=self.ignore_index - self.index_base,
            reduction="mean" if self.size_average else "sum",
        )


@register("nn.CrossEntropyCriterion")
class CrossEntropyCriterion(nn.Module):
    """LogSoftMax and ClassNLLCriterion; dimensions of size 1 are dropped first (nn/CrossEntropyCriterion.lua)."""

    def __init__(self, nll: ClassNLLCriterion):
        super().__init__()
        self.nll = nll
        self.log_softmax = LogSoftMax()

    @classmethod
    def from_t7(cls, fields: Fields) -> CrossEntropyCriterion:
        nll = fields.module("nll")
        if not isinstance(nll, ClassNLLCriterion):
            raise fields.error(f"field nll should be a class criterion, found {type(nll).__name__}")
        return cls(nll)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        average = self.nll.size_average
        parts = {"nll": out.module(self.nll, "nll"), "lsm": out.module(self.log_softmax, "lsm")}
        return {**CRITERION_FIELDS, **parts, "sizeAverage": average, "oldSizeAverage": average}

    def forward(self, x: torch.Tensor, target: torch.Tensor | int) -> torch.Tensor:
        x = x.squeeze()
        target = target.squeeze() if isinstance(target, torch.Tensor) else target
        loss: torch.Tensor = self.nll(self.log_softmax(x), target)
        return loss


@register("cudnn.SpatialCrossEntropyCriterion", "cudnn.VolumetricCrossEntropyCriterion")
class SpatialCrossEntropyCriterion(CrossEntropyCriterion):
    """The same for (N, C, H, W), or (N, C, T, H, W), and targets without C."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        parts = {"nll": out.module(self.nll, "nll"), "slsm": out.module(self.log_softmax, "slsm")}
        return {**CRITERION_FIELDS, **parts, "sizeAverage": self.nll.size_average}

    def forward(self, x: torch.Tensor, target: torch.Tensor | int) -> torch.Tensor:
        loss: torch.Tensor = self.nll(torch.log_softmax(x, 1), target)
        return loss


@register("nn.BCECriterion")
class BCECriterion(_WeightedCriterion):
    """-(t log(x + eps) + (1 - t) log(1 - x + eps)), eps 1e-12 (THNN BCECriterion.c); weights for the outputs."""

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses = -(target * (x + 1e-12).log() + (1 - target) * (1 - x + 1e-12).log())
        return reduced(losses if self.weights is None else losses * self.weights, self.size_average)


@register("nn.MultiLabelSoftMarginCriterion")
class MultiLabelSoftMarginCriterion(_WeightedCriterion):
    """Binary cross entropy of sigmoid(x), averaged over all numbers; weights for the outputs."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "sigmoid": out.module(nn.Sigmoid(), "sigmoid")}

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses = functional.binary_cross_entropy_with_logits(x, target, self.weights, reduction="none")
        return reduced(losses, self.size_average)


@register("nn.MultiMarginCriterion")
class MultiMarginCriterion(_WeightedCriterion):
    """sum max(0, margin - x[target] + x)^p / C for (C) or (N, C)."""

    def __init__(
        self,
        weights: torch.Tensor | None = None,
        size_average: bool = True,
        index_base: int = 1,
        p: int = 1,
        margin: float = 1.0,
    ):
        super().__init__(weights, size_average, index_base)
        self.p = p
        self.margin = margin

    @classmethod
    def from_t7(cls, fields: Fields) -> MultiMarginCriterion:
        weights = fields.buffer("weights") if "weights" in fields else None
        average, base = fields.boolean("sizeAverage", default=True), 0 if fields.zero_based else 1
        p, margin = fields.integer("p", default=1), float(fields.number("margin", default=1))
        return cls(weights, average, base, p, margin)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "p": self.p, "margin": self.margin}

    def forward(self, x: torch.Tensor, target: torch.Tensor | int) -> torch.Tensor:
        reduction = "mean" if self.size_average else "sum"
        classes = self.classes(target, like=x)
        return functional.multi_margin_loss(x, classes, self.p, self.margin, self.weights, reduction=reduction)


@register("nn.MultiLabelMarginCriterion")
class MultiLabelMarginCriterion(_WeightedCriterion):
    """sum max(0, 1 - x[target] + x[other]) / C; the targets of a row end at the first 0 (or -1, counting from 0)."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "isTarget": out.empty()}

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        reduction = "mean" if self.size_average else "sum"
        return functional.multilabel_margin_loss(x, target.long() - self.index_base, reduction=reduction)


@register("nn.MarginCriterion")
class MarginCriterion(Criterion):
    """max(0, margin - t x) for targets of 1 and -1."""

    margin: float = 1.0
    size_average: bool = True

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return reduced((self.margin - target * x).clamp(min=0), self.size_average)


@register("nn.L1Cost")
class L1Cost(Criterion):
    """sum |x|; there is no target."""

    def forward(self, x: torch.Tensor, target: object = None) -> torch.Tensor:
        return x.abs().sum()


@register("nn.WeightedMSECriterion")
class WeightedMSECriterion(nn.Module):
    """(x - weight * t)^2, the weight that of one sample."""

    def __init__(self, weight: torch.Tensor, size_average: bool = True):
        super().__init__()
        self.weight: torch.Tensor
        self.register_buffer("weight", weight)
        self.size_average = size_average

    @classmethod
    def from_t7(cls, fields: Fields) -> WeightedMSECriterion:
        return cls(fields.buffer("weight"), fields.boolean("sizeAverage", default=True))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**CRITERION_FIELDS, "weight": out.tensor(self.weight), "sizeAverage": self.size_average}

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return reduced((x - target * self.weight).square(), self.size_average)


@register("nn.SpatialAutoCropMSECriterion")
class SpatialAutoCropMSECriterion(Criterion):
    """MSE with the middle of the target, as large as the input: (C, H, W) or (N, C, H, W)."""

    size_average: bool = True

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        top, left = (target.shape[-2] - height) // 2, (target.shape[-1] - width) // 2
        middle = target[..., top : top + height, left : left + width]
        return reduced((x - middle).square(), self.size_average)


@register("nn.ClassSimplexCriterion")
class ClassSimplexCriterion(nn.Module):
    """MSE with a corner of a regular simplex for each class; simplex (C, C) (nn/ClassSimplexCriterion.lua)."""

    def __init__(self, simplex: torch.Tensor, size_average: bool = True, index_base: int = 1):
        super().__init__()
        self.simplex: torch.Tensor
        self.register_buffer("simplex", simplex)
        self.size_average = size_average
        self.index_base = index_base

    @classmethod
    def from_t7(cls, fields: Fields) -> ClassSimplexCriterion:
        average = fields.boolean("sizeAverage", default=True)
        return cls(fields.buffer("simplex"), average, 0 if fields.zero_based else 1)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        n_classes = len(self.simplex)
        tensors = {"simplex": out.tensor(self.simplex), "_target": out.tensor(torch.zeros(n_classes))}
        return {**CRITERION_FIELDS, **tensors, "nClasses": n_classes, "sizeAverage": self.size_average}

    def forward(self, x: torch.Tensor, target: torch.Tensor | int) -> torch.Tensor:
        classes = torch.as_tensor(target, device=x.device).long() - self.index_base
        corners = self.simplex.index_select(0, classes.reshape(-1)).view_as(x)
        return reduced((x - corners).square(), self.size_average)
