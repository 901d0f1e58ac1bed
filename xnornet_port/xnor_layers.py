"""The layers of a packed network: binary convolutions whose weights are bits.

`XnorConvolution` has binary inputs and runs on the kernels; `BinaryWeightConvolution` has real inputs (a Binary-Weight-
Network) and unpacks its weights whenever it is run. Both are written and read like modules of a .t7 file, under class
names of their own, which is what packed files are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import lua_compat
from lua_compat.nn import register
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from xnornet_port.errors import XnorNetError
from xnornet_port.input_scale import input_scale
from xnornet_port.kernels import (
    Backend,
    Geometry,
    PackedInput,
    PackedWeights,
    Pooling,
    Thresholds,
)
from xnornet_port.kernels.operations import convolve, convolve_to_signs
from xnornet_port.kernels.packing import n_words, not_packed
from xnornet_port.kernels.sums import can_sum, signed_sums
from xnornet_port.kernels.uncompiled import uncompiled

__all__ = ["BinaryWeightConvolution", "XnorConvolution", "binary_layers", "state_of"]

Pair = tuple[int, int]
# Weights that a BinaryWeightConvolution unpacks at a time: 16 MB of float32.
_UNPACKED_AT_ONCE = 1 << 22


@register("xnornet.XnorConvolution")
class XnorConvolution(nn.Module):
    """Convolution of sign(x) with alpha sign(W), plus bias, on packed bits (XNOR-Net paper, section 3.2).

    x is real (N, I, H, W) or a `PackedInput`. Without thresholds the result is real (N, O, H', W'); with them the
    pooled, normalised and signed result as a `PackedInput` for the next XnorConvolution. `place` is the name of the
    convolution in the network it was made of. `input_scaled`: the result is times K before the bias is added
    (`input_scale`), which takes a real x. It passes no gradient on. `.to(device)` changes the backend with the device.
    """

    signs: torch.Tensor  # int64 (O, kH, kW, words)
    nonzero: torch.Tensor | None
    alpha: torch.Tensor  # float32 (O)
    bias: torch.Tensor | None
    positive_from: torch.Tensor | None  # int32 (O), as the next
    negative_to: torch.Tensor | None
    descending: torch.Tensor | None  # bool (O)

    def __init__(
        self,
        packed: PackedWeights,
        geometry: Geometry,
        place: str,
        thresholds: Thresholds | None = None,
        pooling: Pooling | None = None,
        backend: str | Backend = "cpu",
        input_scaled: bool = False,
    ):
        super().__init__()
        if not isinstance(packed, PackedWeights):
            raise not_packed(packed)
        self.input_scaled = input_scaled
        self.in_channels = packed.in_channels
        self.geometry = geometry
        self.pooling = pooling
        self.place = place
        self.backend = backend
        self.register_buffer("signs", packed.signs)
        self.register_buffer("nonzero", packed.nonzero)
        self.register_buffer("alpha", packed.alpha)
        self.register_buffer("bias", packed.bias)
        self.register_buffer("positive_from", thresholds.positive_from if thresholds else None)
        self.register_buffer("negative_to", thresholds.negative_to if thresholds else None)
        self.register_buffer("descending", thresholds.descending if thresholds else None)
        self._current: tuple[object, PackedWeights, Thresholds | None] | None = None

    @property
    def out_channels(self) -> int:
        return int(self.signs.shape[0])

    @property
    def kernel_size(self) -> Pair:
        return int(self.signs.shape[1]), int(self.signs.shape[2])

    @property
    def n_weights(self) -> int:
        """Binary weights, without the padding of the words."""
        return self.out_channels * self.in_channels * self.kernel_size[0] * self.kernel_size[1]

    @property
    def thresholds(self) -> Thresholds | None:
        """The buffers as the kernels take them; None where the result is real."""
        return self._prepared()[1]

    @property
    def packed(self) -> PackedWeights:
        """The buffers as the kernels take them."""
        return self._prepared()[0]

    def _prepared(self) -> tuple[PackedWeights, Thresholds | None]:
        """The same two objects until a buffer changes, for backends keep with them what they make of them."""
        state = state_of(self._buffers.values())
        if self._current is None or self._current[0] != state:
            thresholds = None
            if self.positive_from is not None and self.negative_to is not None and self.descending is not None:
                thresholds = Thresholds(self.positive_from, self.negative_to, self.descending)
            packed = PackedWeights(self.signs, self.nonzero, self.alpha, self.bias, self.in_channels)
            self._current = (state, packed, thresholds)
        return self._current[1:]

    @uncompiled
    def forward(self, x: torch.Tensor | PackedInput) -> torch.Tensor | PackedInput:
        packed, thresholds = self._prepared()
        if packed.alpha.dtype != torch.float32:
            raise XnorNetError(f"{self.place}: packed layers compute in float32, not {packed.alpha.dtype}")
        if thresholds is None:
            factor = self._input_scale(x) if self.input_scaled else None
            return convolve(x, packed, self.geometry, self.backend, factor)
        return convolve_to_signs(x, packed, thresholds, self.geometry, self.pooling, self.backend)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """.to(device) and the like: on a GPU with the kernels for it, and back."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.signs.is_cuda != (self.backend == "cuda"):
            self.backend = "cuda" if self.signs.is_cuda else "cpu"
        return self

    def _input_scale(self, x: torch.Tensor | PackedInput) -> torch.Tensor:
        if isinstance(x, PackedInput):
            raise XnorNetError(f"{self.place}: its input scale needs real numbers, not bits")
        return input_scale(x.to(torch.float32), self.kernel_size, self.geometry.stride, self.geometry.padding)

    def unpacked(self) -> torch.Tensor:
        """sign(W) as float32 (O, I, kH, kW)."""
        return _signs_of(self.signs.view(torch.uint8), self.nonzero, self.in_channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        ending = ", to bits" if self.positive_from is not None else ", input scale" if self.input_scaled else ""
        pooling = f", pooling={self.pooling.kernel}" if self.pooling else ""
        sizes = f"kernel_size={self.kernel_size}, stride={self.geometry.stride}, padding={self.geometry.padding}"
        return f"{self.in_channels}, {self.out_channels}, {sizes}{pooling}{ending}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_current": None}  # what a backend has prepared is not copied

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        pooling = self.pooling
        return {
            "nInputPlane": self.in_channels,
            "nOutputPlane": self.out_channels,
            **_pair_fields("k", self.kernel_size),
            **_geometry_fields(self.geometry),
            **({} if pooling is None else _pair_fields("poolK", pooling.kernel)),
            **({} if pooling is None else _pair_fields("poolD", pooling.stride)),
            **({} if pooling is None else _pair_fields("poolPad", pooling.padding)),
            "poolCeil": None if pooling is None else pooling.ceil_mode,
            "inputScaled": self.input_scaled or None,
            "place": self.place,
            **_buffer_fields(self, self.in_channels),
        }

    @classmethod
    def from_t7(cls, fields: Fields) -> XnorConvolution:
        n_inputs, n_outputs, kernel = _sizes(fields)
        words = (n_outputs, *kernel, n_words(n_inputs))
        packed = PackedWeights(
            signs=_tensor(fields, "signs", words, np.int64),
            nonzero=_nonzero(fields, words, np.int64, n_inputs),
            alpha=_tensor(fields, "alpha", (n_outputs,), np.float32),
            bias=_tensor(fields, "bias", (n_outputs,), np.float32) if "bias" in fields else None,
            in_channels=n_inputs,
        )
        thresholds = None
        if "positive_from" in fields:
            thresholds = Thresholds(
                _tensor(fields, "positive_from", (n_outputs,), np.int32),
                _tensor(fields, "negative_to", (n_outputs,), np.int32),
                _tensor(fields, "descending", (n_outputs,), np.uint8).bool(),
            )
        pooling = _pooling(fields) if "poolKH" in fields else None
        if pooling is not None and thresholds is None:
            raise fields.error("it pools, but has no thresholds (positive_from)")
        input_scaled = fields.boolean("inputScaled", default=False)
        if input_scaled and thresholds is not None:
            raise fields.error("it has thresholds (positive_from), which an input scale (inputScaled) rules out")
        place = fields.string("place")
        return cls(packed, _geometry(fields), place, thresholds, pooling, input_scaled=input_scaled)


