"""The float layers in front of the first binary one, run as one comparison: convolution, pooling, bits.

Between the first convolution and the first sign, batch normalisation, ReLU and dropout rise or fall with their input in
each channel, as in `folding`; so the sign depends on whether the convolution's output has passed a float32 threshold,
which bisection over all float32 numbers finds by asking the very modules. Max pooling comes first: filters of channels
that fall before it are negated, which negates their output exactly. The bits are those of the modules run one by one,
from a fifth of the memory traffic. The convolution itself is oneDNN's in channels-last order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from xnornet_port.folding import falling_channels, first_step, is_monotone, is_plain_pooling
from xnornet_port.kernels import PackedInput
from xnornet_port.xnor_layers import XnorConvolution, state_of

__all__ = ["FirstLayers"]

_LARGEST_FLOAT = 0x7F7FFFFF  # the largest finite float32, as the bits of an integer
_PICTURES_AT_ONCE = 4  # for each thread
_LOWEST_BITS = 0x0101010101010101
_GATHER_BITS = 0x0102040810204080  # times 8 bytes of 0 and 1: their bits side by side in the uppermost byte


class FirstLayers:
    """Stands for the first modules of a Sequential, a convolution up to the module before an XnorConvolution."""

    def __init__(self, modules: Sequence[nn.Module]):
        self.modules = modules
        self._parts = [part for module in modules for part in module.modules()]
        self._current: tuple[object, _Prepared | None] = (None, None)

    @classmethod
    def of(cls, network: nn.Module) -> FirstLayers | None:
        """Of a packed network, where it begins so that they fold."""
        modules = list(network) if type(network) is nn.Sequential else []
        end = next((i for i, module in enumerate(modules) if isinstance(module, XnorConvolution)), 0)
        if end < 2 or type(modules[0]) is not nn.Conv2d or modules[0].padding_mode != "zeros":
            return None
        if getattr(modules[end], "input_scaled", False):  # it takes real numbers
            return None
        poolings = [module for module in modules[1:end] if isinstance(module, nn.MaxPool2d)]
        others = [module for module in modules[1:end] if not isinstance(module, nn.MaxPool2d)]
        if len(poolings) > 1 or not all(map(is_plain_pooling, poolings)) or not all(map(is_monotone, others)):
            return None
        return cls(modules[:end])

    def __call__(self, x: torch.Tensor) -> PackedInput | None:
        """The first binary layer's input for pictures x (N, C, H, W); None where the modules are to be run themselves.

        That is so on a GPU, where oneDNN is switched off (small networks, see `summation`), and where a number
        that is not finite came up.
        """
        if x.device.type != "cpu" or not torch.backends.mkldnn.enabled:
            return None
        state = state_of(
            tensor for part in self._parts for tensor in (*part._parameters.values(), *part._buffers.values())
        )
        if self._current[0] != state:
            self._current = (state, _prepare(self.modules))
        prepared = self._current[1]
        return None if prepared is None else prepared.bits(x)


@dataclass(frozen=True)
class _Prepared:
    """The convolution with some filters negated, and what turns its pooled output into bits."""

    convolution: nn.Conv2d
    pooling: nn.MaxPool2d | None
    low: torch.Tensor  # float32 (C): rising channels are negative below it, falling ones positive
    high: torch.Tensor | None  # float32 (C): zero from `low` on below `high`; None where that is nothing
    falling: torch.Tensor  # int64 (words): bit 1 for falling channels
    channels: torch.Tensor  # int64 (words): bit 1 for all there are

    def bits(self, x: torch.Tensor) -> PackedInput | None:
        """A few pictures at a time, so that the convolution's output is still in the cache when it is pooled."""
        parts = [self._part(part) for part in torch.split(x, _PICTURES_AT_ONCE * torch.get_num_threads())]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        signs = found[0][0] if len(found) == 1 else torch.cat([negative for negative, _ in found])
        channels = self.convolution.out_channels
        if all(nonzero is None for _, nonzero in found):
            return PackedInput(signs, None, channels)
        planes = [self.channels.expand_as(negative) if nonzero is None else nonzero for negative, nonzero in found]
        return PackedInput(signs, torch.cat(planes), channels)

    def _part(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Words of what is negative, and of what is not zero where anything is; None where a number is not finite."""
        y = self.convolution(x.contiguous(memory_format=torch.channels_last))
        if self.pooling is not None:
            y = self.pooling(y)
        y = y.permute(0, 2, 3, 1)
        values = y.flatten().view(y.shape)  # (N, H, W, C), as they lie in memory; contiguous() keeps a size 1's stride
        if not math.isfinite(values.sum().item()):
            return None
        below_low = _words_below(values, self.low)
        if self.high is not None:
            below_high = _words_below(values, self.high)
            if not torch.equal(below_low, below_high):
                negative = (below_low & ~self.falling) | (~below_high & self.falling)
                return negative, ~(below_low ^ below_high) & self.channels
        return below_low.bitwise_xor_(self.falling), None


def _prepare(modules: Sequence[nn.Module]) -> _Prepared | None:
    """None where thresholds cannot be found, because some number is not finite."""
    first = modules[0]
    if not isinstance(first, nn.Conv2d):
        return None
    place = next((i for i, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)), 0)
    pooling = modules[place] if place else None
    functions = [module for module in modules[1:] if module is not pooling]
    negated = falling_channels(modules[1:place] if place else [], first.out_channels)
    descending = falling_channels(functions, first.out_channels) ^ negated
    direction, side = torch.where(descending, -1, 1), torch.where(negated, -1, 1).to(torch.float32)

    def value(steps: torch.Tensor) -> torch.Tensor:
        x = (_floats(steps * direction) * side).view(1, -1, 1, 1)
        with torch.no_grad():
            for module in functions:
                x = module(x)
        return x.flatten()

    ends = torch.full_like(direction, _LARGEST_FLOAT)
    if bool((value(ends).isnan() | value(-ends).isnan()).any()):
        return None
    above = first_step(lambda steps: value(steps) > 0, _LARGEST_FLOAT, direction)
    not_below = first_step(lambda steps: value(steps) >= 0, _LARGEST_FLOAT, direction)
    # In steps s, negative below not_below, zero up to above. Falling channels go through the numbers the other way:
    # s < step is number > -step, that is not number < 1 - step.
    low = _limits(torch.where(descending, 1 - above, not_below))
    high = _limits(torch.where(descending, 1 - not_below, above))
    return _Prepared(
        _channels_last(first, side),
        pooling if isinstance(pooling, nn.MaxPool2d) else None,
        low,
        None if torch.equal(low, high) else high,
        _words(descending.to(torch.uint8)),
        _words(torch.ones_like(descending, dtype=torch.uint8)),
    )


def _channels_last(convolution: nn.Conv2d, side: torch.Tensor) -> nn.Conv2d:
    """The same convolution with the output of some channels negated, its weights in channels-last order."""
    copy = nn.Conv2d(
        convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride,  # type: ignore[arg-type]
        convolution.padding, convolution.dilation, convolution.groups, convolution.bias is not None, device="meta",  # type: ignore[arg-type]
    )  # fmt: skip
    weight = (convolution.weight.detach() * side.view(-1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
    copy.weight = nn.Parameter(weight, requires_grad=False)
    if convolution.bias is not None:
        copy.bias = nn.Parameter(convolution.bias.detach() * side, requires_grad=False)
    return copy


def _floats(steps: torch.Tensor) -> torch.Tensor:
    """The float32 numbers in order, counted from 0.0 (-1: the largest below 0); one past the largest is infinity."""
    bits = torch.where(steps >= 0, steps, -steps - 2**31)
    return bits.to(torch.int32).view(torch.float32)


def _limits(steps: torch.Tensor) -> torch.Tensor:
    """`_floats` for `_words_below`: its difference of -0.0 and 0.0 bears a sign, that of -0.0 and -0.0 does not."""
    limits = _floats(steps)
    return torch.where(limits == 0, -0.0, limits)


def _words_below(values: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Whether finite values (N, H, W, C) are below thresholds (C), as words: the sign bit of their difference.

    The difference of different float32 numbers never rounds to 0; taking it is quicker than comparing.
    """
    return _words((values - threshold).view(torch.int32).bitwise_right_shift_(31).to(torch.uint8))


def _words(truth: torch.Tensor) -> torch.Tensor:
    """Bytes (..., C), the lowest bit of each telling, to int64 (..., ceil(C / 64))."""
    n = truth.shape[-1]
    whole = truth if n % 8 == 0 else functional.pad(truth, (0, -n % 8))
    octets = whole.view(torch.int64).bitwise_and(_LOWEST_BITS).mul_(_GATHER_BITS).bitwise_right_shift_(56)
    octets = octets.to(torch.uint8)
    if n % 64:
        octets = functional.pad(octets, (0, -octets.shape[-1] % 8))
    return octets.view(torch.int64)
