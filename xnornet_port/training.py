"""Epochs of training, each followed by its files and a test (train.lua, main.lua's loop)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lua_compat.errors import LuaCompatError
from lua_compat.generator import Generator
from lua_compat.optim import SGD, Adam
from xnornet_port.answers import criterion_of
from xnornet_port.binarization import Binarizer
from xnornet_port.checkpoint import save_epoch, what_is_saved
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError
from xnornet_port.interrupt import StopRequest
from xnornet_port.machine import peak_memory
from xnornet_port.model import uses_binary_inputs
from xnornet_port.options import Options
from xnornet_port.parallel import Replicas
from xnornet_port.passes import Training, test_pass, train_pass
from xnornet_port.report import Report
from xnornet_port.run_state import Moment, StateKeeper
from xnornet_port.schedule import regime_of
from xnornet_port.train import GradientRule

__all__ = ["OPTIMIZERS", "prepare_training", "train"]

# What each -optimType does: the optimiser, and the treatment of gradients with -binaryWeight.
OPTIMIZERS: dict[str, tuple[type[SGD] | type[Adam], GradientRule]] = {
    "sgd": (SGD, GradientRule(times_n=True, factor=1.0)),
    "adam": (Adam, GradientRule(times_n=False, factor=1e9)),
    "adamax": (Adam, GradientRule(times_n=False, factor=1.0)),
}


def prepare_training(
    options: Options,
    network: nn.Module,
    dropout_stream: Generator,
    device: torch.device,
    replicas: Replicas,
    report: Report,
) -> Training:
    """Optimiser and binarizer as the options say; a line for each option that does not do what one may expect."""
    optimizer_class, gradient_rule = OPTIMIZERS[options.optim_type]
    optimizer = optimizer_class(
        network.parameters(),
        lr=options.lr,
        momentum=options.momentum,
        dampening=0.0,
        weight_decay=options.weight_decay,
    )
    if options.lr == 0 and options.weight_decay != 0:
        report.warn(f"-weightDecay {options.weight_decay} has no effect without -LR: the recipe brings its own")
    if options.lr != 0 and options.optim_type != "sgd":
        report.warn(
            f"-LR {options.lr} is used as it is: only the recipe's rates are divided by 10 for {options.optim_type}"
        )
    if uses_binary_inputs(network) and not options.binary_weight:
        report.warn("This network has binary inputs; without -binaryWeight its weights are trained real-valued")
    binarizer = Binarizer(network) if options.binary_weight else None
    criterion = criterion_of(network).to(device)
    replicated = replicas.replicate(network)
    return Training(
        network, replicated, criterion, optimizer, gradient_rule, binarizer, dropout_stream, device, replicas
    )


def train(
    options: Options,
    training: Training,
    data: DataSource,
    start: Moment,
    keeper: StateKeeper,
    report: Report,
    should_stop: StopRequest,
) -> int:
    """The epochs from `start` on; returns the exit code: 0, or that of the signal that ended it.

    Raises XnorNetError, which says how to go on, for what a run can be resumed after: a data worker lost, a full disk.
    """
    try:
        return _epochs(options, training, data, start, keeper, report, should_stop)
    except FloatingPointError as error:  # resumed, it would come to the same
        raise XnorNetError(f"{error}; {what_is_saved(Path(options.save))}") from error
    except (XnorNetError, LuaCompatError, OSError) as error:
        raise XnorNetError(f"{error}; when that is mended, go on with -resume {options.save}") from error


def _epochs(
    options: Options,
    training: Training,
    data: DataSource,
    start: Moment,
    keeper: StateKeeper,
    report: Report,
    should_stop: StopRequest,
) -> int:
    moment = start
    while moment.epoch < options.epoch_number + options.n_epochs:
        if not moment.is_trained and not _train_epoch(options, training, data, moment, keeper, report, should_stop):
            return _stopped(options, keeper, moment, report, should_stop)
        training.replicas.take_the_firsts_statistics(training.network)
        tested = test_pass(
            options,
            training.network,
            training.binarizer,
            training.device,
            training.replicas,
            data,
            moment.epoch,
            report,
            should_stop,
        )
        if not tested:  # the state from before the test is kept already
            return _stopped(options, None, moment, report, should_stop)
        if moment.before_last_update is not None:
            _put_back(training.network, moment.before_last_update)
        moment = Moment(moment.epoch + 1)
        keeper.keep(moment)
        if training.replicas.any(should_stop()):
            return _stopped(options, None, moment, report, should_stop)
    return 0


def _train_epoch(
    options: Options,
    training: Training,
    data: DataSource,
    moment: Moment,
    keeper: StateKeeper,
    report: Report,
    should_stop: StopRequest,
) -> bool:
    """Train the rest of the epoch, write its log line and files; False when it was stopped before its end."""
    epoch, folder = moment.epoch, Path(options.save)
    if options.lr == 0 and moment.so_far.total.n_batches == 0:
        is_fresh = epoch == options.epoch_number and options.optim_state == "none"
        _apply_regime(options, training.optimizer, epoch, is_fresh)

    def after_batch() -> None:
        if moment.so_far.total.n_batches < options.epoch_size:
            keeper.after_batch(moment)

    try:
        trained = train_pass(options, training, data, epoch, moment.so_far, report, after_batch, should_stop)
    except FloatingPointError as error:
        raise FloatingPointError(f"epoch {epoch}: {error}") from error
    except XnorNetError:  # of the data: what is trained is whole
        if training.replicas.size == 1:  # else the others are in the middle of the next batch
            keeper.keep(moment)
        raise
    if not trained.finished or trained.mean is None:
        return False
    report.train_summary(epoch, trained.seconds, trained.mean)
    memory = peak_memory(training.device)
    if memory:
        report.say(memory)
    if training.replicas.is_first:
        save_epoch(folder, epoch, training.network, training.optimizer)
    moment.is_trained = True
    moment.before_last_update = trained.before_last_update
    keeper.keep(moment)
    return True


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


def _stopped(
    options: Options, keeper: StateKeeper | None, moment: Moment, report: Report, should_stop: StopRequest
) -> int:
    """Keep the state where a keeper is given, and say how to go on."""
    if keeper is not None:
        keeper.keep(moment)
    place = f"{moment.so_far.total.n_batches} of {options.epoch_size} batches"
    report.warn(f"Stopped in epoch {moment.epoch} ({place}): go on with -resume {options.save}")
    return should_stop.exit_code
