"""Top-1 and top-5 accuracy of a batch (util.lua computeScore)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["ScoreSum", "Scores", "loss_and_hits", "scores_of"]


@dataclass(frozen=True)
class Scores:
    """Loss and accuracies in per cent, of one batch or averaged over `n_batches` batches with `n_pictures` pictures."""

    loss: float
    top1: float
    top5: float
    n_batches: int
    n_pictures: int


@dataclass
class ScoreSum:
    """Adds up batches; the mean weighs each batch by its pictures (batches of one size weigh the same, as in Lua)."""

    n_batches: int = 0
    n_pictures: int = 0
    loss: float = 0.0  # the sums, each batch times its pictures
    top1: float = 0.0
    top5: float = 0.0

    def add(self, batch: Scores) -> None:
        self.n_batches += batch.n_batches
        self.n_pictures += batch.n_pictures
        self.loss += batch.loss * batch.n_pictures
        self.top1 += batch.top1 * batch.n_pictures
        self.top5 += batch.top5 * batch.n_pictures

    def mean(self) -> Scores:
        """The average so far; raises ZeroDivisionError before the first batch."""
        n = self.n_pictures
        return Scores(self.loss / n, self.top1 / n, self.top5 / n, self.n_batches, n)


def loss_and_hits(loss: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss, pictures right, and right among the best five, float64 on the device of outputs (N, C); labels (N) from 1.

    With fewer than five classes top-5 asks for all of them (the original stops with an index error there).
    """
    with torch.no_grad():
        best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices + 1
        hits = best == labels.view(-1, 1)
        return torch.stack([loss.double(), hits[:, 0].sum().double(), hits.sum().double()])


def scores_of(numbers: Sequence[float], n_pictures: int) -> Scores:
    """Scores of a batch from what `loss_and_hits` gave for it."""
    loss, top1, top5 = numbers
    return Scores(loss, top1 / n_pictures * 100, top5 / n_pictures * 100, n_batches=1, n_pictures=n_pictures)
