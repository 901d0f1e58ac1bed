"""A trained network whose binary layers run on packed bits: XnorModel.

model = XnorModel.from_model(load_model("alexnet_XNOR.t7"))
log_probabilities = model(pictures)                         # (N, 3, 224, 224) float32 on the CPU
model.save("alexnet_XNOR.xnor.safetensors")                 # 24 MB in place of 250
model = XnorModel.load("alexnet_XNOR.xnor.safetensors")     # no float weight of a binary layer ever exists
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn import writes
from lua_compat.nn.network_writer import FieldWriter
from xnornet_port.binarization import binary_convolutions, has_binary_weights, has_mean_centred_weights
from xnornet_port.errors import XnorNetError
from xnornet_port.first_layers import FirstLayers
from xnornet_port.kernels import Backend, load_backend
from xnornet_port.kernels.uncompiled import uncompiled
from xnornet_port.layers import BinActiveZ
from xnornet_port.packed_file import read_packed, write_packed
from xnornet_port.summation import covers_whole_input
from xnornet_port.xnor_conversion import packed_network
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution, binary_layers

__all__ = ["XnorModel"]


class XnorModel(nn.Module):
    """A network for testing and use, not for training: binary layers on packed bits, first and last layer in float.

    Its buffers are the packed words, so that state_dict and .to(device) work; on a GPU the backend is "cuda".
    """

    def __init__(self, network: nn.Module, backend: str = "cpu"):
        """`network` as `packed_network` makes it; use `from_model` or `load`."""
        super().__init__()
        self.network = network.requires_grad_(False)
        self._first = FirstLayers.of(network)
        self._precision = torch.float32
        self.use_backend(backend)
        self.eval()

    @classmethod
    def from_model(cls, model: nn.Module, backend: str = "cpu", binary_weights: bool = False) -> Self:
        """Pack a trained network; it stays as it is.

        Its weights are latent (then alpha sign(W) is packed, what -testOnly tests) or binary already. A network without
        binary inputs is packed as a Binary-Weight-Network where its weights are binary or mean-centred, the mark of
        training with -binaryWeight, or where `binary_weights` says so. Raises XnorNetError for any other network, and
        where a layer cannot be packed.
        """
        _check_network(model)
        convolutions = binary_convolutions(model)
        if not convolutions:
            raise XnorNetError(
                "the network has no binary layer: all 2-d convolutions but the first and the last are binary"
            )
        has_binary_inputs = any(isinstance(module, BinActiveZ) for module in model.modules())
        is_marked = has_binary_inputs or binary_weights or has_binary_weights(model) or has_mean_centred_weights(model)
        if not is_marked:
            raise XnorNetError(
                "the network has no binary inputs, and its weights bear no mark of training with -binaryWeight: "
                "packed, it would be another network; if it was trained so, say it: main.py -binaryWeight, "
                "cache_tools convert --binary-weight, XnorModel.from_model(..., binary_weights=True)"
            )
        with torch.inference_mode(False):  # whose tensors could not be changed outside of it
            return cls(packed_network(model), backend)

    @classmethod
    def load(cls, path: str | Path, backend: str = "cpu") -> Self:
        """A packed file (`save`, or cache_tools convert). XnorNetError names the file and what is wrong with it."""
        with torch.inference_mode(False):
            return cls(read_packed(path), backend)

    def save(self, path: str | Path, source: str = "") -> None:
        """Write a packed file (safetensors); `source` says in it where the network came from."""
        write_packed(self.network, path, source)

    def use_backend(self, backend: str | Backend) -> None:
        """Compute with "cpu", "cuda", "reference" or a backend of one's own. XnorNetError where it is not to be had."""
        load_backend(backend)
        self.backend = backend
        for layer in self.binary_layers:
            if isinstance(layer, XnorConvolution):
                layer.backend = backend

    @property
    def binary_layers(self) -> list[XnorConvolution | BinaryWeightConvolution]:
        """The packed layers in the network's order."""
        return binary_layers(self.network)

    @property
    def has_binary_inputs(self) -> bool:
        """Whether any layer runs on the XNOR kernels."""
        return any(isinstance(layer, XnorConvolution) for layer in self.binary_layers)

    @uncompiled
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the float network gives for x (N, C, H, W), float32."""
        if not isinstance(x, torch.Tensor):
            hint = ": torch.from_numpy(x)" if isinstance(x, np.ndarray) else ""
            raise XnorNetError(f"a packed network takes a torch.Tensor (N, C, H, W), found {type(x).__name__}{hint}")
        if x.dim() != 4 or x.dtype != torch.float32 or x.numel() == 0 or x.layout != torch.strided:
            layout = "" if x.layout == torch.strided else f", {x.layout}: x.to_dense() is one"
            raise XnorNetError(
                "a packed network takes float32 (N, C, H, W) with nothing empty, "
                f"found {x.dtype} {tuple(x.shape)}{layout}"
            )
        if self._precision != torch.float32:
            raise XnorNetError(f"a packed network computes in float32, not {self._precision}: leave it as it was made")
        with torch.no_grad():
            network = self.network
            result: torch.Tensor = self._sequence(network, x) if type(network) is nn.Sequential else network(x)
        return result

    def _sequence(self, network: nn.Sequential, x: torch.Tensor) -> Any:
        """The modules of a Sequential, the first ones at once where that is possible."""
        modules = list(network)
        bits = None if self._first is None else self._first(x)
        value: Any = x if bits is None else bits
        for module in modules if bits is None or self._first is None else modules[len(self._first.modules) :]:
            value = _run(module, value)
        return value

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """.to(device) and the like: on a GPU with the kernels for it, and back."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        is_cuda = any(layer.signs.is_cuda for layer in self.binary_layers)
        if is_cuda != (self.backend == "cuda"):
            self.use_backend("cuda" if is_cuda else "cpu")
        self._precision = next((layer.alpha.dtype for layer in self.binary_layers), torch.float32)
        return self

    def train(self, mode: bool = True) -> Self:
        """Evaluation only: XnorNetError for mode=True."""
        if mode:
            raise XnorNetError(
                "a packed network cannot be trained: it has no real-valued weights; train the network it was made of"
            )
        return super().train(False)


def _check_network(model: object) -> None:
    """Refuse the name of a file in the place of the network in it, and a network that is packed already."""
    if isinstance(model, str | Path):
        raise XnorNetError(f"{model}: a file's name, not a network: XnorModel.from_model(load_model(path))")
    if isinstance(model, XnorModel):
        raise XnorNetError(
            "the network is packed already, an XnorModel (load_model makes one of a packed file): use it"
        )
    if not isinstance(model, nn.Module):
        raise XnorNetError(f"a torch.nn.Module is packed, not {type(model).__name__}: load_model(path) gives one")


def _run(module: nn.Module, x: Any) -> Any:
    """A last convolution that covers its whole input is a product of matrices, several times quicker."""
    if type(module) is not nn.Conv2d or not torch.backends.mkldnn.enabled:
        return module(x)
    arguments = (module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)
    if module.padding_mode != "zeros" or not covers_whole_input(x, *arguments):
        return module(x)
    return functional.linear(x.flatten(1), module.weight.flatten(1), module.bias)[:, :, None, None]


@writes(XnorModel, "nn.Sequential")
def sequential_fields(module: XnorModel, out: FieldWriter) -> dict[str, object]:
    """Printed, and written, as the Sequential of its layers."""
    inner = module.network
    return {"modules": out.children(list(inner) if type(inner) is nn.Sequential else [inner])}
