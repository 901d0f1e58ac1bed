"""One epoch of training (train.lua train and trainBatch)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from lua_compat.optim import SGD, Adam
from xnornet_port.answers import class_scores
from xnornet_port.batches import Batch
from xnornet_port.binarization import Binarizer
from xnornet_port.metrics import Scores, ScoreSum, loss_and_hits, scores_of
from xnornet_port.parallel import ALONE, Replicas
from xnornet_port.transfer import begin_to_host, to_device

__all__ = ["EpochSoFar", "GradientRule", "Learner", "TrainedBatch", "TrainedEpoch", "train_batch", "train_epoch"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class GradientRule:
    """What -binaryWeight does to gradients before the update: see Binarizer.scale_gradients.

    `factor` multiplies all gradients (1e9 with adam: its epsilon and the weight decay then count nothing).
    """

    times_n: bool
    factor: float


@dataclass(frozen=True)
class Learner:
    """A network on `device`, and what it takes to train it."""

    network: nn.Module
    criterion: nn.Module
    optimizer: SGD | Adam
    gradient_rule: GradientRule
    binarizer: Binarizer | None = None  # with -binaryWeight
    device: torch.device = CPU
    replicas: Replicas = ALONE


@dataclass(frozen=True)
class TrainedBatch:
    """What is printed about one batch; seconds of wall time."""

    number: int
    scores: Scores
    mean: Scores  # of the epoch so far
    data_seconds: float
    compute_seconds: float


@dataclass
class EpochSoFar:
    """What is summed up over an epoch; from a run that is resumed, what was there when it stopped."""

    total: ScoreSum = field(default_factory=ScoreSum)
    seconds: float = 0.0  # of training, up to the last batch


@dataclass(frozen=True)
class TrainedEpoch:
    """`before_last_update` is there after a full epoch with binary weights: what the original's test puts back."""

    mean: Scores | None
    seconds: float
    finished: bool
    before_last_update: list[torch.Tensor] | None


def train_epoch(
    learner: Learner,
    batches: Iterable[Batch],
    n_batches: int,
    so_far: EpochSoFar,
    on_batch: Callable[[TrainedBatch], None],
    should_stop: Callable[[], bool],
) -> TrainedEpoch:
    """Train an epoch of `n_batches` batches; stops early, after a whole batch, when `should_stop` says so.

    `so_far` is kept up to date; `batches` are those that it has not yet. Raises FloatingPointError when the
    loss is no longer finite; the parameters are those before that update.
    """
    learner.network.train()
    total = so_far.total
    before_last_update = None
    batch_start = time.perf_counter()
    epoch_start = batch_start - so_far.seconds
    for number, batch in enumerate(batches, start=total.n_batches + 1):
        compute_start = time.perf_counter()
        if learner.binarizer is not None:
            learner.binarizer.mean_centre_and_clamp()
            if number == n_batches:
                before_last_update = [parameter.detach().clone() for parameter in learner.network.parameters()]
        inputs = torch.as_tensor(batch.inputs).to(learner.device)
        scores = train_batch(learner, inputs, torch.from_numpy(batch.labels), batch.n_others)
        total.add(scores)
        now = time.perf_counter()
        so_far.seconds = now - epoch_start
        on_batch(TrainedBatch(number, scores, total.mean(), compute_start - batch_start, now - compute_start))
        batch_start = time.perf_counter()
        if learner.replicas.any(should_stop()):
            break
    finished = total.n_batches == n_batches
    return TrainedEpoch(
        total.mean() if total.n_batches else None,
        time.perf_counter() - epoch_start,
        finished,
        before_last_update if finished else None,
    )


def train_batch(learner: Learner, inputs: torch.Tensor, labels: torch.Tensor, n_others: int = 0) -> Scores:
    """Forward, backward and one update; inputs (N, 3, H, W) on the learner's device, labels (N) from 1 on the CPU.

    With replicas this is one part of a batch of N + n_others pictures, and the scores are those of the whole.
    With a binarizer the weights should be mean-centred and clamped already.

    The host waits for the device once, for loss and hits: they are on their way while the device goes backward, so
    that it has work in its queue when the host has seen that the loss is finite.
    """
    replicas, binarizer = learner.replicas, learner.binarizer
    learner.optimizer.zero_grad()
    with nullcontext() if binarizer is None else binarizer.binary_weights():
        targets = to_device(labels, inputs.device)
        outputs = class_scores(learner.network, inputs)
        loss = learner.criterion(outputs, targets)
        arriving = begin_to_host(loss_and_hits(loss, outputs, targets))
        replicas.backward(loss, replicas.loss_weight(len(labels), n_others))
    if binarizer is not None:
        _scale_gradients(learner.network, binarizer, learner.gradient_rule)
    scores = replicas.combine(scores_of(arriving(), len(labels)))
    if not math.isfinite(scores.loss):
        raise FloatingPointError(
            f"the loss is {scores.loss}: training stopped before this update (a smaller -LR may help)"
        )
    learner.optimizer.step()
    return scores


def _scale_gradients(network: nn.Module, binarizer: Binarizer, rule: GradientRule) -> None:
    binarizer.scale_gradients(rule.times_n, rule.factor)
    if rule.factor != 1:
        scaled = {id(convolution.weight) for convolution in binarizer.convolutions}
        others = [p.grad for p in network.parameters() if id(p) not in scaled and p.grad is not None]
        if others:
            torch._foreach_mul_(others, rule.factor)
