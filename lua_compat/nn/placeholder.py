"""What stands in a network for a class that nobody has registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lua_compat.errors import UnknownModuleError
from lua_compat.nn.registry import writes
from lua_compat.values import TorchObject

if TYPE_CHECKING:
    from lua_compat.nn.network_writer import FieldWriter

__all__ = ["Placeholder"]


class Placeholder(nn.Module):
    """Keeps a Torch7 module as it was read: visible when printed, written back unchanged, an error when called."""

    def __init__(self, source: TorchObject, place: str):
        super().__init__()
        self.source = source
        self.place = place

    def forward(self, x: Any) -> Any:
        raise UnknownModuleError(
            f"{self.source.typename} at {self.place or 'the root'}: only a placeholder, it cannot compute "
            f"(register a module for the class, or put one in its place)"
        )

    def extra_repr(self) -> str:
        return self.source.typename


@writes(Placeholder, "nn.Module")
def placeholder_fields(module: Placeholder, out: FieldWriter) -> dict[str, object]:
    return dict(module.source.items())
