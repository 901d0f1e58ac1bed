"""Dropout with Torch7's masks and scaling (nn/SpatialDropout.lua, nn/Dropout.lua)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["Dropout", "SpatialDropout", "VolumetricDropout", "set_generator"]


def set_generator(network: nn.Module, generator: Generator | None) -> None:
    """Let every module that draws draw from a Torch7 generator (None: from PyTorch's own, on the device).

    These are the modules with an attribute `generator`: dropouts, WhiteNoise, RReLU, fractional pooling.
    """
    for module in network.modules():
        if "generator" in vars(module):
            vars(module)["generator"] = generator


def bernoulli(shape: tuple[int, ...], p: float, like: torch.Tensor, generator: Generator | None) -> torch.Tensor:
    """A tensor of ones with probability p, else zeros, with dtype and device of `like` (THTensor_(bernoulli))."""
    if generator is None:
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(p)
    mask = generator.fill_bernoulli(np.empty(shape, np.float32), p)
    drawn = torch.from_numpy(mask)
    if like.is_cuda:  # from pinned memory the host need not wait for the copy, and so not for all that is before it
        return drawn.pin_memory().to(like, non_blocking=True)
    return drawn.to(like)


@register("nn.SpatialDropout")
class SpatialDropout(nn.Module):
    """Drop whole feature maps of (N, C, H, W) or (C, H, W).

    Unlike PyTorch's Dropout2d nothing is scaled up in training; evaluation multiplies by 1 - p instead.
    """

    n_map_dims: ClassVar[int] = 2

    def __init__(self, p: float = 0.5, stochastic_inference: bool = False, generator: Generator | None = None):
        super().__init__()
        self.p = p
        self.stochastic_inference = stochastic_inference
        self.generator = generator

    @classmethod
    def from_t7(cls, fields: Fields) -> SpatialDropout:
        return cls(float(fields.number("p", default=0.5)), fields.boolean("stochastic_inference", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"p": self.p, "stochastic_inference": self.stochastic_inference, "noise": out.empty()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training or self.stochastic_inference):
            return x * (1 - self.p)
        n_map_dims = self.n_map_dims
        if x.dim() - n_map_dims not in (1, 2):
            raise ValueError(
                f"{type(self).__name__}: input should have {n_map_dims + 1} or {n_map_dims + 2} dimensions, "
                f"found shape {tuple(x.shape)}"
            )
        shape = (*x.shape[:-n_map_dims], *(1,) * n_map_dims)
        return x * bernoulli(shape, 1 - self.p, x, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@register("nn.VolumetricDropout")
class VolumetricDropout(SpatialDropout):
    """Drop whole feature maps of (N, C, T, H, W) or (C, T, H, W), as SpatialDropout."""

    n_map_dims: ClassVar[int] = 3


@register("nn.Dropout")
class Dropout(nn.Module):
    """Drop single numbers; `v2` (since 2014) scales by 1 / (1 - p) in training, older ones by 1 - p in testing.

    Element-Research's rnn adds `lazy`, one mask for all steps of a sequence (until `forget`), and `mono`, one for all
    samples of a batch.
    """

    def __init__(
        self,
        p: float = 0.5,
        v2: bool = True,
        stochastic_inference: bool = False,
        generator: Generator | None = None,
        lazy: bool = False,
        mono: bool = False,
    ):
        super().__init__()
        self.lazy = lazy
        self.mono = mono
        self.mask: torch.Tensor | None = None
        self.p = p
        self.v2 = v2
        self.stochastic_inference = stochastic_inference
        self.generator = generator

    @classmethod
    def from_t7(cls, fields: Fields) -> Dropout:
        return cls(
            float(fields.number("p", default=0.5)),
            fields.boolean("v2", default=False),
            fields.boolean("stochastic_inference", default=False),
            lazy=fields.boolean("lazy", default=False),
            mono=fields.boolean("mono", default=False),
        )

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {
            "lazy": self.lazy or None,
            "mono": self.mono or None,
            "flag": True if self.lazy else None,
            "p": self.p,
            "v2": self.v2,
            "stochastic_inference": self.stochastic_inference,
            "inplace": False,
            "noise": out.empty(),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.p > 0 and (self.training or self.stochastic_inference):
            mask = self._next_mask(x)
            return x * (mask / (1 - self.p) if self.v2 else mask)
        return x if self.v2 else x * (1 - self.p)

    def _next_mask(self, x: torch.Tensor) -> torch.Tensor:
        if self.lazy and self.mask is not None:
            return self.mask
        mask = bernoulli((1, *x.shape[1:]) if self.mono else tuple(x.shape), 1 - self.p, x, self.generator)
        self.mask = mask if self.lazy else None
        return mask

    def extra_repr(self) -> str:
        return f"p={self.p}, v2={self.v2}"


@writes(nn.Dropout, "nn.Dropout")
def dropout_fields(module: nn.Dropout, out: FieldWriter) -> dict[str, object]:
    """Made in PyTorch."""
    return {"p": module.p, "v2": True, "inplace": module.inplace, "stochastic_inference": False, "noise": out.empty()}
