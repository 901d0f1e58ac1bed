"""-tensorboard: a run's loss, accuracies and learning rate as scalars that TensorBoard shows."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from xnornet_port.errors import XnorNetError

__all__ = ["ScalarWriter", "open_writer"]

PACKAGE = "tensorboard==2.21.0"


class ScalarWriter(Protocol):
    """What of torch.utils.tensorboard.SummaryWriter is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def flush(self) -> None: ...


def open_writer(folder: Path, from_epoch: int | None = None) -> ScalarWriter:
    """Start an event file in a run's folder. XnorNetError where TensorBoard's package is missing or cannot do that.

    `from_epoch`: in a resumed run, what earlier files have of this epoch on is done again and no longer shown.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise XnorNetError(f"its package is not installed: pip install {PACKAGE}") from error
    try:
        writer: ScalarWriter = SummaryWriter(str(folder), purge_step=from_epoch)
    except UnicodeEncodeError as error:
        raise XnorNetError("it takes no folder whose name is not UTF-8") from error
    return writer