@register("xnornet.BinaryWeightConvolution")
class BinaryWeightConvolution(nn.Module):
    """Convolution of real x with alpha sign(W), plus bias: the weights are bits, 32 times smaller (BWN).

    Where the kernel covers its whole input (a fully connected layer) and the C library is there, the sums are taken
    from the bits themselves (`kernels.sums`), several times quicker than with float weights. Elsewhere, and where a
    gradient is wanted, the weights are unpacked on every call, at most 16 MB at a time, and forgotten again: the price
    of a call is written in docs/packed.md. The unpacked weights are those of the float network to the bit.
    """

    signs: torch.Tensor  # uint8 (O, ceil(I/groups kH kW / 8)), bit 1 where negative, in the order of the weights
    nonzero: torch.Tensor | None
    alpha: torch.Tensor  # float32 (O)
    bias: torch.Tensor | None

    def __init__(
        self,
        signs: torch.Tensor,
        nonzero: torch.Tensor | None,
        alpha: torch.Tensor,
        bias: torch.Tensor | None,
        filter_shape: tuple[int, int, int],
        geometry: Geometry,
        groups: int,
        place: str,
    ):
        super().__init__()
        self.filter_shape = filter_shape
        self.geometry = geometry
        self.groups = groups
        self.place = place
        self.register_buffer("signs", signs)
        self.register_buffer("nonzero", nonzero)
        self.register_buffer("alpha", alpha)
        self.register_buffer("bias", bias)

    @classmethod
    def pack(
        cls, weight: torch.Tensor, alpha: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry, groups: int,
        place: str,
    ) -> BinaryWeightConvolution:  # fmt: skip
        """weight (O, I/groups, kH, kW) of any scale, alpha (O)."""
        flat = weight.detach().flatten(1).numpy()
        zeros = bool((flat == 0).any())
        return cls(
            _packed_bits(flat < 0), _packed_bits(flat != 0) if zeros else None, alpha, bias,
            (weight.shape[1], weight.shape[2], weight.shape[3]), geometry, groups, place,
        )  # fmt: skip

    @property
    def in_channels(self) -> int:
        return self.filter_shape[0] * self.groups

    @property
    def out_channels(self) -> int:
        return int(self.signs.shape[0])

    @property
    def kernel_size(self) -> Pair:
        return self.filter_shape[1], self.filter_shape[2]

    @property
    def n_weights(self) -> int:
        """Binary weights."""
        return self.out_channels * prod(self.filter_shape)

    @uncompiled
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._takes_sums(x):
            return self._summed(x)
        step = max(1, _UNPACKED_AT_ONCE // prod(self.filter_shape)) if self.groups == 1 else self.out_channels
        if step >= self.out_channels:
            return self._convolved(x, slice(None))
        starts = range(0, self.out_channels, step)
        return torch.cat([self._convolved(x, slice(start, start + step)) for start in starts], dim=-3)

    def _takes_sums(self, x: torch.Tensor) -> bool:
        """Whether it is a product of matrices from bits; not where torch is told to sum as Torch7 did (`summation`)."""
        is_wanted = bool(torch.backends.mkldnn.enabled) and not (torch.is_grad_enabled() and x.requires_grad)
        is_plain = self.geometry.padding == (0, 0) and self.geometry.dilation == (1, 1) and self.groups == 1
        is_product = is_plain and x.dim() == 4 and x.shape[1:] == self.filter_shape
        return is_wanted and is_product and self.nonzero is None and can_sum(x, self.alpha)

    def _summed(self, x: torch.Tensor) -> torch.Tensor:
        return signed_sums(x.detach().flatten(1), self.signs, self.alpha, self.bias)[:, :, None, None]

    def unpacked(self, filters: slice = slice(None)) -> torch.Tensor:
        """sign(W) as float32 (O, I/groups, kH, kW), of some filters."""
        nonzero = None if self.nonzero is None else self.nonzero[filters]
        flat = _signs_of(self.signs[filters], nonzero, prod(self.filter_shape))
        return flat.view(-1, *self.filter_shape)

    def _convolved(self, x: torch.Tensor, filters: slice) -> torch.Tensor:
        weight = self.unpacked(filters).mul_(self.alpha[filters].view(-1, 1, 1, 1))
        bias = None if self.bias is None else self.bias[filters]
        geometry = self.geometry
        return functional.conv2d(
            x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, self.groups
        )  # as nn.Conv2d calls it

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.geometry.stride}, padding={self.geometry.padding}"
        return f"{self.in_channels}, {self.out_channels}, {sizes}"

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {
            "nInputPlane": self.in_channels,
            "nOutputPlane": self.out_channels,
            "groups": self.groups,
            **_pair_fields("k", self.kernel_size),
            **_geometry_fields(self.geometry),
            "place": self.place,
            **_buffer_fields(self, prod(self.filter_shape)),
        }

    @classmethod
    def from_t7(cls, fields: Fields) -> BinaryWeightConvolution:
        n_inputs, n_outputs, kernel = _sizes(fields)
        groups = fields.integer("groups")
        if groups < 1 or n_inputs % groups or n_outputs % groups:
            raise fields.error(f"{groups} groups do not divide {n_inputs} input and {n_outputs} output planes")
        filter_shape = (n_inputs // groups, *kernel)
        packed_shape = (n_outputs, -(-prod(filter_shape) // 8))
        return cls(
            _tensor(fields, "signs", packed_shape, np.uint8),
            _nonzero(fields, packed_shape, np.uint8, prod(filter_shape)),
            _tensor(fields, "alpha", (n_outputs,), np.float32),
            _tensor(fields, "bias", (n_outputs,), np.float32) if "bias" in fields else None,
            filter_shape,
            _geometry(fields),
            groups,
            fields.string("place"),
        )


def binary_layers(network: nn.Module) -> list[XnorConvolution | BinaryWeightConvolution]:
    """The packed layers of a network in its order."""
    return [module for module in network.modules() if isinstance(module, XnorConvolution | BinaryWeightConvolution)]


def state_of(tensors: Iterable[torch.Tensor | None]) -> object:
    """Equal to an earlier answer only where the tensors and their numbers are those of then."""
    try:
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors if tensor is not None]
    except RuntimeError:  # tensors made in torch.inference_mode() do not count their changes: they may have changed
        return object()


def _packed_bits(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.packbits(bits, axis=-1, bitorder="little"))


def _signs_of(signs: torch.Tensor, nonzero: torch.Tensor | None, n: int) -> torch.Tensor:
    """Bytes (..., ceil(n/8) or more) of bits, 1 where negative, to float32 (..., n) of +1, -1 and 0."""
    values = _looked_up(signs, 1.0, -1.0)
    if nonzero is not None:
        values *= _looked_up(nonzero.view(torch.uint8), 0.0, 1.0)
    return values[..., :n]


def _looked_up(packed: torch.Tensor, for_0: float, for_1: float) -> torch.Tensor:
    """(..., bytes) to (..., 8 bytes) numbers, one for each bit, the lowest first. A table is the quickest way."""
    places = torch.arange(8, device=packed.device)
    bits = (torch.arange(256, device=packed.device).view(-1, 1) >> places) & 1
    table = torch.where(bits == 1, for_1, for_0).to(torch.float32)
    return functional.embedding(packed.to(torch.int32), table).flatten(-2)


def _pair_fields(prefix: str, pair: Pair) -> dict[str, int]:
    return {f"{prefix}H": pair[0], f"{prefix}W": pair[1]}


def _geometry_fields(geometry: Geometry) -> dict[str, int]:
    pairs = {"d": geometry.stride, "pad": geometry.padding, "dilation": geometry.dilation}
    return {name: size for prefix, pair in pairs.items() for name, size in _pair_fields(prefix, pair).items()}


def _buffer_fields(layer: nn.Module, n_bits: int) -> dict[str, object]:
    """The buffers as arrays. A few zeros among the weights are listed in `zeros` in place of the plane `nonzero`."""
    arrays = {name: np.asarray(buffer.detach().cpu().numpy()) for name, buffer in layer.named_buffers()}
    nonzero = arrays.get("nonzero")
    if nonzero is not None:
        bits = np.unpackbits(nonzero.view(np.uint8), axis=-1, bitorder="little", count=n_bits)
        zeros = np.flatnonzero(bits == 0)
        if len(zeros) < bits.size // 64:
            del arrays["nonzero"]
            arrays["zeros"] = zeros
    return {name: lua_compat.tensor(array) for name, array in arrays.items()}


def _nonzero(fields: Fields, shape: tuple[int, ...], dtype: type[np.generic], n_bits: int) -> torch.Tensor | None:
    """The plane of what is not zero, n_bits in each row of `shape`; None where no weight is zero."""
    if "zeros" not in fields:
        return _tensor(fields, "nonzero", shape, dtype) if "nonzero" in fields else None
    rows = prod(shape[:-1])
    zeros = fields.array("zeros")
    if (
        zeros.dtype != np.int64
        or zeros.ndim != 1
        or zeros.size == 0
        or not 0 <= zeros.min() <= zeros.max() < rows * n_bits
    ):
        raise fields.error(f"field zeros should list weights, each below {rows * n_bits}")
    row = np.zeros(shape[-1] * np.dtype(dtype).itemsize, np.uint8)
    ones = np.packbits(np.ones(n_bits, bool), bitorder="little")
    row[: len(ones)] = ones
    plane = np.tile(row, (rows, 1))
    bit = zeros % n_bits
    np.bitwise_and.at(plane, (zeros // n_bits, bit // 8), ~(1 << bit % 8).astype(np.uint8))
    return torch.from_numpy(plane.view(dtype).reshape(shape))


def _sizes(fields: Fields) -> tuple[int, int, Pair]:
    """Input planes, output planes and kernel, each at least 1."""
    sizes = [fields.integer(name) for name in ("nInputPlane", "nOutputPlane", "kH", "kW")]
    if min(sizes) < 1:
        raise fields.error(f"planes and kernel should be at least 1, found {sizes}")
    return sizes[0], sizes[1], (sizes[2], sizes[3])


def _pair(fields: Fields, prefix: str) -> Pair:
    return fields.integer(f"{prefix}H"), fields.integer(f"{prefix}W")


def _geometry(fields: Fields) -> Geometry:
    try:
        return Geometry.of(_pair(fields, "d"), _pair(fields, "pad"), _pair(fields, "dilation"))
    except XnorNetError as error:
        raise fields.error(str(error)) from error


def _pooling(fields: Fields) -> Pooling:
    ceil_mode = fields.boolean("poolCeil", default=False)
    try:
        return Pooling(_pair(fields, "poolK"), _pair(fields, "poolD"), _pair(fields, "poolPad"), ceil_mode)
    except XnorNetError as error:
        raise fields.error(str(error)) from error


def _tensor(fields: Fields, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> torch.Tensor:
    """A tensor of this shape and type, on the file's own memory."""
    array = fields.array(name, shape)
    if array.dtype != dtype:
        raise fields.error(f"field {name} should hold {np.dtype(dtype)}, found {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise fields.error(f"field {name} holds a number that is not finite")
    return torch.from_numpy(np.asarray(array).view(np.ndarray))
