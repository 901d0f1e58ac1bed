"""One pass over training or test pictures, with the lines a user sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.optim import SGD, Adam
from xnornet_port.answers import criterion_of
from xnornet_port.binarization import Binarizer
from xnornet_port.data import DataSource
from xnornet_port.evaluate import evaluate
from xnornet_port.options import Options
from xnornet_port.parallel import Replicas
from xnornet_port.report import Report
from xnornet_port.train import EpochSoFar, GradientRule, TrainedBatch, TrainedEpoch, train_epoch

__all__ = ["Training", "test_pass", "train_pass"]


@dataclass(frozen=True)
class Training:
    """What an epoch needs beside the data."""

    network: nn.Module  # the one that is tested and saved
    replicated: nn.Module  # the same for training passes, where several processes train together
    criterion: nn.Module
    optimizer: SGD | Adam
    gradient_rule: GradientRule
    binarizer: Binarizer | None  # with -binaryWeight
    dropout_stream: Generator
    device: torch.device
    replicas: Replicas


def train_pass(
    options: Options,
    training: Training,
    data: DataSource,
    epoch: int,
    so_far: EpochSoFar,
    report: Report,
    after_batch: Callable[[], None],
    should_stop: Callable[[], bool],
) -> TrainedEpoch:
    """The training batches of an epoch that `so_far` has not yet.

    Raises FloatingPointError where the loss is no longer finite.
    """

    def on_batch(batch: TrainedBatch) -> None:
        report.trained_batch(epoch, options.epoch_size, rate, batch)
        after_batch()

    report.epoch_start("training", epoch)
    rate = training.optimizer.param_groups[0]["lr"]
    with report.progress(f"epoch {epoch}: training", options.epoch_size):
        return train_epoch(
            training.replicated,
            training.criterion,
            training.optimizer,
            data.train_batches(options.epoch_size, options.batch_size, first=so_far.total.n_batches),
            options.epoch_size,
            training.binarizer,
            training.gradient_rule,
            training.device,
            training.replicas,
            so_far,
            on_batch,
            should_stop,
        )


def test_pass(
    options: Options,
    network: nn.Module,
    binarizer: Binarizer | None,
    device: torch.device,
    replicas: Replicas,
    data: DataSource,
    epoch: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> bool:
    """One pass over the test set; False when it was stopped."""
    report.epoch_start("validation", epoch)
    criterion = criterion_of(network).to(device)
    with report.progress(f"epoch {epoch}: testing", data.n_test):
        evaluation = evaluate(
            network,
            criterion,
            data.test_batches(options.batch_size, options.test_all),
            binarizer,
            device,
            replicas,
            partial(report.tested_batch, epoch, data.n_test),
            should_stop,
        )
    if not evaluation.finished or evaluation.mean is None:
        return False
    report.test_summary(epoch, evaluation.seconds, evaluation.mean)
    if evaluation.mean.n_pictures < data.n_test:
        report.warn(
            f"Tested {evaluation.mean.n_pictures} of {data.n_test} pictures: the last, incomplete batch is left "
            "out as in the original; -testAll takes them all"
        )
    return True
