"""From a trained network to one with packed binary layers: which layers, with which weights, folded how far."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xnornet_port.binarization import binary_convolutions, has_binary_weights
from xnornet_port.errors import XnorNetError
from xnornet_port.folding import Tail, foldable_tail, integer_thresholds
from xnornet_port.input_scale import InputScaledConvolution
from xnornet_port.kernels import Geometry, pack_weights
from xnornet_port.layers import BinActiveZ
from xnornet_port.schemes import scheme_of
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution

__all__ = ["packed_network"]


def packed_network(network: nn.Module) -> nn.Module:
    """A copy of the network in evaluation mode whose binary convolutions are packed; `network` stays as it is.

    Binary are all 2-d convolutions but the first and the last (`binary_convolutions`). Behind a BinActiveZ they become
    `XnorConvolution`, elsewhere `BinaryWeightConvolution`. Inside Sequentials, however nested, what leads from one
    XnorConvolution to the next is folded into thresholds; in other containers (tables, graphs, modules of one's own)
    each Sequential is folded for itself. Raises XnorNetError for a convolution that cannot be packed, and for a network
    in another precision than float32.
    """
    _check_precision(network)
    convolutions = binary_convolutions(network)
    places = {id(module): name for name, module in network.named_modules()}
    is_binary = has_binary_weights(network)
    if not is_binary:
        _check_sharing(network, convolutions)
    return _Packing({id(c): places[id(c)] for c in convolutions}, is_binary).packed(network).eval()


@dataclass(frozen=True)
class _Packing:
    """The binary convolutions by identity, with their names, and whether they hold alpha sign(W) already."""

    places: dict[int, str]
    is_binary: bool

    def packed(self, module: nn.Module) -> nn.Module:
        """A packed copy of any module."""
        if id(module) in self.places and isinstance(module, nn.Conv2d):
            return self._binary_weights(module)
        if isinstance(module, InputScaledConvolution) and id(module.convolution) in self.places:
            return self._xnor(module.convolution, None, input_scaled=True)
        if type(module) is nn.Sequential:
            return nn.Sequential(*self._sequence(_flattened(module)))
        if not any(id(inner) in self.places for inner in module.modules()):
            return _frozen_copy(module)
        outer = copy.copy(module)
        outer._parameters = {name: copy.deepcopy(value) for name, value in module._parameters.items()}
        outer._buffers = {name: copy.deepcopy(value) for name, value in module._buffers.items()}
        outer._modules = {name: child and self.packed(child) for name, child in module._modules.items()}
        return outer

    def _sequence(self, modules: Sequence[nn.Module]) -> list[nn.Module]:
        """Packed copies of modules that run one after the other."""
        packed: list[nn.Module] = []
        position = 0
        while position < len(modules):
            convolution = self._block_at(modules, position)
            if convolution is None:
                packed.append(self.packed(modules[position]))
                position += 1
            else:
                position, tail = self._tail(modules, position + 2)
                packed.append(self._xnor(convolution, tail))
        return packed

    def _block_at(self, modules: Sequence[nn.Module], position: int) -> nn.Conv2d | None:
        """The binary convolution behind the sign at this position, where there is one and the kernels take it."""
        if position + 1 >= len(modules) or not isinstance(modules[position], BinActiveZ):
            return None
        convolution = modules[position + 1]
        if not isinstance(convolution, nn.Conv2d) or id(convolution) not in self.places or convolution.groups != 1:
            return None
        return convolution

    def _tail(self, modules: Sequence[nn.Module], start: int) -> tuple[int, Tail | None]:
        """What leads from a convolution to the next block's sign, and where that is; None where it does not fold."""
        for end in range(start, len(modules)):
            if self._block_at(modules, end) is not None:
                tail = foldable_tail(modules[start:end])
                return (start, None) if tail is None else (end, tail)
        return start, None

    def _xnor(self, convolution: nn.Conv2d, tail: Tail | None, input_scaled: bool = False) -> XnorConvolution:
        place, geometry = self.places[id(convolution)], _geometry(convolution, self.places[id(convolution)])
        weight, alpha, bias = self._weights(convolution)
        try:
            packed = replace(pack_weights(weight, bias), alpha=alpha)
        except XnorNetError as error:
            raise XnorNetError(f"{place}: {error}") from error
        if tail is None:
            return XnorConvolution(packed, geometry, place, input_scaled=input_scaled)
        modules = [_frozen_copy(module) for module in tail.modules]
        thresholds = integer_thresholds(modules, alpha, packed.bias, weight[0].numel(), place)
        return XnorConvolution(packed, geometry, place, thresholds, tail.pooling)

    def _binary_weights(self, convolution: nn.Conv2d) -> BinaryWeightConvolution:
        place = self.places[id(convolution)]
        weight, alpha, bias = self._weights(convolution)
        return BinaryWeightConvolution.pack(
            weight, alpha, bias, _geometry(convolution, place), convolution.groups, place
        )

    def _weights(self, convolution: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Weight, alpha (O) and bias on the CPU; alpha to the bit that of the float network with binary weights."""
        weight, bias = convolution.weight.detach().cpu(), convolution.bias
        place = self.places[id(convolution)]
        magnitude = weight.abs().flatten(1)
        alpha = magnitude.amax(dim=1) if self.is_binary else scheme_of(convolution).scales(weight)
        bias = None if bias is None else bias.detach().cpu().clone()
        for name, numbers in (("weights", weight), ("scales (the means of |weights|)", alpha), ("biases", bias)):
            if numbers is not None and not bool(torch.isfinite(numbers).all()):
                raise XnorNetError(f"{place}: its {name} contain nan or infinity; has training diverged?")
        return weight, alpha, bias


def _check_precision(network: nn.Module) -> None:
    for place, module in network.named_modules():
        statistics = (module.running_mean, module.running_var) if isinstance(module, _BatchNorm) else ()
        for tensor in (*module.parameters(recurse=False), *statistics):
            if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float32:
                found = f"{place or 'the network'}: only float32 is packed, found {tensor.dtype}"
                raise XnorNetError(f"{found}: convert the network to float")


def _check_sharing(network: nn.Module, convolutions: Sequence[nn.Conv2d]) -> None:
    """While it is tested, latent weights are binary for every layer that has them, which packing cannot follow."""
    binary = set(convolutions)
    weights = {id(convolution.weight): convolution for convolution in convolutions}
    for place, module in network.named_modules():
        shared = [weights[id(p)] for p in module.parameters(recurse=False) if id(p) in weights and module not in binary]
        if shared:
            raise XnorNetError(f"{place}: stays real, but its weights are those of a binary layer, {shared[0]}")


def _geometry(convolution: nn.Conv2d, place: str) -> Geometry:
    if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros":
        raise XnorNetError(f"{place}: only zero padding given in numbers is packed, found {convolution}")
    (stride_y, stride_x), (padding_y, padding_x) = convolution.stride, convolution.padding
    dilation_y, dilation_x = convolution.dilation
    try:
        return Geometry.of((stride_y, stride_x), (padding_y, padding_x), (dilation_y, dilation_x))
    except XnorNetError as error:
        raise XnorNetError(f"{place}: {error}") from error


def _flattened(sequence: nn.Sequential) -> list[nn.Module]:
    """The modules of a Sequential and of the Sequentials in it, in the order in which they run."""
    return [
        inner
        for module in sequence  # children() leaves out a module's second place
        for inner in (_flattened(module) if type(module) is nn.Sequential else [module])
    ]


def _frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode and without gradients."""
    frozen = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    for parameter in frozen.parameters():
        parameter.grad = None
    return frozen
