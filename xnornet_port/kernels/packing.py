"""Signs as bits: 64 channels of one pixel to a word, channel c is bit c % 64 of word c // 64, 1 where it is negative.

Words are torch.int64, for torch has no arithmetic on unsigned ones; bits past the last channel are 0. A second plane
of the same shape, `nonzero`, has bit 1 where the value is not 0; as a rule there is no zero and no such plane.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xnornet_port.errors import XnorNetError

__all__ = ["PackedInput", "PackedWeights", "Thresholds", "n_words", "pack_bits", "pack_weights", "unpack_bits"]

WORD = 64
# Up to here every integer is a float32, so that alpha * dot + bias is one rounding.
_LARGEST_FILTER = 1 << 24


def n_words(channels: int) -> int:
    """Words that hold so many channels."""
    return -(-channels // WORD)


@dataclass(frozen=True, repr=False)
class PackedWeights:
    """Filters of a binary convolution: alpha * sign(W) + bias, whatever the backend.

    `prepared` is where a backend keeps what it made of them (its own order of the bits), so that it does so once.
    """

    signs: Tensor  # int64 (O, kH, kW, ceil(I / 64))
    nonzero: Tensor | None  # the same shape; None: no weight is exactly 0
    alpha: Tensor  # float32 (O,)
    bias: Tensor | None  # float32 (O,)
    in_channels: int
    prepared: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @functools.cached_property
    def out_channels(self) -> int:
        return int(self.signs.shape[0])

    @functools.cached_property
    def kernel_size(self) -> tuple[int, int]:
        return int(self.signs.shape[1]), int(self.signs.shape[2])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(O, I, kH, kW), that of the weights they were made of."""
        return self.out_channels, self.in_channels, *self.kernel_size

    def __repr__(self) -> str:
        parts = [str(self.shape), *(name for name in ("nonzero", "bias") if getattr(self, name) is not None)]
        return f"PackedWeights({', '.join(parts)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "prepared": {}}  # it holds addresses of this process, and is not copied


@dataclass(frozen=True, repr=False)
class PackedInput:
    """Signs of pictures; NaN counts as 0, as in Torch7's sign."""

    signs: Tensor  # int64 (N, H, W, ceil(C / 64))
    nonzero: Tensor | None  # the same shape; None: no exact zero
    channels: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W), that of the pictures."""
        batch, height, width, _ = self.signs.shape
        return batch, self.channels, height, width

    def __repr__(self) -> str:
        return f"PackedInput({self.shape}{'' if self.nonzero is None else ', nonzero'})"


@dataclass(frozen=True)
class Thresholds:
    """The sign of something monotone of the integer dot product, per output channel.

    Ascending: +1 where dot >= positive_from, -1 where dot <= negative_to. Descending: +1 where dot <= positive_from,
    -1 where dot >= negative_to. Exactly 0 between the two. Where both hold, +1.
    """

    positive_from: Tensor  # int32 (O,)
    negative_to: Tensor  # int32 (O,)
    descending: Tensor  # bool (O,)


def pack_bits(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(..., C) truth values to (..., ceil(C / 64)) words."""
    channels = bits.shape[-1]
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, n_words(channels) * WORD - channels)]
    packed_bytes = np.packbits(np.pad(bits, padding), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed_bytes).view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: NDArray[np.uint64], channels: int) -> NDArray[np.bool_]:
    """(..., ceil(C / 64)) words to (..., C) truth values."""
    as_bytes = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, bitorder="little", count=channels).astype(bool)


def pack_weights(weight: Tensor, bias: Tensor | None = None, alpha: Tensor | None = None) -> PackedWeights:
    """alpha * sign(W) of real weights (O, I, kH, kW); alpha is the mean |W| of a filter (equation 6), or as given.

    Weights that are alpha * sign(W) already keep their alpha to the last bit. A weight that is exactly 0 stays 0, at
    the price of a slower path (PackedWeights.nonzero). XnorNetError for other shapes, NaN and infinity.
    """
    if not isinstance(weight, Tensor):
        hint = ": torch.from_numpy(weight)" if isinstance(weight, np.ndarray) else ""
        raise XnorNetError(f"weights must be a torch.Tensor (O, I, kH, kW), not {type(weight).__name__}{hint}")
    if weight.ndim != 4 or not weight.is_floating_point() or 0 in weight.shape:
        raise XnorNetError(f"weights must be real (O, I, kH, kW), not {weight.dtype} {tuple(weight.shape)}")
    if weight[0].numel() > _LARGEST_FILTER:
        raise XnorNetError(f"a filter of {weight[0].numel()} weights is too large for exact sums, at most 2^24")
    for name, given in (("a bias", bias), ("an alpha", alpha)):
        if given is None or (isinstance(given, Tensor) and given.shape == weight.shape[:1] and not given.is_complex()):
            continue
        found = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise XnorNetError(f"{weight.shape[0]} filters need {name} each, a real torch.Tensor, not {found}")
    values = weight.detach().cpu().to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise XnorNetError("weights contain NaN or infinity; has training diverged?")
    array = values.permute(0, 2, 3, 1).numpy()
    is_zero = bool((array == 0).any())
    return PackedWeights(
        signs=as_words(pack_bits(array < 0)),
        nonzero=as_words(pack_bits(array != 0)) if is_zero else None,
        alpha=_mean_magnitude(values) if alpha is None else _as_float32(alpha),
        bias=None if bias is None else _as_float32(bias),
        in_channels=int(weight.shape[1]),
    )


def not_packed(found: object) -> XnorNetError:
    """The error for what was given in the place of PackedWeights; the caller raises it."""
    hint = ": pack_weights(weight), once, makes them of it" if isinstance(found, Tensor) else ""
    return XnorNetError(f"the weights must be PackedWeights, not {type(found).__name__}{hint}")


def as_words(words: NDArray[np.uint64]) -> Tensor:
    """Words as torch holds them."""
    return torch.from_numpy(np.ascontiguousarray(words).view(np.int64))


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float32).contiguous()


def _mean_magnitude(weight: Tensor) -> Tensor:
    """alpha (O,); where all of a filter have one magnitude, that magnitude itself and not its rounded mean."""
    magnitude = weight.abs().flatten(1)
    mean = magnitude.mean(dim=1, dtype=torch.float64).to(torch.float32)
    return torch.where((magnitude == magnitude[:, :1]).all(dim=1), magnitude[:, 0], mean)
