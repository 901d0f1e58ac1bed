"""Table layers: modules that take or give tables, here lists (or tuples) of tensors, also nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import torch
from torch import nn

from lua_compat.nn.dimensions import from_zero
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register
from lua_compat.values import LuaTable

__all__ = [
    "CAddTable",
    "CAddTensorTable",
    "CDivTable",
    "CMaxTable",
    "CMinTable",
    "CMulTable",
    "CSubTable",
    "FlattenTable",
    "JoinTable",
    "JustElement",
    "JustTable",
    "MixtureTable",
    "NarrowTable",
    "SelectTable",
    "SplitTable",
    "ZipTable",
    "ZipTableOneToMany",
]

Table = list[torch.Tensor] | tuple[torch.Tensor, ...]
NestedTable = list[Any] | tuple[Any, ...]


def like_first(other: torch.Tensor, table: Table) -> torch.Tensor:
    """In the shape of the table's first tensor: Torch7 adds tensors of one size number by number, whatever their shape.

    LayerNormalization and the contrastive normalisations rest on it.
    """
    return other if other.shape == table[0].shape else other.reshape(table[0].shape)


@register("nn.CAddTable")
class CAddTable(Layer):
    """The sum of the tensors of a table.

    In place, on the first tensor, only where no gradient is wanted: the layer before it may need its own output for
    that, as SqueezeNet's ReLU does.
    """

    table_fields = ("gradInput",)

    inplace: bool = False

    def forward(self, x: Table) -> torch.Tensor:
        if self.inplace and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in x)):
            for other in x[1:]:
                x[0].add_(like_first(other, x))
            return x[0]
        total = x[0]
        for other in x[1:]:
            total = total + (other if other.shape == total.shape else other.reshape(total.shape))
        return total


@register("nn.CMulTable")
class CMulTable(Layer):
    """The product of the tensors of a table."""

    table_fields = ("gradInput",)

    def forward(self, x: Table) -> torch.Tensor:
        return reduce(lambda product, other: product * like_first(other, x), x)


@register("nn.CSubTable")
class CSubTable(Layer):
    """a - b"""

    table_fields = ("gradInput",)

    def forward(self, x: Table) -> torch.Tensor:
        return x[0] - like_first(x[1], x)


@register("nn.CDivTable")
class CDivTable(Layer):
    """a / b"""

    table_fields = ("gradInput",)

    def forward(self, x: Table) -> torch.Tensor:
        return x[0] / like_first(x[1], x)


@register("nn.CMaxTable")
class CMaxTable(Layer):
    """The larger of the tensors at each place; of equal ones the first gets the gradient (nn/CMaxTable.lua)."""

    table_fields = ("gradInput",)

    def forward(self, x: Table) -> torch.Tensor:
        return reduce(lambda most, other: torch.where(other > most, other, most), x)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), **dict.fromkeys(("mask", "maxIdx", "maxVals", "gradMaxVals"), out.empty())}


@register("nn.CMinTable")
class CMinTable(Layer):
    """The smaller of the tensors at each place; of equal ones the first gets the gradient."""

    table_fields = ("gradInput",)

    def forward(self, x: Table) -> torch.Tensor:
        return reduce(lambda least, other: torch.where(other < least, other, least), x)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), **dict.fromkeys(("mask", "minIdx", "minVals", "gradMaxVals"), out.empty())}


@register("nn.CAddTensorTable")
class CAddTensorTable(Layer):
    """{v, {t1, t2, ...}} to {v + t1, v + t2, ...}"""

    table_fields = ("gradInput",)

    def forward(self, x: NestedTable) -> list[torch.Tensor]:
        return [x[0] + other for other in x[1]]


@register("nn.JoinTable")
class JoinTable(Layer):
    """The tensors of a table one after the other along a dimension."""

    table_fields = ("gradInput",)

    dimension: int
    n_input_dims: int | None = None

    def forward(self, x: Table) -> torch.Tensor:
        return torch.cat(tuple(x), from_zero(self.dimension, x[0].dim(), self.n_input_dims))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "size": out.sizes(())}


@register("nn.SplitTable")
class SplitTable(Layer):
    """A tensor to the table of its slices along a dimension."""

    dimension: int
    n_input_dims: int | None = None

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(x.unbind(from_zero(self.dimension, x.dim(), self.n_input_dims)))


@register("nn.SelectTable")
class SelectTable(nn.Module):
    """One entry of a table: by its number (from 1, or from -1 at the end), or by its name."""

    def __init__(self, index: int | str):
        super().__init__()
        self.index = index

    @classmethod
    def from_t7(cls, fields: Fields) -> SelectTable:
        index = fields.value("index")
        return cls(index if isinstance(index, str) else fields.integer("index"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"index": self.index, "gradInput": LuaTable()}

    def forward(self, x: NestedTable | Mapping[str, Any]) -> Any:
        if isinstance(x, Mapping):
            return x[self.index]  # type: ignore[index]
        index = int(self.index)
        if index == 0 or abs(index) > len(x):
            raise ValueError(f"SelectTable: no entry {index} in a table of {len(x)}")
        return x[index - 1 if index > 0 else index]

    def extra_repr(self) -> str:
        return f"{self.index}"


@register("nn.NarrowTable")
class NarrowTable(Layer):
    """The entries `offset` to `offset + length - 1` of a table."""

    table_fields = ("output", "gradInput")

    offset: int
    length: int = 1

    def forward(self, x: NestedTable) -> list[Any]:
        return list(x[self.offset - 1 : self.offset - 1 + self.length])


@register("nn.FlattenTable")
class FlattenTable(Layer):
    """A nested table to a flat one."""

    table_fields = ("output", "gradInput", "input_map")

    def forward(self, x: NestedTable) -> list[torch.Tensor]:
        return list(flattened(x))


def flattened(table: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested table, in order."""
    if isinstance(table, torch.Tensor):
        yield table
    else:
        for entry in table:
            yield from flattened(entry)


