"""A base for modules of our own whose settings are plain fields of their Torch7 class.

    @register("nn.Narrow")
    class Narrow(Layer):
        dimension: int          # field dimension
        index: int
        length: int = 1
        n_input_dims: int | None = None     # field nInputDims

Each annotated attribute is an argument of the constructor and a field of the .t7 file: read with a check of its type,
its default standing in for a field that old files lack, and written back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import NoneType
from typing import Any, ClassVar, Self, dataclass_transform, get_args, get_type_hints

from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import refuse_lost_state, refuse_unread_state
from lua_compat.values import LuaTable

__all__ = ["Layer"]

_WITH_UNDERSCORES = (
    *("batch_mode", "ceil_mode", "constant_scalar", "max_val", "min_val", "pad_b", "pad_l", "pad_r", "pad_t"),
    *("print_interval", "scale_factor", "stochastic_inference"),
)


@dataclass_transform(eq_default=False)
class Layer(nn.Module):
    """See the module's docstring. `table_fields` names the fields that are tables in Torch7, empty when saved.

    `n_gradients`: gradInput is a table of so many tensors, which Torch7's constructor makes and its backward expects.
    """

    table_fields: ClassVar[tuple[str, ...]] = ()
    n_gradients: ClassVar[int] = 0

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(eq=False, repr=False)(cls)

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        module = super().__new__(cls)
        nn.Module.__init__(module)  # before the dataclass's own __init__ sets attributes
        return module

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        layer = cls(**settings(cls, fields))
        if cls.from_t7.__func__ is Layer.from_t7.__func__:  # type: ignore[attr-defined]
            refuse_unread_state(layer, fields)
        return layer

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        if type(self).to_t7 is Layer.to_t7:
            refuse_lost_state(self, out)
        values = {t7_name(name): getattr(self, name) for name in setting_types(type(self))}
        written = {name: out.sizes(v) if isinstance(v, tuple) else v for name, v in values.items()}
        written |= {name: LuaTable() for name in self.table_fields}
        if self.n_gradients:
            written["gradInput"] = LuaTable([out.empty() for _ in range(self.n_gradients)])
        return written

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in setting_types(type(self)))


def settings(layer: type[Layer], fields: Fields) -> dict[str, Any]:
    """The constructor's arguments as the file has them; those it lacks are left to their defaults."""
    required = {f.name for f in dataclasses.fields(layer) if f.default is dataclasses.MISSING}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, kind in setting_types(layer).items():
        if t7_name(name) in fields or name in required:
            found[name] = _READ[kind](fields, t7_name(name))
    return found


def setting_types(layer: type[Layer]) -> dict[str, Any]:
    """The types of a layer's settings, by name; `X | None` counts as X."""
    hints = get_type_hints(layer)
    names = [f.name for f in dataclasses.fields(layer)]  # type: ignore[arg-type]
    return {name: _without_none(hints[name]) for name in names}


def t7_name(name: str) -> str:
    """n_input_dims -> nInputDims; a few fields have underscores in Torch7 too."""
    if name in _WITH_UNDERSCORES:
        return name
    first, *rest = name.split("_")
    return first + "".join(word[0].upper() + word[1:] for word in rest)


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 and NoneType in get_args(hint) else hint


_READ: dict[Any, Callable[[Fields, str], Any]] = {
    int: lambda fields, name: fields.integer(name),
    float: lambda fields, name: float(fields.number(name)),
    bool: lambda fields, name: fields.boolean(name, default=False),
    str: lambda fields, name: fields.string(name),
    tuple[int, ...]: lambda fields, name: fields.integers(name),
}
