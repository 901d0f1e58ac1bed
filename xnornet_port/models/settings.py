"""What the options say about a network that is to be built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xnornet_port.schemes import ORIGINAL, scheme_named

if TYPE_CHECKING:
    from xnornet_port.schemes.scheme import Scheme

__all__ = ["SHORTCUT_TYPES", "NetworkSettings"]

SHORTCUT_TYPES = ("A", "B", "C")


@dataclass(frozen=True)
class NetworkSettings:
    """Each network takes what it has a use for."""

    n_classes: int = 1000
    dropout: float = 0.5  # share that is dropped, 0 <= dropout < 1
    depth: int = 18  # of residual networks: the layers with weights on the longest way
    shortcut_type: str = "B"  # of residual networks: one of SHORTCUT_TYPES
    dataset: str = "imagenet"  # names that begin with cifar: pictures of 32x32
    scheme: str = ORIGINAL  # of the binary blocks: a key of SCHEMES, or ORIGINAL

    @property
    def binary(self) -> Scheme:
        """What makes the network's binary blocks, `settings.binary.block(32, 64, 3, padding=1)`.

        Raises XnorNetError for an unknown scheme.
        """
        return scheme_named("xnor" if self.scheme == ORIGINAL else self.scheme)
