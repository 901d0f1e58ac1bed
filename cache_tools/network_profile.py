"""What a network costs, layer by layer: sizes, bits, bytes and multiply-adds.

A binary layer is a convolution that the Binarizer takes: all but the first and the last. Of kind "xnor" are those with
binary weights and inputs, whose products are XNOR and popcount; "binary weights" are those with real inputs, whose
products are additions. A packed network's binary layers are what its file says; batch normalisation, ReLU and pooling
between two of them are thresholds in it, and no layers any more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from cache_tools.network_input import likely_sizes
from lua_compat.nn import origin_of
from lua_compat.nn.registry import registered_writer
from xnornet_port.binarization import binary_convolutions
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.kernels import PackedInput
from xnornet_port.kernels.packing import n_words
from xnornet_port.layers import BinActiveZ
from xnornet_port.xnor_inference import XnorModel
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution

__all__ = [
    "REFUSALS",
    "WORD_BITS",
    "LayerProfile",
    "profile_network",
    "theoretical_speedup",
    "torch7_path",
]

WORD_BITS = 64
FLOAT_BYTES = 4

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError)
"""What modules raise on an input that they do not take: another size, a tensor for a table, a picture for a word."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerProfile:
    """One layer; memory in bytes, without what it computes. `weight_shape` of a convolution or linear layer."""

    name: str  # path of Torch7's numbers, "5.3"
    kind: str  # Torch7's class
    input_shape: Shape
    output_shape: Shape
    weights: str  # "xnor", "binary weights" or "float"
    binary_parameters: int
    float_parameters: int
    statistics: int  # running means and variances
    float_bytes: int  # all of it as float32
    packed_bytes: int  # binary weights as words of 64 channels, with a factor per filter
    multiply_adds: int  # of one picture
    weight_shape: Shape | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def speedup(self) -> float | None:
        """The paper's, of a layer with binary weights and inputs."""
        if self.weights != "xnor" or self.weight_shape is None:
            return None
        return theoretical_speedup(self.weight_shape[1], math.prod(self.weight_shape[2:]))


def theoretical_speedup(channels: int, kernel_area: int) -> float:
    """S = 64 c N_W / (c N_W + 64) of the paper's section 4.1: c channels, N_W = w h elements of the filter."""
    products = channels * kernel_area
    return WORD_BITS * products / (products + WORD_BITS)


def profile_network(network: nn.Module, binary_weights: bool, size: int | Shape | None) -> list[LayerProfile]:
    """The layers in the order in which one picture runs through them: `size` is its side, or (C, H, W).

    With a side alone it has the channels that the network takes; with None its side is guessed as well. A
    layer that is used twice comes twice, with its parameters the first time. A packed network is what its file says,
    whatever `binary_weights` is. Raises XnorNetError where the network takes no such picture, and where a guessed
    size is not answered by one vector.
    """
    network = network.network if isinstance(network, XnorModel) else network  # its layers one by one
    sizes = likely_sizes(network, size)
    problems = []
    for sample in sizes:
        try:
            return _profile_at(network, binary_weights, sample, is_guessed=size is None)
        except (*REFUSALS, XnorNetError) as error:
            problems.append(reason_of(error))
    tried = ", ".join("x".join(map(str, sample)) for sample in sizes)
    advice = (
        "if it takes one picture at all, name its size with --size C,H,W"
        if size is None
        else "give another --size, N or C,H,W"
    )
    raise XnorNetError(f"the network takes no picture of {tried} ({problems[0]}); {advice}")


def _profile_at(network: nn.Module, binary_weights: bool, sample: Shape, is_guessed: bool) -> list[LayerProfile]:
    """A guessed size is the right one where it is answered by a vector; of a typed one maps of numbers do as well."""
    binary = {id(layer) for layer in binary_convolutions(network)} if binary_weights else set()
    layers: list[LayerProfile] = []
    parameter = next(network.parameters(), torch.zeros(1))
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(1, *sample, generator=generator).to(parameter)
    with _watched(network, binary, layers), torch.no_grad():
        answer = network(picture)
    rows = [output.shape for output in (answer if isinstance(answer, list | tuple) else [answer])]
    if any((len(shape) > 2 and is_guessed) or (len(shape) == 2 and shape[0] != 1) for shape in map(_squeezed, rows)):
        raise ValueError(f"one of {'x'.join(map(str, sample))} is answered by {list(map(tuple, rows))}")
    return layers


def _squeezed(shape: torch.Size) -> Shape:
    """Without the ones at the end: (1, 10, 1, 1) is an answer of ten numbers."""
    sizes = list(shape)
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


@contextmanager
def _watched(network: nn.Module, binary: set[int], layers: list[LayerProfile]) -> Iterator[None]:
    """Inside, each layer that runs is added to `layers`; the network is in evaluation mode there."""
    was_training = network.training
    network.eval()
    signs, seen = _Signs(), set[int]()
    handles = []
    for path, module in network.named_modules():
        if next(module.children(), None) is None or any(True for _ in module.parameters(recurse=False)):
            name = torch7_path(path)

            def hook(layer: nn.Module, inputs: tuple[object, ...], output: object, name: str = name) -> None:
                given = inputs[0] if inputs else None
                weights = "float" if id(layer) not in binary else "xnor" if signs.is_sign(given) else "binary weights"
                if isinstance(layer, XnorConvolution | BinaryWeightConvolution):
                    layers.append(_profile_packed(layer, name, given, output, id(layer) in seen))
                else:
                    layers.append(_profile_layer(layer, name, given, output, weights, id(layer) in seen))
                seen.add(id(layer))
                signs.note(layer, given, output)

            handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)


