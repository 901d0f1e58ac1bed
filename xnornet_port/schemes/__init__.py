"""Binary schemes: how the binary layers of a network treat weights, inputs and gradients (-scheme).

A scheme is one class, a `Scheme` (scheme.py), and a line in this table, which imports neither them nor PyTorch.
docs/extending.md adds a scheme.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xnornet_port.errors import XnorNetError

if TYPE_CHECKING:
    from torch import nn

    from xnornet_port.schemes.scheme import Scheme

__all__ = ["ORIGINAL", "REAL", "SCHEMES", "SCHEME_FIELD", "import_schemes", "scheme_name", "scheme_named", "scheme_of"]

ORIGINAL = "original"
"""The -scheme of what the original does: a network's binary blocks, where it has them, are XNOR-Net's."""

SCHEME_FIELD = "scheme"
"""The field of a binary convolution in a .t7 file that names its scheme; none: XNOR-Net's arithmetic."""

REAL = "real"
"""In the place of a scheme's name: a convolution among binary ones that stays real."""

SCHEMES = {
    "bwn": ".xnor.BinaryWeights",
    "xnor": ".xnor.Xnor",
    "xnork": ".xnor.XnorWithInputScale",
    "sign": ".scheme.Scheme",
    "xnor++": ".learned_scale.LearnedScale",
    "bireal": ".bireal.BiReal",
}


def scheme_named(name: str) -> Scheme:
    """The scheme of that name; XnorNetError for one that is not in the table."""
    if name not in SCHEMES:
        raise XnorNetError(f"scheme {name}: unknown; available are {', '.join(SCHEMES)}")
    module, _, class_name = SCHEMES[name].rpartition(".")
    made: Any = getattr(importlib.import_module(module, package=__name__), class_name)(name)
    return made  # type: ignore[no-any-return]


def scheme_name(convolution: nn.Module) -> str | None:
    """The name of a scheme, or REAL, that a convolution bears, new or loaded; None for one of the original's."""
    from lua_compat.nn import origin_of

    origin = origin_of(convolution)
    name = origin.extra.get(SCHEME_FIELD) if origin else None
    return None if name is None else str(name)


def scheme_of(convolution: nn.Module) -> Scheme:
    """The scheme of a binary convolution; XNOR-Net's where it bears no name."""
    return scheme_named(scheme_name(convolution) or "xnor")


def import_schemes() -> None:
    """Make the layers of all schemes known to `lua_compat.nn`, before a file is read."""
    for path in SCHEMES.values():
        importlib.import_module(path.rpartition(".")[0], package=__name__)
