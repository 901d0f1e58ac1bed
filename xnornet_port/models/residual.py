"""What residual networks of either kind share: how deep they are, and the ways around their blocks.

Origin: facebook's fb.resnet.torch models/resnet.lua, `layer` and `shortcut`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lua_compat.nn.containers import Concat, ConcatTable
from lua_compat.nn.simple_math import MulConstant
from lua_compat.nn.table import CAddTable
from xnornet_port.errors import XnorNetError
from xnornet_port.layers import average_pooling, batch_normalization, convolution, max_pooling, relu
from xnornet_port.models.settings import SHORTCUT_TYPES, NetworkSettings

__all__ = ["Plan", "Stage", "plan_of", "shortcut", "stages", "stem", "summed"]

# Blocks in each of the four stages, by depth.
BASIC_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class Stage:
    """Blocks of equal width; the first of them has the stride."""

    n_blocks: int
    n_features: int
    stride: int


@dataclass(frozen=True)
class Plan:
    """`is_small`: for pictures of 32x32, three stages; else of 224x224, four."""

    stages: tuple[Stage, ...]
    is_bottleneck: bool
    is_small: bool


def plan_of(settings: NetworkSettings) -> Plan:
    """The stages that -depth and -dataset ask for; XnorNetError where there is no such network."""
    depth, for_cifar = settings.depth, settings.dataset.startswith("cifar")
    if settings.shortcut_type not in SHORTCUT_TYPES:
        raise XnorNetError(f"-shortcutType {settings.shortcut_type}: expected one of {', '.join(SHORTCUT_TYPES)}")
    counts = {**BASIC_DEPTHS, **BOTTLENECK_DEPTHS}.get(depth)
    if counts is not None and not for_cifar:
        widths = (64, 128, 256, 512)
        planned = tuple(Stage(n, width, 1 if width == 64 else 2) for n, width in zip(counts, widths, strict=True))
        return Plan(planned, is_bottleneck=depth in BOTTLENECK_DEPTHS, is_small=False)
    if depth < 8 or depth % 6 != 2:
        large = ", ".join(str(known) for known in (*BASIC_DEPTHS, *BOTTLENECK_DEPTHS))
        others = "for -dataset cifar" if for_cifar else f"one of {large}, or for pictures of 32x32"
        raise XnorNetError(f"-depth {depth}: expected {others} 6n + 2 (20, 32, 44, 56, 110, 1202)")
    n_blocks = (depth - 2) // 6
    return Plan((Stage(n_blocks, 16, 1), Stage(n_blocks, 32, 2), Stage(n_blocks, 64, 2)), False, is_small=True)


def stages(plan: Plan, block: Callable[[int, int, int], nn.Sequential]) -> list[nn.Sequential]:
    """The stages' blocks, made by block(input planes, features, stride)."""
    n_inputs = plan.stages[0].n_features
    made = []
    for stage in plan.stages:
        blocks = []
        for position in range(stage.n_blocks):
            blocks.append(block(n_inputs, stage.n_features, stage.stride if position == 0 else 1))
            n_inputs = stage.n_features * (4 if plan.is_bottleneck else 1)
        made.append(nn.Sequential(*blocks))
    return made


def stem(plan: Plan, *, bias: bool) -> list[nn.Module]:
    """What leads to the first stage: a convolution, with or without bias, normalised; large pictures are pooled."""
    if plan.is_small:
        return [convolution(3, 16, 3, padding=1, bias=bias), batch_normalization(16), relu()]
    first = convolution(3, 64, 7, stride=2, padding=3, bias=bias)
    return [first, batch_normalization(64), relu(), max_pooling(3, 2, padding=1)]  # 224 -> 112 -> 56


def summed(branch: nn.Sequential, way_around: nn.Module) -> nn.Sequential:
    """branch(x) + way_around(x)"""
    return nn.Sequential(ConcatTable([branch, way_around]), CAddTable(inplace=True))


def shortcut(
    kind: str, n_inputs: int, n_outputs: int, stride: int, projection: Callable[[int, int, int], nn.Sequential]
) -> nn.Module:
    """The way around a block: B projects where the number of planes changes, C always, A fills up with zeros."""
    changes = n_inputs != n_outputs
    if kind == "C" or (kind == "B" and changes):
        return projection(n_inputs, n_outputs, stride)
    if not changes:
        return nn.Identity()
    filled_up = Concat([nn.Identity(), MulConstant(0)], dimension=2)  # as many planes again, of zeros
    return nn.Sequential(average_pooling(1, stride, package="nn"), filled_up)