def torch7_path(path: str) -> str:
    """ "4.members.2" is Torch7's "5.3": it counts from 1, and knows members of containers by their numbers alone."""
    parts = [part for part in path.split(".") if part != "members"]
    return ".".join(str(int(part) + 1) if part.isdigit() else part for part in parts)


def _profile_layer(
    layer: nn.Module, name: str, given: object, output: object, weights: str, is_again: bool
) -> LayerProfile:
    parameters = 0 if is_again else sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    statistics = 0 if is_again else sum(b.numel() for b in layer.buffers(recurse=False) if b.is_floating_point())
    weight = _weight_of_products(layer)
    n_binary = weight.numel() if weights != "float" and weight is not None and not is_again else 0
    float_bytes = FLOAT_BYTES * (parameters + statistics)
    packed_bytes = float_bytes
    if n_binary and weight is not None:
        packed_bytes += _packed_bytes(weight) - FLOAT_BYTES * n_binary
    return LayerProfile(
        name=name,
        kind=_class_name(layer),
        input_shape=_shape(given),
        output_shape=_shape(output),
        weights=weights,
        binary_parameters=n_binary,
        float_parameters=parameters - n_binary,
        statistics=statistics,
        float_bytes=float_bytes,
        packed_bytes=packed_bytes,
        multiply_adds=0 if weight is None else weight.numel() * _positions(layer, given, output),
        weight_shape=None if weight is None else tuple(weight.shape),
        stride=_pair(layer, "stride", 1),
        padding=_pair(layer, "padding", 0),
        dilation=_pair(layer, "dilation", 1),
    )


def _profile_packed(
    layer: XnorConvolution | BinaryWeightConvolution, name: str, given: object, output: object, is_again: bool
) -> LayerProfile:
    """A layer of a packed file, beside the convolution that it was: weights and biases."""
    geometry, kernel = layer.geometry, layer.kernel_size
    groups = layer.groups if isinstance(layer, BinaryWeightConvolution) else 1
    n_float = 0 if layer.bias is None or is_again else layer.out_channels
    n_binary = 0 if is_again else layer.n_weights
    _, height, width = _shape(given)
    return LayerProfile(
        name=name,
        kind=type(layer).__name__,
        input_shape=_shape(given),
        output_shape=_shape(output),
        weights="xnor" if isinstance(layer, XnorConvolution) else "binary weights",
        binary_parameters=n_binary,
        float_parameters=n_float,
        statistics=0,
        float_bytes=FLOAT_BYTES * (n_binary + n_float),
        packed_bytes=0 if is_again else sum(buffer.nbytes for buffer in layer.buffers()),
        multiply_adds=layer.n_weights * math.prod(geometry.output_size((height, width), kernel)),  # before pooling
        weight_shape=(layer.out_channels, layer.in_channels // groups, *kernel),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )


def _packed_bytes(weight: torch.Tensor) -> int:
    """As pack_weights stores it: words of 64 channels, twice where a weight is exactly 0, and alpha per filter."""
    n_filters, n_inputs, *kernel = weight.shape
    planes = 2 if bool((weight == 0).any()) else 1
    return planes * n_filters * math.prod(kernel) * n_words(n_inputs) * (WORD_BITS // 8) + n_filters * FLOAT_BYTES


def _weight_of_products(layer: nn.Module) -> torch.Tensor | None:
    """The weight of a layer that multiplies by it at every place of its output."""
    if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
        return layer.weight
    return None


def _positions(layer: nn.Module, given: object, output: object) -> int:
    """At how many places of the output, or of a transposed convolution's input, the whole weight is used."""
    if isinstance(layer, nn.Linear):
        return math.prod(_shape(output)[:-1])
    shape = _shape(given) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else _shape(output)
    return math.prod(shape[1:])


def _shape(value: object) -> Shape:
    """Of the one picture: without the batch. Of a table of tensors, the first one's."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, PackedInput):
        return (value.channels, *value.signs.shape[1:3])
    if not isinstance(value, torch.Tensor):
        return ()
    return tuple(value.shape[1:]) if value.ndim > 1 else tuple(value.shape)


def _pair(layer: nn.Module, name: str, otherwise: int) -> tuple[int, int]:
    value = getattr(layer, name, otherwise)
    return (value[0], value[1]) if isinstance(value, tuple) and len(value) == 2 else (otherwise, otherwise)


def _class_name(layer: nn.Module) -> str:
    """Torch7's, where there is one."""
    origin = origin_of(layer)
    found = registered_writer(type(layer), None if origin is None else origin.typename)
    return type(layer).__name__ if found is None else found[0]


class _Signs:
    """Which tensors hold nothing but signs: what BinActiveZ gives, and what later layers leave so."""

    def __init__(self) -> None:
        self._tensors: dict[int, torch.Tensor] = {}  # by address; kept, so that no address comes twice

    def is_sign(self, value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.data_ptr() in self._tensors

    def note(self, layer: nn.Module, given: object, output: object) -> None:
        """Look at a layer that ran."""
        if not isinstance(output, torch.Tensor):
            return
        if isinstance(layer, BinActiveZ) or (self.is_sign(given) and bool((output == output.sign()).all())):
            self._tensors[output.data_ptr()] = output
        else:
            self._tensors.pop(output.data_ptr(), None)  # a layer that works in place
