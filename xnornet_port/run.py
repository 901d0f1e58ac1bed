"""The order of a run: network, data, then epochs of training and testing, or one test (main.lua)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.lua_format import table_text
from lua_compat.module_text import module_text
from lua_compat.nn import ClassNLLCriterion, from_torch, set_generator
from lua_compat.optim import SGD, Adam
from xnornet_port.binarization import Binarizer
from xnornet_port.checkpoint import (
    latest_epoch,
    load_optimizer_state,
    model_path,
    optimizer_state_path,
    save_epoch,
)
from xnornet_port.data import DataSource, open_data
from xnornet_port.dataset_cache import write_classes
from xnornet_port.errors import XnorNetError
from xnornet_port.evaluate import binarizes_for_test, evaluate
from xnornet_port.interrupt import stop_on_interrupt
from xnornet_port.machine import describe_machine
from xnornet_port.metadata import check_data_folder
from xnornet_port.model import build_model, check_classes, check_input, load_model, load_parameters, uses_binary_inputs
from xnornet_port.options import Options
from xnornet_port.report import Report
from xnornet_port.schedule import regime_of
from xnornet_port.summation import convolution_sums
from xnornet_port.train import GradientRule, TrainedEpoch, train_epoch

__all__ = ["run"]

INTERRUPTED = 130  # the exit code of a program ended by Ctrl-C

# What each -optimType does: the optimiser, and the treatment of gradients with -binaryWeight.
OPTIMIZERS: dict[str, tuple[type[SGD] | type[Adam], GradientRule]] = {
    "sgd": (SGD, GradientRule(times_n=True, factor=1.0)),
    "adam": (Adam, GradientRule(times_n=False, factor=1e9)),
    "adamax": (Adam, GradientRule(times_n=False, factor=1.0)),
}


@dataclass(frozen=True)
class Training:
    """What an epoch needs beside the data; made once by `run`."""

    network: nn.Module
    criterion: nn.Module
    optimizer: SGD | Adam
    gradient_rule: GradientRule
    binarizer: Binarizer | None  # with -binaryWeight
    device: torch.device


def run(options: Options, report: Report) -> int:
    """Do what the options say; returns the exit code (0, or 130 after Ctrl-C). User errors raise XnorNetError."""
    # before the seconds it takes to draw a large network
    check_data_folder(options.data, ["val"] if options.test_only else ["train", "val"])
    device = choose_device(options.device, options.gpu)
    use_full_precision()
    network = _make_network(options, report).to(device)
    check_input(network, options.crop_size, options.n_classes)
    set_generator(network, Generator(options.manual_seed))
    _describe(network, options, device, report)
    folder = _make_folder(Path(options.save))
    with (
        _open_data(options, report) as data,
        convolution_sums(network, device),
        stop_on_interrupt(report.warn) as should_stop,  # from here on there are batches to stop after
    ):
        report.open_logs(folder)
        if options.tensorboard:
            report.open_tensorboard(folder)
        _write_record(folder, options, data.classes, device)
        data.n_test_batches(options.batch_size, options.test_all)  # refuses before hours of training
        if options.test_only:
            return _test_only(options, network, device, data, report, should_stop)
        training = _prepare_training(options, network, device, report)
        return _train(options, training, data, folder, report, should_stop)


def choose_device(name: str, gpu: int) -> torch.device:
    """-device auto|cpu|cuda and -GPU (counted from 1). Raises XnorNetError for a GPU that is not there."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise XnorNetError(
            "-device cuda: PyTorch finds no CUDA GPU here; use -device cpu, or install a CUDA build of PyTorch"
        )
    n_gpus = torch.cuda.device_count()
    if not 1 <= gpu <= n_gpus:
        raise XnorNetError(f"-GPU {gpu}: there are GPUs 1 to {n_gpus}")
    return torch.device("cuda", gpu - 1)


