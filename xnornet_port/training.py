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
from xnornet_port.checkpoint import resumption, save_epoch, what_is_saved
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError, file_problem
from xnornet_port.evaluate import Tester
from xnornet_port.interrupt import StopRequest
from xnornet_port.machine import peak_memory
from xnornet_port.model import uses_binary_inputs
from xnornet_port.parallel import Replicas
from xnornet_port.passes import test_pass, train_pass
from xnornet_port.plan import TrainingPlan, UpdateSettings
from xnornet_port.report import Report
from xnornet_port.run_state import Moment, StateKeeper, Training
from xnornet_port.schedule import regime_of
from xnornet_port.state_files import size_of_states
from xnornet_port.train import GradientRule, Learner

__all__ = ["OPTIMIZERS", "prepare_training", "train"]

WORTH_SAYING = 10**8
"""Bytes of states that are worth a line at the end of a run."""

# What each -optimType does: the optimiser, and the treatment of gradients with -binaryWeight.
OPTIMIZERS: dict[str, tuple[type[SGD] | type[Adam], GradientRule]] = {
    "sgd": (SGD, GradientRule(times_n=True, factor=1.0)),
    "adam": (Adam, GradientRule(times_n=False, factor=1e9)),
    "adamax": (Adam, GradientRule(times_n=False, factor=1.0)),
}


def prepare_training(
    settings: UpdateSettings,
    network: nn.Module,
    dropout_stream: Generator,
    device: torch.device,
    replicas: Replicas,
    report: Report,
) -> Training:
    """Optimiser and binarizer by the settings; a line for each option that does not do what one may expect."""
    optimizer_class, gradient_rule = OPTIMIZERS[settings.optim_type]
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer = optimizer_class(
        network.parameters(), lr=rate, momentum=settings.momentum, dampening=0.0, weight_decay=decay
    )
    if rate == 0 and decay != 0:
        report.warn(f"-weightDecay {decay} has no effect without -LR: the recipe brings its own")
    if rate != 0 and settings.optim_type != "sgd":
        report.warn(f"-LR {rate} is used as it is: only the recipe's rates are divided by 10 for {settings.optim_type}")
    if uses_binary_inputs(network) and not settings.binary_weight:
        report.warn("This network has binary inputs; without -binaryWeight its weights are trained real-valued")
    binarizer = Binarizer(network) if settings.binary_weight else None
    criterion = criterion_of(network).to(device)
    replicated = replicas.replicate(network)
    learner = Learner(replicated, criterion, optimizer, gradient_rule, binarizer, device, replicas)
    return Training(network, learner, dropout_stream)


