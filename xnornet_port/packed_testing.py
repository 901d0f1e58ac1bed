"""-testOnly -backend xnor: the network of a run on packed kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from xnornet_port.binarization import has_binary_weights
from xnornet_port.xnor_inference import XnorModel

__all__ = ["packed_for_test"]


def packed_for_test(
    network: nn.Module, device: torch.device, binary_weight: bool, say: Callable[[str], None]
) -> XnorModel:
    """The loaded network packed, on the device; it is packed already where it came from a packed file.

    One line says what its weights were. Raises XnorNetError as `XnorModel.from_model`.
    """
    if isinstance(network, XnorModel):
        model, weights = network, "packed already"
    else:
        weights = "binary already" if has_binary_weights(network) else "latent (real-valued): binarised"
        model = XnorModel.from_model(network, binary_weights=binary_weight).to(device)
    kind = "binary inputs" if model.has_binary_inputs else "real inputs (BWN: weights are bits)"
    n_layers = len(model.binary_layers)
    say(f"Testing with packed kernels ({model.backend}): {n_layers} layers with {kind}; weights {weights}")
    return model
