"""Criterions: called with (input, target), class targets counted from 1 as in the Torch7 experiment."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register

__all__ = ["ClassNLLCriterion"]


@register("nn.ClassNLLCriterion")
class ClassNLLCriterion(nn.Module):
    """Negative log likelihood of log-probabilities (N, C) or (C) for targets 1..C, averaged over the (weighted) batch.

    nn/ClassNLLCriterion.lua; targets equal to `ignore_index` count nothing.
    """

    def __init__(self, weights: torch.Tensor | None = None, size_average: bool = True, ignore_index: int = -100):
        super().__init__()
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights)
        self.size_average = size_average
        self.ignore_index = ignore_index

    @classmethod
    def from_t7(cls, fields: Fields) -> ClassNLLCriterion:
        weights = fields.buffer("weights") if "weights" in fields else None
        return cls(weights, fields.boolean("sizeAverage", default=True), fields.integer("ignoreIndex", default=-100))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        fields: dict[str, object] = {"sizeAverage": self.size_average, "ignoreIndex": self.ignore_index}
        return fields if self.weights is None else {**fields, "weights": out.tensor(self.weights)}

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.nll_loss(
            x,
            target.long() - 1,
            self.weights,
            ignore_index=self.ignore_index - 1,
            reduction="mean" if self.size_average else "sum",
        )
