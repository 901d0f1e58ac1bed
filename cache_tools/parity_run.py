"""A network validated by float convolutions and, with binary inputs, by the XNOR kernels, picture by picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cache_tools.parity_layers import FloatConvolutions, LayerChecks
from cache_tools.parity_state import Progress, scores_of
from cache_tools.parity_verdict import Findings
from xnornet_port.binarization import (
    Binarizer,
    binary_convolutions,
    has_binary_weights,
    has_mean_centred_weights,
)
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError
from xnornet_port.model import count_classes, load_model, uses_binary_inputs
from xnornet_port.summation import convolution_sums
from xnornet_port.xnor_inference import XnorModel
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution

__all__ = ["Subject", "findings_of", "is_alexnet", "open_subject", "run_pictures"]

SAVE_SECONDS = 60


@dataclass(frozen=True)
class Subject:
    """A network to be validated."""

    kind: str  # "XNOR", "BWN" or "real-valued"
    weights: str  # what its file holds, and what is tested
    n_classes: int
    network: nn.Module  # by float convolutions
    binarizer: Binarizer | None  # where the network's weights are latent and tested as alpha sign(W)
    model: XnorModel | None  # by the kernels, where it has binary inputs
    other_numbers: tuple[str, ...]  # of a packed file, but for the bits: these are compared filter by filter
    is_unpacked: bool  # the float network is the packed file unpacked: there is no other to hold its weights against


def open_subject(path: Path, packed: Path | None, binary_weight: bool) -> Subject:
    """Load a .t7 or packed network; `packed`: the packed file to test in place of packing anew."""
    network = load_model(path).eval()
    if isinstance(network, XnorModel):
        if packed is not None:
            raise XnorNetError(f"{path}: packed itself; --packed goes with the .t7 file it was made of")
        return _packed_subject(network, path)
    weights, is_binarised = _weights(network, binary_weight)
    has_binary_inputs = uses_binary_inputs(network)
    is_binary = is_binarised or (has_binary_weights(network) and bool(binary_convolutions(network)))
    model: XnorModel | None = None
    other_numbers: tuple[str, ...] = ()
    if has_binary_inputs and packed is not None:
        model = XnorModel.load(packed)
        _require_same_layers(network, model, path, packed)
        other_numbers = _other_numbers(model, XnorModel.from_model(network))
    elif has_binary_inputs:
        model = XnorModel.from_model(network)
    elif packed is not None:
        raise XnorNetError(f"{path}: has no binary inputs; --packed is for networks that have")
    kind = "XNOR" if has_binary_inputs else "BWN" if is_binary else "real-valued"
    binarizer = Binarizer(network) if is_binarised else None
    n_classes = count_classes(network, str(path))
    return Subject(kind, weights, n_classes, network, binarizer, model, other_numbers, is_unpacked=False)


def is_alexnet(network: nn.Module) -> bool:
    """Whether a network has the convolutions of the paper's AlexNet, whose accuracies were published: 8, the first of
    96 filters of 11 x 11.
    """
    kinds = (nn.Conv2d, XnorConvolution, BinaryWeightConvolution)
    convolutions = [layer for layer in network.modules() if isinstance(layer, kinds)]
    return len(convolutions) == 8 and (convolutions[0].out_channels, convolutions[0].kernel_size) == (96, (11, 11))


def run_pictures(
    subject: Subject,
    data: DataSource,
    batch_size: int,
    n_pictures: int,
    n_dots: int,
    progress: Progress,
    save: Callable[[], None],
    done: Callable[[int], None],
) -> None:
    """Test the pictures that `progress` lacks; the dot products of the first `n_dots` are compared.

    `save` is called every minute, and however this ends.
    """
    watched = None
    if subject.model is not None:
        network = None if subject.is_unpacked else subject.network
        watched = LayerChecks(subject.model, network, progress.checks)
    device = torch.device("cpu")
    binary = subject.binarizer.binary_weights() if subject.binarizer else nullcontext()
    saved = time.monotonic()
    try:
        with torch.no_grad(), convolution_sums(subject.network, device), binary:
            for batch in data.test_batches(batch_size, test_all=True, skip=progress.n_done // batch_size):
                n_left = n_pictures - progress.n_done
                inputs, labels = (torch.from_numpy(array[:n_left]) for array in (batch.inputs, batch.labels))
                _test(subject, inputs, labels, progress, watched if progress.n_checked < n_dots else None)
                progress.n_unreadable += len(batch.faults)
                done(progress.n_done)
                if progress.n_done >= n_pictures:
                    break
                if time.monotonic() - saved > SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        save()


def findings_of(subject: Subject, progress: Progress, n_available: int) -> Findings:
    """The figures of a finished run."""
    has_xnor = progress.has_xnor
    return Findings(
        kind=subject.kind,
        n_classes=subject.n_classes,
        n_pictures=progress.n_done,
        n_available=n_available,
        top1=progress.accuracy("float", 1),
        top5=progress.accuracy("float", 5),
        xnor_top1=progress.accuracy("xnor", 1) if has_xnor else None,
        xnor_top5=progress.accuracy("xnor", 5) if has_xnor else None,
        n_same=progress.n_same if has_xnor else progress.n_done,
        largest_difference=progress.largest_difference if has_xnor else 0.0,
        n_checked=progress.n_checked,
        layers=tuple(progress.checks.values()),
        other_numbers=subject.other_numbers,
    )


def _test(
    subject: Subject, inputs: torch.Tensor, labels: torch.Tensor, progress: Progress, watched: LayerChecks | None
) -> None:
    """One batch by both paths."""
    n = len(labels)
    with watched.watching() if watched else nullcontext():
        expected = subject.network(inputs).view(n, -1)
        progress.add("float", scores_of(expected, labels))
        if subject.model is not None:
            found = subject.model(inputs).view(n, -1)
            progress.add("xnor", scores_of(found, labels))
            difference = (found - expected).abs().amax(dim=1).numpy()
            progress.arrays["difference"][progress.n_done : progress.n_done + n] = difference
    progress.n_done += n
    progress.n_checked += n if watched else 0


def _weights(network: nn.Module, binary_weight: bool) -> tuple[str, bool]:
    """What the weights of a .t7 network are, and whether they are binarised for the test."""
    has_binary_inputs, convolutions = uses_binary_inputs(network), binary_convolutions(network)
    if convolutions and has_binary_weights(network):
        return "binary already", False
    if has_binary_inputs:
        return "latent (real-valued): binarised, as main.py -testOnly does with binary inputs", True
    if has_mean_centred_weights(network):
        return "latent (real-valued, mean-centred): binarised; main.py -testOnly needs -binaryWeight for it", True
    if binary_weight:
        return "real-valued: binarised, as --binary-weight asks", True
    return "real-valued, without a mark of training with -binaryWeight (--binary-weight binarises them)", False


def _packed_subject(model: XnorModel, path: Path) -> Subject:
    unpacked = XnorModel.load(path)
    unpacked.use_backend(FloatConvolutions())
    kind = "XNOR" if model.has_binary_inputs else "BWN"
    n_classes = count_classes(model, str(path))
    tested = model if model.has_binary_inputs else None
    return Subject(kind, "packed; the float path unpacks them", n_classes, unpacked, None, tested, (), is_unpacked=True)


def _other_numbers(model: XnorModel, expected: XnorModel) -> tuple[str, ...]:
    """Names of thresholds, scales and float parameters that differ."""
    ours, theirs = model.state_dict(), expected.state_dict()
    names = [name for name in ours if name.rpartition(".")[2] not in ("signs", "nonzero")]
    differing = [name for name in names if name not in theirs or not torch.equal(ours[name], theirs[name])]
    return tuple(name.removeprefix("network.") for name in differing)


def _require_same_layers(network: nn.Module, model: XnorModel, path: Path, packed: Path) -> None:
    """XnorNetError where a packed file is of another network."""
    modules = dict(network.named_modules())
    for layer in model.binary_layers:
        found = modules.get(layer.place)
        sizes = (layer.out_channels, layer.in_channels, *layer.kernel_size)
        if not isinstance(found, nn.Conv2d) or (found.out_channels, found.in_channels, *found.kernel_size) != sizes:
            raise XnorNetError(f"{packed}: not made of {path}: its layer {layer.place} is not there in that size")
    if len(model.binary_layers) != len(binary_convolutions(network)):
        raise XnorNetError(f"{packed}: not made of {path}: it has {len(model.binary_layers)} binary layers")
