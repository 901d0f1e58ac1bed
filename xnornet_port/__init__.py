"""XNOR-Net on PyTorch: the networks, training and testing of the original Torch7 code.

    from xnornet_port import XnorModel, build_model, load_model
    network = build_model("alexnetxnor", n_classes=1000, seed=2)
    network = load_model("alexnet_XNOR.t7")
    packed = XnorModel.from_model(network)               # binary layers on XNOR and popcount kernels

PyTorch is imported when one of these is used; `python main.py -help` answers without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from xnornet_port.errors import XnorNetError

if TYPE_CHECKING:
    from xnornet_port.model import build_model, load_model
    from xnornet_port.xnor_inference import XnorModel

__all__ = ["XnorModel", "XnorNetError", "build_model", "load_model"]


def __getattr__(name: str) -> Any:
    if name in ("build_model", "load_model"):
        return getattr(importlib.import_module("xnornet_port.model"), name)
    if name == "XnorModel":
        return importlib.import_module("xnornet_port.xnor_inference").XnorModel
    raise AttributeError(f"module 'xnornet_port' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
