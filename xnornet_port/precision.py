"""-precision bf16 | fp16: convolutions and matrix products in half precision, no longer Torch7's numbers.

Parameters, their gradients and updates, batch normalisation and the loss stay float32 (torch.autocast). What a network
does is changed by hooks on it, so that training and testing code need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lua_compat.nn import LogSoftMax

__all__ = ["LOSS_SCALE", "PRECISIONS", "arithmetic"]

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What -precision names: the type of convolutions and products, None for all in float32."""

LOSS_SCALE = 1024.0
"""fp16 has no numbers below 6e-8: gradients are this much larger on their way back."""


@contextmanager
def arithmetic(network: nn.Module, device: torch.device, precision: str) -> Iterator[None]:
    """While it lasts, `network` computes in the precision of this name.

    With half precision on a GPU, pictures go through it with channels last, as tensor cores like them. With fp16
    gradients are scaled inside the network by LOSS_SCALE, a constant, so that a run stays repeatable and resumable;
    elements that overflow all the same count 0.
    """
    dtype = PRECISIONS[precision]
    if dtype is None:
        yield
        return
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.callback(network.register_forward_pre_hook(_channels_last).remove)
        for module in network.modules():
            if isinstance(module, LogSoftMax):
                stack.callback(module.register_forward_pre_hook(_as_float).remove)
        if dtype == torch.float16:
            stack.callback(network.register_forward_hook(_scale_gradient_of_output).remove)
            for parameter in network.parameters():
                stack.callback(parameter.register_hook(_unscale).remove)  # type: ignore[no-untyped-call]
        # no cache: the binary weights take the place of the latent ones in the same tensors
        stack.enter_context(torch.autocast(device.type, dtype, cache_enabled=False))
        yield


def _channels_last(network: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.contiguous(memory_format=torch.channels_last) if isinstance(x, torch.Tensor) and x.dim() == 4 else x
        for x in arguments
    )


def _as_float(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.float() for x in arguments)


def _scale_gradient_of_output(network: nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * LOSS_SCALE)  # type: ignore[no-untyped-call]
    return output


def _unscale(gradient: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(gradient / LOSS_SCALE, nan=0.0, posinf=0.0, neginf=0.0)
