"""Containers (the nn manual's chapter of that name)."""

from __future__ import annotations

from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__: list[str] = []


@register("nn.Sequential")
def sequential(fields: Fields) -> nn.Sequential:
    """nn/Sequential.lua"""
    return nn.Sequential(*fields.children())


@writes(nn.Sequential, "nn.Sequential")
def sequential_fields(module: nn.Sequential, out: FieldWriter) -> dict[str, object]:
    return {"modules": out.children(list(module))}