def train(
    plan: TrainingPlan,
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
        return _epochs(plan, training, data, start, keeper, report, should_stop)
    except FloatingPointError as error:  # resumed, it would come to the same
        raise XnorNetError(f"{error}; {what_is_saved(plan.folder)}") from error
    except (XnorNetError, LuaCompatError, OSError) as error:
        problem = file_problem(error) if isinstance(error, OSError) else str(error)
        raise XnorNetError(f"{problem}; when that is mended, go on with {resumption(plan.folder)}") from error


def _epochs(
    plan: TrainingPlan,
    training: Training,
    data: DataSource,
    start: Moment,
    keeper: StateKeeper,
    report: Report,
    should_stop: StopRequest,
) -> int:
    learner, moment = training.learner, start
    while moment.epoch < plan.first_epoch + plan.n_epochs:
        if not moment.is_trained and not _train_epoch(plan, training, data, moment, keeper, report, should_stop):
            return _stopped(plan, keeper, moment, report, should_stop)
        learner.replicas.take_the_firsts_statistics(training.network)
        tester = Tester(training.network, learner.criterion, learner.binarizer, learner.device, learner.replicas)
        tested = test_pass(tester, data, plan.batch_size, plan.test_all, moment.epoch, report, should_stop)
        if not tested:  # the state from before the test is kept already
            return _stopped(plan, None, moment, report, should_stop)
        if moment.before_last_update is not None:
            _put_back(training.network, moment.before_last_update)
        moment = Moment(moment.epoch + 1)
        keeper.keep(moment)
        if learner.replicas.any(should_stop()):
            return _stopped(plan, None, moment, report, should_stop)
    if learner.replicas.is_first:
        _say_what_may_go(plan.folder, report)
    return 0


def _train_epoch(
    plan: TrainingPlan,
    training: Training,
    data: DataSource,
    moment: Moment,
    keeper: StateKeeper,
    report: Report,
    should_stop: StopRequest,
) -> bool:
    """Train the rest of the epoch, write its log line and files; False when it was stopped before its end."""
    epoch, learner = moment.epoch, training.learner
    if plan.update.learning_rate == 0 and moment.so_far.total.n_batches == 0:
        is_fresh = epoch == plan.first_epoch and not plan.has_optim_state
        _apply_regime(learner.optimizer, plan.update.momentum, epoch, is_fresh)

    def after_batch() -> None:
        if moment.so_far.total.n_batches < plan.epoch_size:
            keeper.after_batch(moment)

    try:
        trained = train_pass(plan, learner, data, moment, report, after_batch, should_stop)
    except FloatingPointError as error:
        raise FloatingPointError(f"epoch {epoch}: {error}") from error
    except (XnorNetError, OSError):  # of the data, or nobody reads the output any more: what is trained is whole
        # of several processes the others are in the middle of the next batch
        if learner.replicas.size == 1 and moment.so_far.total.n_batches < plan.epoch_size:
            keeper.keep(moment)
        raise
    if not trained.finished or trained.mean is None:
        return False
    report.train_summary(epoch, trained.seconds, trained.mean)
    memory = peak_memory(learner.device)
    if memory:
        report.say(memory)
    if learner.replicas.is_first:
        save_epoch(plan.folder, epoch, training.network, learner.optimizer)
    moment.is_trained = True
    moment.before_last_update = trained.before_last_update
    keeper.keep(moment)
    return True


def _apply_regime(optimizer: SGD | Adam, momentum: float, epoch: int, is_fresh: bool) -> None:
    """At a regime's first epoch, and where a run without -optimState starts inside one, take the recipe's rates."""
    regime = regime_of(epoch)
    if epoch == regime.first_epoch or is_fresh:
        rate = regime.learning_rate if isinstance(optimizer, SGD) else regime.learning_rate * 0.1
        optimizer.param_groups[0].update(
            lr=rate, lr_decay=0.0, momentum=momentum, dampening=0.0, weight_decay=regime.weight_decay
        )


def _put_back(network: nn.Module, parameters: list[torch.Tensor]) -> None:
    """As the original after each test with -binaryWeight: the parameters from before the last update."""
    with torch.no_grad():
        for parameter, before in zip(network.parameters(), parameters, strict=True):
            parameter.copy_(before)


def _say_what_may_go(folder: Path, report: Report) -> None:
    """The states of a run that is done serve only to add epochs, and take 1.7 GB of AlexNet; of few bytes no word."""
    try:
        size = size_of_states(folder)
    except OSError:  # someone deletes them already
        return
    if size >= WORTH_SAYING:
        report.remark(
            f"Done. The files state_* ({size / 1e9:.1f} GB) serve only to add epochs with {resumption(folder)} "
            "-nEpochs N; delete them when no more are wanted"
        )


def _stopped(
    plan: TrainingPlan, keeper: StateKeeper | None, moment: Moment, report: Report, should_stop: StopRequest
) -> int:
    """Keep the state where a keeper is given, and say how to go on."""
    if keeper is not None:
        keeper.keep(moment)
    place = f"{moment.so_far.total.n_batches} of {plan.epoch_size} batches"
    report.warn(f"Stopped in epoch {moment.epoch} ({place}): go on with {resumption(plan.folder)}")
    return should_stop.exit_code
