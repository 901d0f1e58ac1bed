"""Batch normalisation, sign and max pooling after a binary convolution as comparisons with two whole numbers.

A binary convolution gives alpha dot + bias with a whole number dot. What follows it up to the next sign (batch
normalisation, dropout in evaluation, ReLU) only ever rises or only ever falls in each channel, so the sign depends on
whether dot has passed a threshold. The thresholds are found by asking the very modules of the network, in float32, by
bisection over the whole numbers: where they round, the thresholds follow. Max pooling takes the largest alpha dot +
bias, which with alpha >= 0 is that of the largest dot, so the whole numbers are pooled before they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lua_compat.nn import Dropout, SpatialDropout
from xnornet_port.errors import XnorNetError
from xnornet_port.kernels import Pooling, Thresholds
from xnornet_port.kernels.reference import scale

__all__ = [
    "Tail",
    "falling_channels",
    "first_step",
    "foldable_tail",
    "integer_thresholds",
    "is_monotone",
    "is_plain_pooling",
]


@dataclass(frozen=True)
class Tail:
    """What stands between a binary convolution and the next sign: a max pooling, if any, then `modules`."""

    pooling: Pooling | None
    modules: tuple[nn.Module, ...]


def foldable_tail(modules: Sequence[nn.Module]) -> Tail | None:
    """The tail that `modules`, all that stands between a convolution and a sign, make; None where they do not fold.

    Foldable are batch normalisation with running statistics, ReLU, dropout that draws nothing in evaluation, and one
    max pooling that no falling module (batch normalisation with a negative weight) precedes.
    """
    pooling: Pooling | None = None
    kept: list[nn.Module] = []
    for module in modules:
        if isinstance(module, nn.MaxPool2d):
            if pooling is not None or any(bool(_falls(before)) for before in kept) or not is_plain_pooling(module):
                return None
            pooling = Pooling(
                _pair(module.kernel_size), _pair(module.stride), _pair(module.padding), bool(module.ceil_mode)
            )
        elif not is_monotone(module):
            return None
        else:
            kept.append(module)
    return Tail(pooling, tuple(kept))


def integer_thresholds(
    modules: Sequence[nn.Module], alpha: torch.Tensor, bias: torch.Tensor | None, largest: int, place: str
) -> Thresholds:
    """Where the sign of `modules` (alpha dot + bias) changes, for whole numbers dot from -largest to largest.

    alpha, bias: float32 (O) on the CPU as the modules are, alpha >= 0. Raises XnorNetError, with
    `place` as the convolution's name, where the modules give a number that is not finite.
    """
    descending = falling_channels(modules, alpha.shape[0])
    direction = torch.where(descending, -1, 1)

    def value(steps: torch.Tensor) -> torch.Tensor:
        """The modules' output after a step up (ascending) or down (descending) the whole numbers, (O)."""
        x = _scaled(alpha, steps * direction, bias)
        with torch.no_grad():
            for module in modules:
                x = module(x)
        return x.flatten()

    ends = torch.full_like(direction, largest)
    if not bool((torch.isfinite(value(ends)) & torch.isfinite(value(-ends))).all()):
        raise XnorNetError(
            f"{place}: the batch normalisation behind it gives numbers that are not finite "
            "(running_var, weight or bias of it is nan, infinite or negative): the network is damaged"
        )
    first_above = first_step(lambda steps: value(steps) > 0, largest, direction)
    first_not_below = first_step(lambda steps: value(steps) >= 0, largest, direction)
    return Thresholds(
        (first_above * direction).to(torch.int32), ((first_not_below - 1) * direction).to(torch.int32), descending
    )


def _scaled(alpha: torch.Tensor, dot: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """alpha dot + bias as the kernels give it, one fused multiply-add in float32: (1, O, 1, 1)."""
    integers = dot.to(torch.int32).view(1, -1, 1, 1).numpy()
    addend = torch.zeros_like(alpha) if bias is None else bias
    return torch.from_numpy(scale(integers, alpha.numpy(), addend.numpy()))


def first_step(reached: Callable[[torch.Tensor], torch.Tensor], largest: int, like: torch.Tensor) -> torch.Tensor:
    """The first step from -largest on for which `reached` is true, largest + 1 where none is; by bisection, (O)."""
    low = torch.full_like(like, -largest - 1)  # not reached
    high = torch.full_like(like, largest + 1)  # reached, or the end
    while bool((high - low > 1).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor").clamp(-largest, largest)
        is_reached = reached(middle)
        open_still = high - low > 1
        high = torch.where(open_still & is_reached, middle, high)
        low = torch.where(open_still & ~is_reached, middle, low)
    return high


def falling_channels(modules: Sequence[nn.Module], n_channels: int) -> torch.Tensor:
    """Per channel, whether an odd number of the modules fall, bool (O)."""
    falling = torch.zeros(n_channels, dtype=torch.bool, device="cpu")  # whatever torch.set_default_device says
    for module in modules:
        if isinstance(module, _BatchNorm) and module.weight is not None:
            falling ^= module.weight.detach().cpu() < 0
    return falling


def _falls(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.weight is not None and bool((module.weight < 0).any())


def is_monotone(module: nn.Module) -> bool:
    """Whether, in evaluation, each channel of a module's output is a rising or falling function of that channel."""
    if isinstance(module, nn.BatchNorm2d):
        return module.running_mean is not None and module.running_var is not None
    if isinstance(module, SpatialDropout | Dropout):
        return not module.stochastic_inference and 0 <= module.p < 1
    return type(module) in (nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout2d)


def is_plain_pooling(pooling: nn.MaxPool2d) -> bool:
    """Without dilation, and giving no indices."""
    return _pair(pooling.dilation) == (1, 1) and not pooling.return_indices


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