def use_full_precision() -> None:
    """No TF32 on GPUs: float32 as Torch7 computed it."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _make_network(options: Options, report: Report) -> nn.Module:
    if options.retrain != "none":
        report.say(f"Loading model from file: {options.retrain}")
        network = load_model(options.retrain)
        check_classes(network, options.n_classes, options.retrain)
        if options.load_params != "none":
            report.warn(f"-loadParams {options.load_params} has no effect with -retrain")
        return network
    if options.test_only and options.load_params == "none":
        report.warn("-testOnly without -retrain or -loadParams tests a network of random numbers")
    report.say(f"=> Creating model from file: models/{options.net_type}.lua")
    network = build_model(options.net_type, options.n_classes, options.dropout, options.manual_seed)
    if options.load_params != "none":
        load_parameters(network, options.load_params)
    return network


def _describe(network: nn.Module, options: Options, device: torch.device, report: Report) -> None:
    report.say("=> Model")
    report.block(module_text(from_torch(network)))
    report.say("=> Criterion")
    report.block("nn.ClassNLLCriterion")
    report.say("==> Converting model to CUDA")
    report.block(table_text(options.as_table()))
    report.say(f"Saving everything to: {options.save}")
    report.say(f"Running on: {device}")
    if options.n_gpu > 1:
        report.warn(
            f"-nGPU {options.n_gpu}: this version trains on one device; batch normalisation sees the whole batch"
        )


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise XnorNetError(f"{folder}: cannot be made ({error.strerror}); choose another folder with -cache") from error
    return folder


def _open_data(options: Options, report: Report) -> DataSource:
    return open_data(
        data=options.data,
        cache=options.cache,
        image_size=options.image_size,
        crop_size=options.crop_size,
        n_classes=options.n_classes,
        scaling_factor=options.scaling_factor,
        n_donkeys=options.n_donkeys,
        manual_seed=options.manual_seed,
        say=report.say,
        progress=report.progress,
        training=not options.test_only,
    )


def _write_record(folder: Path, options: Options, classes: list[str], device: torch.device) -> None:
    """classes.t7, and options.json: what was run, with what, so that it can be run again."""
    write_classes(str(folder / "classes.t7"), classes)
    record = {
        "options": options.as_table(),
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": str(device),
        "machine": describe_machine(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    (folder / "options.json").write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


def _prepare_training(options: Options, network: nn.Module, device: torch.device, report: Report) -> Training:
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


def _train(
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
        trained = _train_one_epoch(options, training, data, epoch, report, should_stop)
        if not trained.finished or trained.mean is None:
            return _interrupted(folder, epoch, report)
        report.train_summary(epoch, trained.seconds, trained.mean)
        save_epoch(folder, epoch, training.network, training.optimizer)
        tested = _test(options, training.network, training.binarizer, training.device, data, epoch, report, should_stop)
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


def _train_one_epoch(
    options: Options,
    training: Training,
    data: DataSource,
    epoch: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> TrainedEpoch:
    report.epoch_start("training", epoch)
    rate = training.optimizer.param_groups[0]["lr"]
    with report.progress(f"epoch {epoch}: training", options.epoch_size):
        try:
            return train_epoch(
                training.network,
                training.criterion,
                training.optimizer,
                data.train_batches(options.epoch_size, options.batch_size),
                options.epoch_size,
                training.binarizer,
                training.gradient_rule,
                training.device,
                partial(report.trained_batch, epoch, options.epoch_size, rate),
                should_stop,
            )
        except FloatingPointError as error:
            raise XnorNetError(f"epoch {epoch}: {error}; {_what_is_saved(Path(options.save))}") from error


def _test(
    options: Options,
    network: nn.Module,
    binarizer: Binarizer | None,
    device: torch.device,
    data: DataSource,
    epoch: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> bool:
    """One pass over the test set; False when it was stopped."""
    report.epoch_start("validation", epoch)
    criterion = ClassNLLCriterion().to(device)
    with report.progress(f"epoch {epoch}: testing", data.n_test):
        evaluation = evaluate(
            network,
            criterion,
            data.test_batches(options.batch_size, options.test_all),
            binarizer,
            device,
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


def _test_only(
    options: Options,
    network: nn.Module,
    device: torch.device,
    data: DataSource,
    report: Report,
    should_stop: Callable[[], bool],
) -> int:
    binarizes = binarizes_for_test(network, options.binary_weight, options.latent_weights, report.warn)
    binarizer = Binarizer(network) if binarizes else None
    finished = _test(options, network, binarizer, device, data, options.epoch_number, report, should_stop)
    return 0 if finished else INTERRUPTED


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
