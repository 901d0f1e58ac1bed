"""The learning-rate recipe of 55 epochs (train.lua paramsForEpoch)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["REGIMES", "Regime", "regime_of"]


class Regime(NamedTuple):
    """Epochs first_epoch and on, until the next regime, train with these; adam divides the learning rate by 10."""

    first_epoch: int
    learning_rate: float
    weight_decay: float


REGIMES = (
    Regime(1, 1e-2, 5e-4),
    Regime(19, 5e-3, 5e-4),
    Regime(30, 1e-3, 0.0),
    Regime(44, 5e-4, 0.0),
    Regime(53, 1e-4, 0.0),
)


def regime_of(epoch: int) -> Regime:
    """The regime that an epoch (from 1) belongs to."""
    return next(regime for regime in reversed(REGIMES) if epoch >= regime.first_epoch)
