"""How convolutions on the CPU add up their products; GPUs are not touched.

A binary network does not forgive the last bit: a weight next to zero takes the other sign, and from there on it is
another run. Torch7 unfolds each picture and multiplies matrices (THNN SpatialConvolutionMM.c). PyTorch can still do so,
and a run then stays with Torch7's; but by itself it takes oneDNN, which adds in another order and is three times faster
on AlexNet. So small networks are computed as Torch7 does, large ones with oneDNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xnornet_port.xnor_layers import binary_layers

__all__ = ["SMALL_NETWORK", "convolution_sums", "covers_whole_input"]

SMALL_NETWORK = 1_000_000  # parameters; AlexNet has 58 million


def convolution_sums(network: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """A context in which the network is run, forward and backward."""
    if device.type != "cpu":
        return nullcontext()
    n_weights = sum(parameter.numel() for parameter in network.parameters())
    n_weights += sum(layer.n_weights for layer in binary_layers(network))  # of a packed network
    is_small = n_weights <= SMALL_NETWORK
    return _unfold_and_multiply() if is_small else _WholeInputAsProduct()


@contextmanager
def _unfold_and_multiply() -> Iterator[None]:
    onednn = torch.backends.mkldnn
    was_enabled = bool(onednn.enabled)
    onednn.enabled = False  # type: ignore[assignment]  # its stub takes the property for a plain object
    try:
        yield
    finally:
        onednn.enabled = was_enabled  # type: ignore[assignment]


class _WholeInputAsProduct(TorchFunctionMode):
    """A convolution whose kernel covers its whole input is one matrix product over the batch.

    The same sums, and the weights are read once for all pictures: AlexNet's last layers are three times faster so.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and covers_whole_input(*args):
            x, weight, bias = args[:3]
            return functional.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
        return func(*args, **(kwargs or {}))


def covers_whole_input(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> bool:
    """Whether the arguments of `conv2d` are a product of matrices: a kernel as large as its input, without padding."""
    is_plain = padding in (0, (0, 0)) and dilation in (1, (1, 1)) and groups == 1
    return is_plain and x.dim() == 4 and x.shape[2:] == weight.shape[2:]
