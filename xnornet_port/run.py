"""The order of a run: network, data, then epochs of training and testing, or one test (main.lua)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.lua_format import table_text
from lua_compat.module_text import module_text
from lua_compat.nn import from_torch, set_generator
from xnornet_port.binarization import Binarizer
from xnornet_port.data import DataSource, open_data
from xnornet_port.dataset_cache import write_classes
from xnornet_port.errors import XnorNetError
from xnornet_port.evaluate import binarizes_for_test
from xnornet_port.interrupt import stop_on_interrupt
from xnornet_port.machine import describe_machine
from xnornet_port.metadata import check_data_folder
from xnornet_port.model import build_model, check_classes, check_input, load_model, load_parameters
from xnornet_port.options import Options
from xnornet_port.passes import test_pass
from xnornet_port.report import Report
from xnornet_port.summation import convolution_sums
from xnornet_port.training import INTERRUPTED, prepare_training, train

__all__ = ["run"]


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
        training = prepare_training(options, network, device, report)
        return train(options, training, data, folder, report, should_stop)


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
    finished = test_pass(options, network, binarizer, device, data, options.epoch_number, report, should_stop)
    return 0 if finished else INTERRUPTED