@register("nn.ZipTable")
class ZipTable(Layer):
    """{{a1, a2}, {b1, b2}} to {{a1, b1}, {a2, b2}}"""

    table_fields = ("output", "gradInput")

    def forward(self, x: NestedTable) -> list[list[Any]]:
        return [list(entries) for entries in zip(*x, strict=True)]


@register("nn.ZipTableOneToMany")
class ZipTableOneToMany(Layer):
    """{v, {a, b}} to {{v, a}, {v, b}}"""

    table_fields = ("output", "gradInput")

    def forward(self, x: NestedTable) -> list[list[Any]]:
        return [[x[0], other] for other in x[1]]

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {**super().to_t7(out), "gradInputEl": out.empty()}


@register("nn.MixtureTable")
class MixtureTable(Layer):
    """{gates, experts} to the sum of the experts times their gates.

    gates (N, E) or (E); experts a table of E tensors (N, ...), or one tensor with the experts along `dim`.
    """

    table_fields = ("gradInput",)

    dim: int | None = None

    def forward(self, x: NestedTable) -> torch.Tensor:
        gates, experts = x
        dim = (1 if gates.dim() < 2 else 2) if self.dim is None else self.dim
        if not isinstance(experts, torch.Tensor):
            experts = torch.stack(list(experts), dim - 1)
        shape = [1] * experts.dim()
        if gates.dim() > 1:
            shape[0] = len(gates)
        shape[dim - 1] = gates.shape[-1]
        mixed: torch.Tensor = (gates.view(shape) * experts).sum(dim - 1)
        return mixed

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        state = {"size": out.sizes(()), "size2": out.sizes(()), "batchSize": 0, "backwardSetup": False}
        return {**super().to_t7(out), **state}


@register("nngraph.JustElement")
class JustElement(Layer):
    """The one entry of a table."""

    table_fields = ("gradInput",)

    def forward(self, x: NestedTable) -> Any:
        return x[0]


@register("nngraph.JustTable")
class JustTable(Layer):
    """A table with one entry."""

    table_fields = ("output",)

    def forward(self, x: Any) -> list[Any]:
        return [x]
