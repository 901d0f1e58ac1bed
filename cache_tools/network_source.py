"""The MODEL of a command: a .t7 file, a packed file, the folder of a run, or the name of a -netType."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from torch import nn

from cache_tools.run_folder import model_files
from xnornet_port.binarization import has_binary_weights, has_mean_centred_weights
from xnornet_port.errors import XnorNetError
from xnornet_port.evaluate import binarizes_for_test
from xnornet_port.model import build_model, load_model, uses_binary_inputs
from xnornet_port.models import NETWORKS
from xnornet_port.xnor_inference import XnorModel

__all__ = ["add_weight_options", "counts_as_binary", "newest_model", "open_network", "wants_binary_weights"]


def newest_model(name: str) -> str:
    """Of a run's folder the path of its last model_N.t7; any other name as it is.

    Raises XnorNetError for a folder without models.
    """
    if not Path(name).is_dir():
        return name
    models = model_files(Path(name))
    if not models:
        raise XnorNetError(f"{name}: no file but a folder, and no model_N.t7 in it")
    return str(models[max(models)])


def open_network(name: str, n_classes: int = 1000) -> nn.Module:
    """Raises XnorNetError for a file that is no network, and for what is neither file nor -netType."""
    if Path(name).is_file():
        return load_model(name)
    if name in NETWORKS:
        return build_model(name, n_classes)
    if Path(name).exists():
        raise XnorNetError(f"{name}: a device or pipe, not a file")
    if Path(name).suffix:
        raise XnorNetError(f"{name}: no such file")
    near = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise XnorNetError(f"{name}: no such file, and no -netType (these are {', '.join(NETWORKS)}){hint}")


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """Declare --binary-weight and --latent-weights, which mean what main.py's options of that name do."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--binary-weight", action="store_true", help="with binary weights in all but two layers")
    group.add_argument("--latent-weights", action="store_true", help="with an XNOR network's real-valued weights")


def wants_binary_weights(network: nn.Module, arguments: argparse.Namespace) -> bool:
    """As `main.py -testOnly` decides it; where that was not asked for, its line goes to standard error.

    A packed network's are bits for good. Raises XnorNetError for an option on one.
    """
    if _is_packed(network, arguments):
        return False

    def say(line: str) -> None:
        if not arguments.quiet:
            ours = line.replace("-binaryWeight", "--binary-weight").replace("-latentWeights", "--latent-weights")
            print(ours, file=sys.stderr)

    return binarizes_for_test(network, arguments.binary_weight, arguments.latent_weights, say)


def counts_as_binary(network: nn.Module, arguments: argparse.Namespace) -> bool:
    """Whether a network is one of binary weights: as the options say, else by the marks that it bears.

    Raises XnorNetError for an option on a packed network, whose weights are bits.
    """
    if _is_packed(network, arguments):
        return True
    if arguments.binary_weight or arguments.latent_weights:
        return bool(arguments.binary_weight)
    return uses_binary_inputs(network) or has_binary_weights(network) or has_mean_centred_weights(network)


def _is_packed(network: nn.Module, arguments: argparse.Namespace) -> bool:
    is_packed = isinstance(network, XnorModel)
    if is_packed and (arguments.binary_weight or arguments.latent_weights):
        raise XnorNetError(
            f"{arguments.model}: packed, its weights are bits: --binary-weight and --latent-weights are for a .t7 file"
        )
    return is_packed
