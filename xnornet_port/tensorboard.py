"""-tensorboard: a run's loss, accuracies and learning rate as scalars that TensorBoard shows."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

__all__ = ["PACKAGE", "ScalarWriter", "open_writer"]

PACKAGE = "tensorboard==2.21.0"


class ScalarWriter(Protocol):
    """What of torch.utils.tensorboard.SummaryWriter is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def flush(self) -> None: ...


def open_writer(folder: Path, from_epoch: int | None = None) -> ScalarWriter | None:
    """Start an event file in a run's folder; None where the package tensorboard is not installed.

    `from_epoch`: in a resumed run, what earlier files have of this epoch on is done again and no longer shown.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: ScalarWriter = SummaryWriter(str(folder), purge_step=from_epoch)
    return writer
