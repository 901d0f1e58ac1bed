"""Where the windows of a convolution and of a max pooling lie."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xnornet_port.errors import XnorNetError

__all__ = ["Geometry", "Pair", "Pooling", "as_pair"]

Pair = tuple[int, int]  # (vertical, horizontal), as torch.nn has them
# Strides, paddings, dilations: what a size is calculated of stays far below 2^63 then, in C as here.
_LARGEST = 1 << 16


def as_pair(value: int | Pair, name: str, at_least: int) -> Pair:
    """`value` twice, or the two of it; XnorNetError where one is not a whole number from `at_least` to 65536."""
    if type(value) is int and at_least <= value <= _LARGEST:  # the rule, and quick: it is part of many calls
        return value, value
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)  # a tensor is none
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < at_least for n in pair):
        raise XnorNetError(
            f"{name} must be one or two whole numbers of at least {at_least}, not {' '.join(repr(value).split())}"
        )
    if max(pair) > _LARGEST:
        raise XnorNetError(f"{name} must be at most {_LARGEST}, not {max(pair)}")
    return pair


class Geometry(NamedTuple):
    """Stride, zero padding and dilation of a convolution, each (vertical, horizontal). Quick as a part of keys."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @classmethod
    def of(cls, stride: int | Pair = 1, padding: int | Pair = 0, dilation: int | Pair = 1) -> Geometry:
        """Each twice where it is one number; XnorNetError where one is not as `as_pair` has it."""
        if type(stride) is type(padding) is type(dilation) is int:  # no True or 1.0, which are 1 to a cache
            return _of_numbers(stride, padding, dilation)
        return cls(as_pair(stride, "stride", 1), as_pair(padding, "padding", 0), as_pair(dilation, "dilation", 1))

    def output_size(self, input_size: Pair, kernel: Pair) -> Pair:
        """Height and width of the convolution's result; XnorNetError where the kernel does not fit."""
        height, width = self._length(input_size[0], kernel[0], 0), self._length(input_size[1], kernel[1], 1)
        if height < 1 or width < 1:
            raise XnorNetError(
                f"a kernel of {kernel[0]}x{kernel[1]} (dilation {self.dilation}) does not fit into an input of "
                f"{input_size[0]}x{input_size[1]} with padding {self.padding}"
            )
        return height, width

    def _length(self, size: int, kernel: int, axis: int) -> int:
        reach = self.dilation[axis] * (kernel - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1


@functools.lru_cache
def _of_numbers(stride: int, padding: int, dilation: int) -> Geometry:
    """Kept, for it is part of every call."""
    return Geometry(as_pair(stride, "stride", 1), as_pair(padding, "padding", 0), as_pair(dilation, "dilation", 1))


@dataclass(frozen=True)
class Pooling:
    """Max pooling of integers, as torch.nn.MaxPool2d: padding never wins; ceil_mode as there."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        for name, at_least in (("kernel", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, as_pair(getattr(self, name), f"the pooling's {name}", at_least))
        if any(2 * padding > length for padding, length in zip(self.padding, self.kernel, strict=True)):
            raise XnorNetError(f"pooling pads by {self.padding}, more than half its kernel {self.kernel}")

    def output_size(self, input_size: Pair) -> Pair:
        """Height and width of the result: every window starts inside the input or its left padding."""
        height, width = (self._length(input_size[axis], axis) for axis in (0, 1))
        if height < 1 or width < 1:
            raise XnorNetError(f"pooling by {self.kernel} does not fit into {input_size[0]}x{input_size[1]}")
        return height, width

    def _length(self, size: int, axis: int) -> int:
        kernel, stride, padding = self.kernel[axis], self.stride[axis], self.padding[axis]
        room = size + 2 * padding - kernel
        length = (room + (stride - 1 if self.ceil_mode else 0)) // stride + 1
        if self.ceil_mode and (length - 1) * stride >= size + padding:
            length -= 1
        return length
