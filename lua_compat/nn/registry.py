"""The one table that says which torch.nn module a Torch7 class becomes, and how it is written back.

A reader is registered under the Torch7 class names it understands, a writer under the PyTorch class it can write:

    @register("nn.SpatialConvolution", "cudnn.SpatialConvolution")
    def spatial_convolution(fields: Fields) -> nn.Conv2d: ...

    @writes(nn.Conv2d, "nn.SpatialConvolution")
    def conv2d_fields(module: nn.Conv2d, out: FieldWriter) -> dict[str, object]: ...

One PyTorch class may stand for several Torch7 classes: list them all in `@writes`, the first is the one that a module
made in PyTorch becomes. A writer that needs another says so with `out.write_as("nn.SpatialDilatedConvolution")`.

A class of one's own does both at once; `from_t7` and `to_t7` may be left out where the class has no fields. One with
parameters, buffers or settings but without them is refused, for these would be lost:

    @register("nn.MyLayer")
    class MyLayer(nn.Module):
        @classmethod
        def from_t7(cls, fields: Fields) -> "MyLayer": ...
        def to_t7(self, out: FieldWriter) -> dict[str, object]: ...
        def forward(self, x): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

if TYPE_CHECKING:
    from lua_compat.errors import ModuleError
    from lua_compat.nn.fields import Fields
    from lua_compat.nn.network_writer import FieldWriter

__all__ = [
    "Origin",
    "Reader",
    "Writer",
    "is_container",
    "module_classes",
    "origin_of",
    "refuse_lost_state",
    "refuse_unread_state",
    "register",
    "registered_reader",
    "registered_typenames",
    "registered_writer",
    "set_origin",
    "writes",
    "writes_only",
]

Reader = Callable[["Fields"], nn.Module]
Writer = Callable[[Any, "FieldWriter"], dict[str, object]]
Registered = TypeVar("Registered", bound="type[nn.Module] | Callable[..., Any]")


@dataclass(frozen=True)
class Origin:
    """What a module was in Torch7, kept so that it is written back under its own name."""

    typename: str  # "cudnn.SpatialConvolution"
    extra: Mapping[str, object] = field(default_factory=dict)  # numbers, strings, booleans that its user put on it


_READERS: dict[str, Reader] = {}
_WRITERS: dict[tuple[type[nn.Module], str | None], tuple[str, Writer]] = {}  # None: made in PyTorch
_CONTAINERS: set[str] = set()

_GIVE_BOTH = "give the class to_t7(self, out) and from_t7(cls, fields), as in lua_compat/nn/registry.py"


def register(*typenames: str, container: bool = False) -> Callable[[Registered], Registered]:
    """Register a reader function, or a class of one's own, for these Torch7 class names (the last one wins).

    `container`: all of its field `modules` are modules that it reads with `fields.children()`; they are read before it,
    so that networks may be nested deeper than Python's recursion limit.
    """

    def decorate(target: Registered) -> Registered:
        if container:
            _CONTAINERS.update(typenames)
        if isinstance(target, type):
            _register_class(target, typenames)
        else:
            _READERS.update(dict.fromkeys(typenames, target))
        return target

    return decorate


def writes(module_class: type[nn.Module], typename: str, *others: str) -> Callable[[Writer], Writer]:
    """Register the writer of a PyTorch class; `typename` is the Torch7 class of a module that was not loaded.

    It also writes modules of that PyTorch class that came from `others`, or from a class without a writer of its own.
    """

    def decorate(writer: Writer) -> Writer:
        _WRITERS[module_class, None] = (typename, writer)
        _WRITERS.update({(module_class, name): (name, writer) for name in (typename, *others)})
        return writer

    return decorate


def writes_only(module_class: type[nn.Module], *typenames: str) -> Callable[[Writer], Writer]:
    """Register a writer for modules of a PyTorch class that came from these Torch7 classes."""

    def decorate(writer: Writer) -> Writer:
        _WRITERS.update({(module_class, name): (name, writer) for name in typenames})
        return writer

    return decorate


def registered_reader(typename: str) -> Reader | None:
    """The reader for a Torch7 class name, or None."""
    return _READERS.get(typename)


def registered_typenames() -> dict[str, Reader]:
    """Every Torch7 class name that can be read, with its reader."""
    return dict(_READERS)


def module_classes(typename: str) -> list[type[nn.Module]]:
    """The PyTorch classes that modules of a Torch7 class become, where their writers know it; may be empty."""
    return [module_class for module_class, name in _WRITERS if name == typename]


def is_container(typename: str) -> bool:
    """Whether the class was registered as a container."""
    return typename in _CONTAINERS


def registered_writer(module_class: type[nn.Module], typename: str | None) -> tuple[str, Writer] | None:
    """The default Torch7 class name and the writer for a module that came from `typename`, or None."""
    return _WRITERS.get((module_class, typename)) or _WRITERS.get((module_class, None))


def set_origin(module: nn.Module, origin: Origin) -> None:
    """Remember what a module was in Torch7 (an ordinary attribute: copied with the module, not in its state_dict)."""
    module.__dict__["t7_origin"] = origin


def origin_of(module: nn.Module) -> Origin | None:
    """What the module was in Torch7, or None where it was made in PyTorch."""
    origin = module.__dict__.get("t7_origin")
    return origin if isinstance(origin, Origin) else None


def _register_class(target: type[nn.Module], typenames: tuple[str, ...]) -> None:
    reader: Reader = getattr(target, "from_t7", None) or (lambda fields: _made_without_fields(target, fields))
    writer: Writer = getattr(target, "to_t7", None) or _no_fields
    _READERS.update(dict.fromkeys(typenames, reader))
    _WRITERS.setdefault((target, None), (typenames[0], writer))
    _WRITERS.update({(target, name): (name, writer) for name in typenames})


def _made_without_fields(target: type[nn.Module], fields: Fields) -> nn.Module:
    """The module of a class without from_t7; ModuleError where the file would have to say more than its class."""
    needed = _needed_argument(target)
    if needed:
        raise fields.error(f"{target.__name__} cannot be made without its argument {needed}: {_GIVE_BOTH}")
    module = target()
    refuse_unread_state(module, fields)
    return module


def refuse_unread_state(module: nn.Module, fields: Fields) -> None:
    """ModuleError where a module whose class has no from_t7 of its own has parameters or buffers: they are not read."""
    state = ", ".join(module.state_dict())
    if state:
        raise fields.error(f"{type(module).__name__} has no from_t7 of its own to read its {state}: {_GIVE_BOTH}")


def refuse_lost_state(module: nn.Module, out: FieldWriter) -> None:
    """ModuleError where a module whose class has no to_t7 of its own has parameters or buffers: they would be lost."""
    state = ", ".join(module.state_dict())
    if state:
        raise _loss(module, out, state)


def _loss(module: nn.Module, out: FieldWriter, lost: str) -> ModuleError:
    return out.error(f"{type(module).__name__} has no to_t7 of its own, its {lost} would be lost: {_GIVE_BOTH}")


def _no_fields(module: nn.Module, out: FieldWriter) -> dict[str, object]:
    """Nothing, for a module of a class without to_t7; ModuleError where something of it would be lost."""
    refuse_lost_state(module, out)
    lost = _lost_setting(module)
    if lost:
        raise _loss(module, out, lost)
    return {}


def _lost_setting(module: nn.Module) -> str:
    """An argument of the constructor whose value a module made without arguments has not, or "modules"; else ""."""
    target = type(module)
    if hasattr(target, "from_t7") and origin_of(module) is not None:
        return ""  # the plain fields that it was read from are written again
    needed = _needed_argument(target)
    if needed:
        return needed
    fresh = target()
    for name in inspect.signature(target).parameters:
        ours, theirs = getattr(module, name, None), getattr(fresh, name, None)
        if _is_plain(ours) and _is_plain(theirs) and ours != theirs:
            return name
    return "" if [type(m) for m in module.modules()] == [type(m) for m in fresh.modules()] else "modules"


def _is_plain(value: object) -> bool:
    """Whether it can be compared: others, such as tensors, may refuse to be."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _needed_argument(target: type[nn.Module]) -> str:
    """The first argument without a default that the constructor has, or ""."""
    parameters = inspect.signature(target).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return next((p.name for p in parameters if p.default is p.empty and p.kind not in variable), "")
