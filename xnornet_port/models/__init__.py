"""The networks of -netType: a network is one file with one function and a line in this table."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from xnornet_port.models.alexnet import alexnet
from xnornet_port.models.alexnetxnor import alexnetxnor

__all__ = ["NETWORKS"]

NETWORKS: dict[str, Callable[[int, float], nn.Sequential]] = {
    "alexnet": alexnet,
    "alexnetxnor": alexnetxnor,
}
