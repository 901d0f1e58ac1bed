"""The networks of -netType: a network is one file with one function and a line in this table.

The table imports neither the networks nor PyTorch; what is built is imported then. docs/extending.md adds a network.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from xnornet_port.models.settings import NetworkSettings

if TYPE_CHECKING:
    from torch import nn

    from lua_compat.generator import Generator

__all__ = ["NETWORKS", "Network", "NetworkSettings"]


class Network(NamedTuple):
    """Where a network's function is, and the function of xnornet_port.initialization that its original amounts to."""

    builder: str  # ".file.function" in this folder, or "package.file.function" anywhere
    initialization: str

    def build(self, settings: NetworkSettings) -> nn.Sequential:
        """The network, its parameters without values; XnorNetError for settings that it does not have."""
        network: nn.Sequential = _imported(self.builder)(settings)
        return network

    def initialize(self, network: nn.Module, generator: Generator) -> None:
        """Draw the parameters, in place."""
        _imported(f"xnornet_port.initialization.{self.initialization}")(network, generator)


NETWORKS = {
    "alexnet": Network(".alexnet.alexnet", "as_xnornet"),
    "alexnetxnor": Network(".alexnetxnor.alexnetxnor", "as_xnornet"),
    "overfeat": Network(".overfeat.overfeat", "as_constructed"),
    "alexnetowt": Network(".alexnetowt.alexnetowt", "as_constructed"),
    "alexnetowtbn": Network(".alexnetowt.alexnetowtbn", "as_constructed"),
    "alexnettowers": Network(".alexnettowers.alexnettowers", "as_constructed"),
    "vgg": Network(".vgg.vgg", "as_constructed"),
    "vggbn": Network(".vgg.vggbn", "as_constructed"),
    "googlenet": Network(".googlenet.googlenet", "as_constructed"),
    "googlenetbn": Network(".googlenet.googlenetbn", "as_constructed"),
    "ninbn": Network(".ninbn.ninbn", "as_constructed"),
    "ninxnor": Network(".ninxnor.ninxnor", "as_xnornet"),
    "vggsmall": Network(".vggsmall.vggsmall", "as_xnornet"),
    "squeezenet": Network(".squeezenet.squeezenet", "as_constructed"),
    "resnet": Network(".resnet.resnet", "as_residual"),
    "resnetxnor": Network(".resnetxnor.resnetxnor", "as_xnornet"),
}


def _imported(path: str) -> Any:
    module, _, function = path.rpartition(".")
    return getattr(importlib.import_module(module, package=__name__), function)
