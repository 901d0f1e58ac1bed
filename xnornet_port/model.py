"""The network of a run: new, from a .t7 file, or new with parameters from a file (model.lua, util.lua loadParams)."""

from __future__ import annotations

import sys
from itertools import zip_longest
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import nn

import lua_compat
import lua_compat.nn
from lua_compat.errors import LuaCompatError
from lua_compat.generator import Generator
from xnornet_port import layers
from xnornet_port.answers import class_scores
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.packed_file import is_packed_file
from xnornet_port.schemes import ORIGINAL, import_schemes
from xnornet_port.xnor_inference import XnorModel

__all__ = [
    "build_model",
    "check_classes",
    "check_input",
    "count_classes",
    "load_model",
    "load_parameters",
    "require_shallow",
    "uses_binary_inputs",
    "usual_crop_size",
]

USUAL_CROP_SIZES = (224, 32)
"""ImageNet's and CIFAR's: docs/networks.md."""
FRAMES_A_MODULE = 4
"""Python's frames that PyTorch and a container's `forward` take, at most."""


def build_model(
    net_type: str,
    n_classes: int = 1000,
    dropout: float = 0.5,
    seed: int = 2,
    *,
    depth: int = 18,
    shortcut_type: str = "B",
    dataset: str = "imagenet",
    scheme: str = ORIGINAL,
) -> nn.Sequential:
    """A new network of -netType, its parameters drawn as Torch7 draws them after manualSeed(seed).

    Maps (N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; but see `resnet`, whose answers are scores, and
    `googlenet`, which has two classifiers. `depth`, `shortcut_type` and `dataset` are for residual networks,
    `scheme` (a key of SCHEMES) for those with binary blocks. Raises XnorNetError for an unknown type, depth or scheme,
    and for a scheme that the network has no use for.
    """
    if net_type not in NETWORKS:
        raise XnorNetError(f"-netType {net_type}: unknown; available are {', '.join(NETWORKS)}")
    if not isinstance(n_classes, Integral) or isinstance(n_classes, bool) or n_classes < 1:
        raise XnorNetError(f"-nClasses {n_classes}: a network is built for a whole number of classes, 1 at least")
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise XnorNetError(f"-dropout {dropout}: the share that is dropped lies between 0 and 1, 1 left out")
    network = NETWORKS[net_type].build(NetworkSettings(n_classes, dropout, depth, shortcut_type, dataset, scheme))
    if scheme not in (ORIGINAL, "bwn") and not uses_binary_inputs(network):
        raise XnorNetError(f"-scheme {scheme}: -netType {net_type} has no binary blocks; alexnetxnor is one that has")
    NETWORKS[net_type].initialize(network, Generator(seed))
    return network


def load_model(path: str | Path) -> nn.Module:
    """The network of a .t7 file, as `lua_compat.nn.load`; of a packed file (.safetensors) an XnorModel.

    XnorNetError names the file and what is wrong with it.
    """
    if is_packed_file(path):
        return XnorModel.load(path)
    import_schemes()
    try:
        network = lua_compat.nn.load(path)
    except LuaCompatError as error:
        raise XnorNetError(str(error)) from error
    require_shallow(network, path)
    return network


def require_shallow(network: nn.Module, path: str | Path) -> None:
    """XnorNetError where modules are nested deeper than Python's recursion limit lets PyTorch run them."""
    deepest = sys.getrecursionlimit() // FRAMES_A_MODULE
    level = {network}
    for _ in range(deepest):
        level = {child for module in level for child in module.children()}
        if not level:
            return
    raise XnorNetError(
        f"{path}: its modules are nested more than {deepest} deep, and PyTorch runs them by recursion; take some of "
        "the containers away (lua_compat.nn reads and writes them at any depth: docs/nn.md)"
    )


def load_parameters(network: nn.Module, path: str | Path) -> None:
    """Copy the parameters and running statistics of the network in a .t7 file, in order (-loadParams).

    Raises XnorNetError, before anything is copied, where the two networks differ in a shape.
    """
    saved = load_model(path)
    pairs = list(zip_longest(_numbers(network), _numbers(saved), fillvalue=torch.empty(0)))
    for position, (ours, theirs) in enumerate(pairs, start=1):
        if ours.shape != theirs.shape:
            raise XnorNetError(
                f"{path}: parameter {position} has shape {tuple(theirs.shape)}, the network wants "
                f"{tuple(ours.shape)}: it holds another network (-netType, -nClasses)"
            )
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs)


def count_classes(network: nn.Module, path: str) -> int:
    """For how many classes a loaded network answers: the outputs of its last convolution or linear layer."""
    layers_with_outputs = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if not layers_with_outputs:
        raise XnorNetError(f"{path}: the network has no convolution or linear layer")
    last = layers_with_outputs[-1]
    return last.out_channels if isinstance(last, nn.Conv2d) else last.out_features


def check_classes(network: nn.Module, n_classes: int, path: str) -> None:
    """Raise XnorNetError where a loaded network answers for another number of classes than -nClasses."""
    found = count_classes(network, path)
    if found != n_classes:
        raise XnorNetError(
            f"{path}: the network has {found} classes, -nClasses says {n_classes}: "
            f"give -nClasses {found} and data with as many classes"
        )


def check_input(network: nn.Module, crop_size: int, n_classes: int) -> None:
    """Raise XnorNetError where the network does not turn one picture of -cropSize into as many numbers as classes.

    Runs it once, in evaluation mode, and to name a size that it takes once or twice more; nothing of it changes.
    """
    was_training = network.training
    network.eval()
    try:
        problem = _input_problem(network, crop_size, n_classes)
        if problem is not None:
            size = usual_crop_size(network, n_classes)
            way_out = "" if size is None else f"; it takes -cropSize {size}"
            raise XnorNetError(f"-cropSize {crop_size}: the network {problem}{way_out}")
    finally:
        network.train(was_training)


def usual_crop_size(network: nn.Module, n_classes: int) -> int | None:
    """The first of the usual sizes of which the network, in evaluation mode, makes as many numbers as classes."""
    return next((size for size in USUAL_CROP_SIZES if _input_problem(network, size, n_classes) is None), None)


def _input_problem(network: nn.Module, crop_size: int, n_classes: int) -> str | None:
    """What is wrong with pictures of that size, None where nothing is."""
    parameter = next(network.parameters())
    try:
        with torch.no_grad():
            n_numbers = class_scores(network, parameter.new_zeros(1, 3, crop_size, crop_size)).numel()
    except (RuntimeError, ValueError) as error:
        return f"cannot take such a picture ({reason_of(error)})"
    return None if n_numbers == n_classes else f"gives {n_numbers} numbers for such a picture in place of {n_classes}"


def uses_binary_inputs(network: nn.Module) -> bool:
    """Whether a network has binary activations: XNOR-Net rather than a Binary-Weight-Network."""
    return any(isinstance(module, layers.BinActiveZ) for module in network.modules())


def _numbers(network: nn.Module) -> list[torch.Tensor]:
    statistics = [
        buffer
        for module in network.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]
    return [parameter.detach() for parameter in network.parameters()] + statistics
