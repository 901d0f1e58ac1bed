"""Epochs of training, each followed by its files and a test (train.lua, main.lua's loop)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lua_compat.nn import ClassNLLCriterion
from lua_compat.optim import SGD, Adam
from xnornet_port.binarization import Binarizer
from xnornet_port.checkpoint import (
    latest_epoch,
    load_optimizer_state,
    model_path,
    optimizer_state_path,
    save_epoch,
)
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError
from xnornet_port.model import uses_binary_inputs
from xnornet_port.options import Options
from xnornet_port.passes import Training, test_pass, train_pass
from xnornet_port.report import Report
from xnornet_port.schedule import regime_of
from xnornet_port.train import GradientRule

__all__ = ["INTERRUPTED", "OPTIMIZERS", "prepare_training", "train"]

INTERRUPTED = 130  # the exit code of a program ended by Ctrl-C

# What each -optimType does: the optimiser, and the treatment of gradients with -binaryWeight.
OPTIMIZERS: dict[str, tuple[type[SGD] | type[Adam], GradientRule]] = {
    "sgd": (SGD, GradientRule(times_n=True, factor=1.0)),
    "adam": (Adam, GradientRule(times_n=False, factor=1e9)),
    "adamax": (Adam, GradientRule(times_n=False, factor=1.0)),
}


def prepare_training(options: Options, network: nn.Module, device: torch.device, report: Report) -> Training:
    optimizer_class, gradient_rule = OPTIMIZERS[options.optim_type]
    optimizer = optimizer_class(
        network.parameters(),
        lr=options.lr,
        momentum=options.momentum,
        dampening=0.0,
        weight_decay=options.weight_decay,
    )
    if options.optim_state != "none":
        report.say(f"Loading optimState from file: {options.optim_state}")
        load_optimizer_state(optimizer, options.optim_state)
    if options.lr == 0 and options.weight_decay != 0:
        report.warn(f"-weightDecay {options.weight_decay} has no effect without -LR: the recipe brings its own")
    if options.lr != 0 and options.optim_type != "sgd":
        report.warn(
            f"-LR {options.lr} is used as it is: only the recipe's rates are divided by 10 for {options.optim_type}"
        )
    if uses_binary_inputs(network) and not options.binary_weight:
        report.warn("This network has binary inputs; without -binaryWeight its weights are trained real-valued")
    binarizer = Binarizer(network) if options.binary_weight else None
    return Training(network, ClassNLLCriterion().to(device), optimizer, gradient_rule, binarizer, device)


def train(
    options: Options,
    training: Training,
    data: DataSource,
    folder: Path,
    report: Report,
    should_stop: Callable[[], bool],
) -> int:
    first = options.epoch_number
    for epoch in range(first, first + options.n_epochs):
        if options.lr == 0:
            _apply_regime(options, training.optimizer, epoch, is_fresh=epoch == first and options.optim_state == "none")
        try:
            trained = train_pass(options, training, data, epoch, report, should_stop)
        except FloatingPointError as error:
            raise XnorNetError(f"epoch {epoch}: {error}; {_what_is_saved(folder)}") from error
        if not trained.finished or trained.mean is None:
            return _interrupted(folder, epoch, report)
        report.train_summary(epoch, trained.seconds, trained.mean)
        save_epoch(folder, epoch, training.network, training.optimizer)
        tested = test_pass(
            options, training.network, training.binarizer, training.device, data, epoch, report, should_stop
        )
        if trained.before_last_update is not None:
            _put_back(training.network, trained.before_last_update)
        if not tested or should_stop():
            return _interrupted(folder, epoch + 1, report)
    return 0


def _apply_regime(options: Options, optimizer: SGD | Adam, epoch: int, is_fresh: bool) -> None:
    """At a regime's first epoch, and where a run without -optimState starts inside one, take the recipe's rates."""
    regime = regime_of(epoch)
    if epoch == regime.first_epoch or is_fresh:
        rate = regime.learning_rate if isinstance(optimizer, SGD) else regime.learning_rate * 0.1
        optimizer.param_groups[0].update(
            lr=rate, lr_decay=0.0, momentum=options.momentum, dampening=0.0, weight_decay=regime.weight_decay
        )


def _put_back(network: nn.Module, parameters: list[torch.Tensor]) -> None:
    """As the original after each test with -binaryWeight: the parameters from before the last update."""
    with torch.no_grad():
        for parameter, before in zip(network.parameters(), parameters, strict=True):
            parameter.copy_(before)


def _interrupted(folder: Path, epoch: int, report: Report) -> int:
    report.warn(f"Stopped in epoch {epoch}: {_what_is_saved(folder)}")
    return INTERRUPTED


def _what_is_saved(folder: Path) -> str:
    last = latest_epoch(folder)
    if last is None:
        return f"no epoch was finished, no model saved in {folder}"
    return (
        f"to go on: -retrain {model_path(folder, last)} -optimState {optimizer_state_path(folder, last)} "
        f"-epochNumber {last + 1}"
    )
