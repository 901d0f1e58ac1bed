"""What a run is at a moment: all it takes to go on from there to the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lua_compat.atomic_file import replace_file
from lua_compat.generator import Generator
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.metrics import ScoreSum
from xnornet_port.state_files import StoredState, write_state
from xnornet_port.train import EpochSoFar, Learner

__all__ = ["Moment", "StateKeeper", "Training", "restore"]

LOGS = ("train.log", "test.log")


@dataclass
class Moment:
    """A place in a run, between two batches. `so_far.total.n_batches` batches of the epoch are trained.

    is_trained: the epoch's training is over and its model saved, its test is not yet done. before_last_update: then,
    with binary weights, the parameters to put back after the test.
    """

    epoch: int
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    is_trained: bool = False
    before_last_update: list[torch.Tensor] | None = None


@dataclass(frozen=True)
class Training:
    """What training changes beside the place in the data.

    network: the one that is tested and saved; the learner's is the same or, where several processes train together,
    that one replicated.
    """

    network: nn.Module
    learner: Learner
    dropout_stream: Generator


class StateKeeper:
    """Writes states into the folder of a run: every so many batches, at the ends of epochs, and before it stops."""

    def __init__(
        self, folder: Path, every: int, training: Training, data: DataSource, warn: Callable[[str], None]
    ) -> None:
        """`every` batches; 0: only when `keep` is called."""
        self._folder = folder
        self._every = every
        self._training = training
        self._data = data
        self._warn = warn

    def after_batch(self, moment: Moment) -> None:
        """Keep the state where one is due. All processes of a run call this, and `keep`, at the same places."""
        if self._every and moment.so_far.total.n_batches % self._every == 0:
            self.keep(moment)

    def keep(self, moment: Moment) -> None:
        """Write the state. Where that fails (a full disk) a line says so, and the run goes on."""
        replicas = self._training.learner.replicas
        dropout_streams = replicas.gather(self._training.dropout_stream.state)
        if replicas.is_first:
            self._write(moment, dropout_streams)
        replicas.wait()  # nobody ends while it is being written: a launcher would give the others seconds only

    def _write(self, moment: Moment, dropout_streams: list[bytes]) -> None:
        try:
            tensors, facts = _capture(moment, self._training, dropout_streams, self._data, self._folder)
            write_state(self._folder, moment.epoch, moment.so_far.total.n_batches, tensors, facts)
        except OSError as error:
            self._warn(
                f"State of epoch {moment.epoch}, batch {moment.so_far.total.n_batches} could not be kept in "
                f"{self._folder} ({reason_of(error)}); the one before is still there, training goes on"
            )


def restore(stored: StoredState, training: Training, data: DataSource, folder: Path) -> Moment:
    """Set everything to where the state was written, the logs included; returns that place.

    Raises XnorNetError where network, optimiser or data are not those of the state.
    """
    facts, tensors = stored.facts, stored.tensors
    if facts["data"] != _data_digest(data):
        raise XnorNetError(
            f"{stored.path}: -data or -cache hold other pictures, classes or means than when this state was written; "
            "give those of the run"
        )
    try:
        training.network.load_state_dict(_part(tensors, "network."))
    except RuntimeError as error:
        raise XnorNetError(f"{stored.path}: is of another network ({reason_of(error)})") from error
    _restore_optimizer(stored, training)
    replicas = training.learner.replicas
    # those of all processes are at one place, but where a module draws by the pictures' values (RReLU)
    dropout_streams = _numbered(tensors, "stream.dropout.")
    training.dropout_stream.state = dropout_streams[replicas.rank % len(dropout_streams)].numpy().tobytes()
    data.streams = [stream.numpy().tobytes() for stream in _numbered(tensors, "stream.data.")]
    for name in LOGS if replicas.is_first else ():
        with replace_file(folder / name) as file:
            file.write(facts["logs"].get(name, "").encode())
    before = [tensor.to(training.learner.device) for tensor in _numbered(tensors, "before.")]
    so_far = EpochSoFar(ScoreSum(**facts["scores"]), facts["seconds"])
    return Moment(facts["epoch"], so_far, facts["is_trained"], before or None)


def _capture(
    moment: Moment, training: Training, dropout_streams: list[bytes], data: DataSource, folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    optimizer = training.learner.optimizer
    parameters = optimizer.param_groups[0]["params"]
    tensors = {f"network.{name}": tensor for name, tensor in training.network.state_dict().items()}
    for number, parameter in enumerate(parameters):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{number}.{name}"] = tensor
    for number, tensor in enumerate(moment.before_last_update or []):
        tensors[f"before.{number}"] = tensor
    for number, stream in enumerate(dropout_streams):
        tensors[f"stream.dropout.{number}"] = _as_tensor(stream)
    for number, stream in enumerate(data.streams):
        tensors[f"stream.data.{number}"] = _as_tensor(stream)
    facts = {
        "epoch": moment.epoch,
        "is_trained": moment.is_trained,
        "scores": asdict(moment.so_far.total),
        "seconds": moment.so_far.seconds,
        "optimizer": {
            "class": type(optimizer).__name__,
            "options": {name: value for name, value in optimizer.param_groups[0].items() if name != "params"},
        },
        "logs": {name: (folder / name).read_text(encoding="utf-8") for name in LOGS},
        "data": _data_digest(data),
    }
    return tensors, facts


def _restore_optimizer(stored: StoredState, training: Training) -> None:
    optimizer, saved = training.learner.optimizer, stored.facts["optimizer"]
    if saved["class"] != type(optimizer).__name__:
        raise XnorNetError(f"{stored.path}: is of {saved['class']}, the run's optimiser is {type(optimizer).__name__}")
    group = optimizer.param_groups[0]
    group.update(saved["options"])
    for number, parameter in enumerate(group["params"]):
        for name, tensor in _part(stored.tensors, f"optimizer.{number}.").items():
            optimizer.state[parameter][name] = tensor.to(parameter.device)


def _data_digest(data: DataSource) -> str:
    """Of what the batches depend on beside files' contents; paths are left out, so that the data may be moved."""
    digest = hashlib.sha256()
    for part in data.identity():
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _numbered(tensors: dict[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    found = _part(tensors, prefix)
    return [found[str(number)] for number in range(len(found))]


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
