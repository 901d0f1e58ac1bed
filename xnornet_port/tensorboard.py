"""-tensorboard: a run's loss, accuracies and learning rate as scalars that TensorBoard shows."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from xnornet_port.errors import XnorNetError

__all__ = ["EventFile"]

PACKAGE = "tensorboard==2.21.0"


class EventFile:
    """A file of TensorBoard's in a run's folder, written at once: its package's own writer fails in another thread."""

    def __init__(self, folder: Path, from_epoch: int | None = None) -> None:
        """Start it. XnorNetError where TensorBoard's package is not installed, OSError where the file cannot be made.

        `from_epoch`: in a resumed run, what earlier files have of this epoch on is done again and no longer shown.
        """
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise XnorNetError(f"its package is not installed: pip install {PACKAGE}") from error
        self._event, self._summary, self._record_writer = Event, Summary, RecordWriter
        self._path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._write(file_version="brain.Event:2")
        if from_epoch is not None:
            self._write(step=from_epoch, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, value: float, epoch: int) -> None:
        """OSError where it cannot be written."""
        self._write(step=epoch, summary=self._summary(value=[self._summary.Value(tag=tag, simple_value=value)]))

    def _write(self, **fields: Any) -> None:
        with open(self._path, "ab") as file:
            self._record_writer(file).write(self._event(wall_time=time.time(), **fields).SerializeToString())
