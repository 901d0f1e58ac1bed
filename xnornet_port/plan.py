"""What is to be trained, made of the options by run.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainingPlan", "UpdateSettings"]


@dataclass(frozen=True)
class UpdateSettings:
    """How parameters are updated; with a learning rate of 0 the rates and weight decays are the recipe's."""

    optim_type: str
    learning_rate: float
    momentum: float
    weight_decay: float
    binary_weight: bool


@dataclass(frozen=True)
class TrainingPlan:
    """`n_epochs` epochs from `first_epoch` on, each of `epoch_size` batches; what comes of them goes to `folder`."""

    folder: Path
    first_epoch: int
    n_epochs: int
    epoch_size: int
    batch_size: int
    test_all: bool  # an incomplete last batch too
    update: UpdateSettings
    has_optim_state: bool  # the optimiser begins with a stored state
