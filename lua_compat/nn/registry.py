"""The one table that says which torch.nn module a Torch7 class becomes, and how it is written back.

A reader is registered under the Torch7 class names it understands, a writer under the PyTorch class it can write:

    @register("nn.SpatialConvolution", "cudnn.SpatialConvolution")
    def spatial_convolution(fields: Fields) -> nn.Conv2d: ...

    @writes(nn.Conv2d, "nn.SpatialConvolution")
    def conv2d_fields(module: nn.Conv2d, out: FieldWriter) -> dict[str, object]: ...

A class of one's own does both at once; `from_t7` and `to_t7` may be left out where the class has no fields:

    @register("nn.MyLayer")
    class MyLayer(nn.Module):
        @classmethod
        def from_t7(cls, fields: Fields) -> "MyLayer": ...
        def to_t7(self, out: FieldWriter) -> dict[str, object]: ...
        def forward(self, x): ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

if TYPE_CHECKING:
    from lua_compat.nn.fields import Fields
    from lua_compat.nn.network_writer import FieldWriter

__all__ = [
    "Origin",
    "Reader",
    "Writer",
    "origin_of",
    "register",
    "registered_reader",
    "registered_writer",
    "set_origin",
    "writes",
]

Reader = Callable[["Fields"], nn.Module]
Writer = Callable[[Any, "FieldWriter"], dict[str, object]]
Registered = TypeVar("Registered", bound="type[nn.Module] | Callable[..., Any]")


@dataclass(frozen=True)
class Origin:
    """What a module was in Torch7, kept so that it is written back under its own name."""

    typename: str  # "cudnn.SpatialConvolution"


_READERS: dict[str, Reader] = {}
_WRITERS: dict[type[nn.Module], tuple[str, Writer]] = {}


def register(*typenames: str) -> Callable[[Registered], Registered]:
    """Register a reader function, or a class of one's own, for these Torch7 class names (the last one wins)."""

    def decorate(target: Registered) -> Registered:
        if isinstance(target, type):
            _register_class(target, typenames)
        else:
            _READERS.update(dict.fromkeys(typenames, target))
        return target

    return decorate


def writes(module_class: type[nn.Module], typename: str) -> Callable[[Writer], Writer]:
    """Register the writer of a PyTorch class; `typename` is the Torch7 class of a module that was not loaded."""

    def decorate(writer: Writer) -> Writer:
        _WRITERS[module_class] = (typename, writer)
        return writer

    return decorate


def registered_reader(typename: str) -> Reader | None:
    """The reader for a Torch7 class name, or None."""
    return _READERS.get(typename)


def registered_writer(module: nn.Module) -> tuple[str, Writer] | None:
    """The default Torch7 class name and the writer for a module, or None."""
    return _WRITERS.get(type(module))


def set_origin(module: nn.Module, origin: Origin) -> None:
    """Remember what a module was in Torch7 (an ordinary attribute: copied with the module, not in its state_dict)."""
    module.__dict__["t7_origin"] = origin


def origin_of(module: nn.Module) -> Origin | None:
    """What the module was in Torch7, or None where it was made in PyTorch."""
    origin = module.__dict__.get("t7_origin")
    return origin if isinstance(origin, Origin) else None


def _register_class(target: type[nn.Module], typenames: tuple[str, ...]) -> None:
    reader: Reader = getattr(target, "from_t7", None) or (lambda fields: target())
    writer: Writer = getattr(target, "to_t7", None) or (lambda module, out: {})
    _READERS.update(dict.fromkeys(typenames, reader))
    _WRITERS[target] = (typenames[0], writer)
