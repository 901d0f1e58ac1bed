"""Runs `main.py` as a recorded run of real Torch7 was started, and records what the recording holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import xnornet_port.passes
from lua_compat.values import LuaTable
from xnornet_port import cli
from xnornet_port.evaluate import Tester
from xnornet_port.train import Learner

EVERY = 150528 // 61  # every so many values of a picture are recorded
N_WHOLE = 3  # so many batches' pictures are kept for the comparison from recorded states


@dataclass
class BatchRecord:
    """One batch: what the trace of golden/README.md has of it."""

    loss: float
    top1: float
    top5: float
    output: np.ndarray
    labels: np.ndarray
    input_samples: np.ndarray
    inputs: np.ndarray | None  # whole, of the first batches only
    parameters: list[np.ndarray] = field(default_factory=list)  # after the update
    statistics: list[np.ndarray] = field(default_factory=list)  # running mean and var of each batch normalisation


@dataclass
class Recording:
    """A run of ours beside the recorded one."""

    trace: LuaTable
    folder: Path  # of our run's files
    stdout: str
    exit_code: int
    initial: list[np.ndarray] = field(default_factory=list)
    train: list[BatchRecord] = field(default_factory=list)
    test: list[BatchRecord] = field(default_factory=list)


def command_line(trace: LuaTable, data: Path, cache: Path, models: Path, network: str) -> list[str]:
    """The recorded options as arguments; the model files under the name they have here."""
    o = trace["options"]
    arguments = ["-data", str(data), "-cache", str(cache), "-device", "cpu"]
    for name in (
        "nClasses",
        "manualSeed",
        "batchSize",
        "epochSize",
        "nEpochs",
        "nDonkeys",
        "epochNumber",
        "dropout",
    ):
        arguments += [f"-{name}", str(o.get(name, 0))]
    arguments += ["-optimType", o["optimType"], "-netType", o["netType"]]
    if network:
        arguments += ["-retrain", str(models / network)]
    return arguments + [f"-{name}" for name in ("binaryWeight", "testOnly") if o[name]]


def record(golden: Path, runs: Path, name: str, tmp_path: Path, extra: list[str] | None = None) -> Recording:
    """Run main.py in `tmp_path` with the options of the recorded run `name`."""
    trace = lua_compat.load(runs / name / "trace.t7")
    cache = tmp_path / "cache"
    shutil.copytree(golden / "cache", cache)
    network = {"bwn": "tiny_bwn.t7", "xno": "tiny_xnor.t7", "ful": ""}[name[:3]]
    arguments = command_line(trace, golden / "imagenet", cache, golden / "models", network) + (extra or [])
    recording = Recording(trace, Path(), "", -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            xnornet_port.passes, "train_epoch", _recording(xnornet_port.passes.train_epoch, recording, "train")
        )
        patch.setattr(xnornet_port.passes, "evaluate", _recording(xnornet_port.passes.evaluate, recording, "test"))
        recording.exit_code = cli.main(arguments)
    recording.folder = max(cache.glob("*/*/"), key=lambda p: p.stat().st_mtime)
    return recording


def _recording(original: Callable[..., Any], recording: Recording, phase: str) -> Callable[..., Any]:
    """`train_epoch` or `evaluate`, with each batch written down as it goes by."""

    def run(learner: Learner | Tester, *arguments: Any) -> Any:
        network = learner.network
        if phase == "train" and not recording.train:
            recording.initial = [p.detach().numpy().copy() for p in network.parameters()]
        *before, on_batch, should_stop = arguments
        batches_at = next(i for i, a in enumerate(before) if hasattr(a, "__next__"))
        seen: list[Any] = []
        before[batches_at] = _noting(before[batches_at], seen)
        outputs: list[np.ndarray] = []
        hook = network.register_forward_hook(lambda m, x, y: outputs.append(y.detach().numpy().copy()))

        def note(*report: Any) -> None:
            scores = report[0].scores if phase == "train" else report[0]
            batch = seen[-1]
            samples = batch.inputs.reshape(len(batch.labels), -1)[:, ::EVERY]
            inputs = batch.inputs if len(getattr(recording, phase)) < N_WHOLE else None
            noted = BatchRecord(scores.loss, scores.top1, scores.top5, outputs[-1], batch.labels, samples, inputs)
            if phase == "train":
                noted.parameters = [p.detach().numpy().copy() for p in network.parameters()]
                noted.statistics = [
                    b.numpy().copy()
                    for m in network.modules()
                    if isinstance(m, nn.BatchNorm2d)
                    for b in (m.running_mean, m.running_var)
                ]
            getattr(recording, phase).append(noted)
            on_batch(*report)

        try:
            return original(learner, *before, note, should_stop)
        finally:
            hook.remove()

    return run


def _noting(batches: Any, seen: list[Any]) -> Any:
    for batch in batches:
        seen.append(batch)
        yield batch


def worst_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value."""
    scale = float(np.abs(theirs).max()) or 1.0
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max()) / scale


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
