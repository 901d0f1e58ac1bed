"""Criterions on tables of inputs, and criterions made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import lua_compat
from lua_compat.nn.criterion import CRITERION_FIELDS, Criterion, reduced
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register
from lua_compat.nn.simple_math import cosine
from lua_compat.values import LuaTable

__all__ = [
    "CosineEmbeddingCriterion",
    "DistanceRatioCriterion",
    "HingeEmbeddingCriterion",
    "L1HingeEmbeddingCriterion",
    "MarginRankingCriterion",
    "ModuleCriterion",
    "MultiCriterion",
    "ParallelCriterion",
]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]
Side = torch.Tensor | float  # 1: alike, -1: not alike


@register("nn.HingeEmbeddingCriterion")
class HingeEmbeddingCriterion(Criterion):
    """x for targets of 1, max(0, margin - x) for targets of -1."""

    margin: float = 1.0
    size_average: bool = True

    def forward(self, x: torch.Tensor, target: Side) -> torch.Tensor:
        side = torch.as_tensor(target, device=x.device)
        losses = torch.where(side == -1, 0, x) + torch.where(side == 1, 0, (self.margin - x).clamp(min=0))
        return reduced(losses, self.size_average)


@register("nn.L1HingeEmbeddingCriterion")
class L1HingeEmbeddingCriterion(Criterion):
    """The sum of |a - b| for a target of 1, max(0, margin - it) for -1."""

    n_gradients = 2

    margin: float = 1.0

    def forward(self, x: Table, target: Side) -> torch.Tensor:
        distance = (x[0] - x[1]).abs().sum()
        return (self.margin - distance).clamp(min=0) if float(target) == -1 else distance


@register("nn.CosineEmbeddingCriterion")
class CosineEmbeddingCriterion(Criterion):
    """1 - cos(a, b) for targets of 1, max(0, cos(a, b) - margin) for -1; rows of (D) or (N, D)."""

    n_gradients = 2

    margin: float = 0.0
    size_average: bool = True

    def forward(self, x: Table, target: Side) -> torch.Tensor:
        similarity = cosine(*x)
        side = torch.as_tensor(target, device=similarity.device).reshape(-1)
        losses = torch.where(side == 1, 1 - similarity, similarity)
        return reduced(torch.where(side == -1, (similarity - self.margin).clamp(min=0), losses), self.size_average)


@register("nn.MarginRankingCriterion")
class MarginRankingCriterion(Criterion):
    """max(0, margin - t (a - b)) for targets of 1 and -1."""

    margin: float = 1.0
    size_average: bool = True

    def forward(self, x: Table, target: Side) -> torch.Tensor:
        return reduced((self.margin - target * (x[0] - x[1])).clamp(min=0), self.size_average)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """Torch7 writes into gradInput[1][1]."""
        gradients = [out.tensor(torch.zeros(1)) for _ in range(2)]
        return {**super().to_t7(out), "gradInput": LuaTable(gradients)}


@register("nn.DistanceRatioCriterion")
class DistanceRatioCriterion(Criterion):
    """-log(exp(-a) / (exp(-a) + exp(-b))) for distances {a, b}; there is no target."""

    table_fields = ("gradInput",)

    size_average: bool = True

    def forward(self, x: Table, target: object = None) -> torch.Tensor:
        return reduced(x[0] + torch.logaddexp(-x[0], -x[1]), self.size_average)


@register("nn.MultiCriterion")
class MultiCriterion(nn.Module):
    """The weighted sum of criterions on the same input and target."""

    def __init__(self, criterions: list[nn.Module], weights: tuple[float, ...]):
        super().__init__()
        self.criterions = nn.ModuleList(criterions)
        self.weights = weights

    @classmethod
    def from_t7(cls, fields: Fields) -> MultiCriterion:
        criterions, weights = fields.children("criterions"), fields.value("weights")
        numbers = weights.to_list() if isinstance(weights, LuaTable) else fields.array("weights").reshape(-1).tolist()
        if len(numbers) != len(criterions) or not all(isinstance(number, int | float) for number in numbers):
            raise fields.error(f"field weights should hold a number for each of its {len(criterions)} criterions")
        return cls(criterions, tuple(float(number) for number in numbers))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        weights = lua_compat.storage(np.array(self.weights, np.float64))
        return {**CRITERION_FIELDS, "criterions": out.children(self.criterions, "criterions"), "weights": weights}

    def forward(self, x: Any, target: Any) -> torch.Tensor:
        return self._total(lambda criterion, position: criterion(x, target))

    def _total(self, loss_of: Callable[[nn.Module, int], torch.Tensor]) -> torch.Tensor:
        losses = [loss_of(criterion, position) for position, criterion in enumerate(self.criterions)]
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()


@register("nn.ParallelCriterion")
class ParallelCriterion(MultiCriterion):
    """The weighted sum of criterions, each on its entry of the input and of the target (or on the one target)."""

    def __init__(self, criterions: list[nn.Module], weights: tuple[float, ...], repeat_target: bool = False):
        super().__init__(criterions, weights)
        self.repeat_target = repeat_target

    @classmethod
    def from_t7(cls, fields: Fields) -> ParallelCriterion:
        criterion = super().from_t7(fields)
        repeat_target = fields.boolean("repeatTarget", default=False)
        return cls(list(criterion.criterions), criterion.weights, repeat_target)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        tables = {"weights": LuaTable(list(self.weights)), "gradInput": LuaTable()}
        return {**super().to_t7(out), **tables, "repeatTarget": self.repeat_target or None}

    def forward(self, x: Any, target: Any) -> torch.Tensor:
        return self._total(
            lambda criterion, position: criterion(x[position], target if self.repeat_target else target[position])
        )


@register("nn.ModuleCriterion")
class ModuleCriterion(nn.Module):
    """A criterion whose input, target or both first go through a module."""

    def __init__(self, criterion: nn.Module, input_module: nn.Module | None, target_module: nn.Module | None):
        super().__init__()
        self.criterion = criterion
        self.input_module = input_module
        self.target_module = target_module

    @classmethod
    def from_t7(cls, fields: Fields) -> ModuleCriterion:
        modules = [fields.module(name) if name in fields else None for name in ("inputModule", "targetModule")]
        return cls(fields.module("criterion"), *modules)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        modules = {"criterion": self.criterion, "inputModule": self.input_module, "targetModule": self.target_module}
        written = {name: None if module is None else out.module(module, name) for name, module in modules.items()}
        return {**CRITERION_FIELDS, **written, "castTarget": True}

    def forward(self, x: Any, target: Any) -> torch.Tensor:
        x = x if self.input_module is None else self.input_module(x)
        target = target if self.target_module is None else self.target_module(target)
        loss: torch.Tensor = self.criterion(x, target)
        return loss
