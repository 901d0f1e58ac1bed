"""Each binary layer of a packed network against float convolutions of signs, integer by integer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cache_tools.parity_verdict import LayerCheck
from xnornet_port.input_scale import input_scale
from xnornet_port.kernels import Geometry, PackedInput, PackedWeights, Pooling, Thresholds, xnor_dot
from xnornet_port.kernels.packing import unpack_bits
from xnornet_port.kernels.reference import pack_input, pooled_signs, scaled
from xnornet_port.xnor_inference import XnorModel
from xnornet_port.xnor_layers import XnorConvolution

__all__ = ["FloatConvolutions", "LayerChecks", "signs_as_floats"]


class FloatConvolutions:
    """A backend of the kernels that unpacks everything and convolves floats: sums of +-1 are exact in float32."""

    def pack_input(self, x: Tensor) -> PackedInput:
        return pack_input(x)

    def xnor_conv2d(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return scaled(self.xnor_dot(x, packed, geometry), packed)

    def xnor_dot(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        weights = PackedInput(packed.signs, packed.nonzero, packed.in_channels)
        size = x.signs.shape[1:3] if isinstance(x, PackedInput) else x.shape[2:]
        geometry.output_size((size[0], size[1]), packed.kernel_size)  # says where the kernel does not fit
        return float_dots(x, signs_as_floats(weights), geometry)

    def xnor_sign(
        self,
        x: Tensor | PackedInput,
        packed: PackedWeights,
        thresholds: Thresholds,
        geometry: Geometry,
        pooling: Pooling | None,
    ) -> PackedInput:
        return pooled_signs(self.xnor_dot(x, packed, geometry), thresholds, pooling)


@dataclass
class LayerChecks:
    """Watches a packed network and, where there is one, the float network it came from; adds up what differs."""

    model: XnorModel
    network: nn.Module | None  # with the signs that the packed weights should have; None: those that they have
    checks: dict[str, LayerCheck] = field(default_factory=dict)
    _float_inputs: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for layer in self._layers():
            self.checks.setdefault(layer.place, LayerCheck(layer.place))

    def _layers(self) -> list[XnorConvolution]:
        return [layer for layer in self.model.binary_layers if isinstance(layer, XnorConvolution)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, run the float network on a batch and then the packed one."""
        handles = []
        for layer in self._layers():
            if self.network is not None:
                handles.append(self.network.get_submodule(layer.place).register_forward_hook(self._note(layer.place)))
            handles.append(layer.register_forward_hook(self._compare))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, place: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._float_inputs[place] = inputs[0].detach().sign()

        return hook

    def _compare(
        self, layer: nn.Module, inputs: tuple[Tensor | PackedInput, ...], output: Tensor | PackedInput
    ) -> None:
        if not isinstance(layer, XnorConvolution):
            return
        check, x = self.checks[layer.place], inputs[0]
        dots = xnor_dot(
            x, layer.packed, layer.geometry.stride, layer.geometry.padding, layer.geometry.dilation, layer.backend
        ).cpu()
        expected = float_dots(x, self._signs(layer), layer.geometry)
        check.n_dots += expected.numel()
        differing = (dots != expected).sum(dim=(0, 2, 3))
        for number in differing.nonzero().flatten().tolist():
            check.wrong_filters[number + 1] = check.wrong_filters.get(number + 1, 0) + int(differing[number])
        check.wrong_outputs += _wrong_outputs(layer, x, dots, output)
        theirs = self._float_inputs.pop(layer.place, None)
        if theirs is not None:
            check.n_signs += theirs.numel()
            check.other_signs += int((theirs.cpu() != as_signs(x)).sum())

    def _signs(self, layer: XnorConvolution) -> Tensor:
        if self.network is None:
            return layer.unpacked().cpu()
        weight = self.network.get_submodule(layer.place).weight
        return weight.detach().sign().cpu() if isinstance(weight, Tensor) else layer.unpacked().cpu()


def _wrong_outputs(layer: XnorConvolution, x: Tensor | PackedInput, dots: Tensor, output: Tensor | PackedInput) -> int:
    """How many outputs are not what follows from these dot products; bits are counted in words of 64."""
    thresholds = layer.thresholds
    if isinstance(output, PackedInput) and thresholds is not None:
        expected = pooled_signs(dots, thresholds, layer.pooling)
        wrong = output.signs.cpu() != expected.signs
        ours, theirs = signs_as_floats(output) != 0, signs_as_floats(expected) != 0
        return int(wrong.sum()) + int((ours != theirs).sum())
    if isinstance(output, Tensor):
        return int((output.cpu() != _scaled(layer, x, dots)).sum())
    return dots.numel()


def _scaled(layer: XnorConvolution, x: Tensor | PackedInput, dots: Tensor) -> Tensor:
    """What numbers follow from the dot products: alpha dot + bias, or alpha dot K + bias."""
    if not layer.input_scaled or isinstance(x, PackedInput):
        return scaled(dots, layer.packed)
    factor = input_scale(x, layer.kernel_size, layer.geometry.stride, layer.geometry.padding).cpu()
    product = scaled(dots, replace(layer.packed, bias=None, prepared={})) * factor
    return product if layer.bias is None else product + layer.bias.cpu().view(1, -1, 1, 1)


def as_signs(x: Tensor | PackedInput) -> Tensor:
    """+1, -1 and 0 as float32 (N, C, H, W); NaN counts as 0."""
    return signs_as_floats(x) if isinstance(x, PackedInput) else x.detach().cpu().sign().nan_to_num(0.0)


def signs_as_floats(bits: PackedInput) -> Tensor:
    """Packed signs (N, H, W, words) as +1, -1 and 0, float32 (N, C, H, W)."""
    negative = unpack_bits(bits.signs.cpu().numpy().view(np.uint64), bits.channels)
    values = 1 - 2 * negative.astype(np.float32)
    if bits.nonzero is not None:
        values *= unpack_bits(bits.nonzero.cpu().numpy().view(np.uint64), bits.channels)
    return torch.from_numpy(values.transpose(0, 3, 1, 2))


def float_dots(x: Tensor | PackedInput, signs: Tensor, geometry: Geometry) -> Tensor:
    """The integer dot products of signs, int32, by a float convolution; exact, for the sums stay below 2**24."""
    sums = functional.conv2d(
        as_signs(x).contiguous(), signs.contiguous(), None, geometry.stride, geometry.padding, geometry.dilation
    )
    return sums.round_().to(torch.int32)
