"""Poolings whose places matter: unpooling, and fractional pooling with random windows."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lua_compat.generator import Generator
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.pooling import max_pool2d_fields, max_pool3d_fields
from lua_compat.nn.registry import register, writes

__all__ = [
    "IndexedMaxPool2d",
    "IndexedMaxPool3d",
    "MaxUnpooling",
    "SpatialFractionalMaxPooling",
    "VolumetricFractionalMaxPooling",
]


class IndexedMaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d that keeps where its maxima were, for the unpooling that refers to it."""

    indices: torch.Tensor
    input_shape: torch.Size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, self.indices = functional.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )
        self.input_shape = x.shape
        return pooled


class IndexedMaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that keeps where its maxima were."""

    indices: torch.Tensor
    input_shape: torch.Size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, self.indices = functional.max_pool3d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )
        self.input_shape = x.shape
        return pooled


writes(IndexedMaxPool2d, "nn.SpatialMaxPooling", "cudnn.SpatialMaxPooling")(max_pool2d_fields)
writes(IndexedMaxPool3d, "nn.VolumetricMaxPooling", "cudnn.VolumetricMaxPooling")(max_pool3d_fields)

_INDEXED: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool2d: IndexedMaxPool2d,
    nn.MaxPool3d: IndexedMaxPool3d,
}


@register("nn.SpatialMaxUnpooling", "nn.VolumetricMaxUnpooling")
class MaxUnpooling(nn.Module):
    """Put numbers back where the maxima of `pooling` were, 0 elsewhere; `pooling` must have run just before."""

    def __init__(self, pooling: IndexedMaxPool2d | IndexedMaxPool3d):
        super().__init__()
        self.pooling = pooling

    @classmethod
    def from_t7(cls, fields: Fields) -> MaxUnpooling:
        """The network's own pooling, already made, becomes one that keeps its indices."""
        pooling = fields.module("pooling")
        pooling.__class__ = _INDEXED.get(type(pooling), type(pooling))
        if not isinstance(pooling, IndexedMaxPool2d | IndexedMaxPool3d):
            raise fields.error(f"field pooling should be a max pooling, found {type(pooling).__name__}")
        return cls(pooling)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        if isinstance(self.pooling, IndexedMaxPool3d):
            out.write_as("nn.VolumetricMaxUnpooling")
        return {"pooling": out.module(self.pooling, "pooling")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_spatial = 3 if isinstance(self.pooling, IndexedMaxPool3d) else 2
        size = self.pooling.input_shape[-n_spatial:]
        flat = x.new_zeros(*x.shape[:-n_spatial], prod(size))
        places = self.pooling.indices.flatten(-n_spatial)
        return flat.scatter(-1, places, x.flatten(-n_spatial)).reshape(*x.shape[:-n_spatial], *size)


class _FractionalMaxPooling(nn.Module):
    """What both share: `size` is the output's, or the ratio to the input's, in the order of `axes`.

    The windows are drawn anew at every call, in testing as well, unless `fixed`.
    """

    axes: ClassVar[str]

    def __init__(self, pool: tuple[int, ...], size: tuple[int, ...] | tuple[float, ...], fixed: bool = False):
        super().__init__()
        self.pool = pool
        self.size = size
        self.fixed = fixed
        self.generator: Generator | None = None
        self.samples: torch.Tensor | None = None

    @classmethod
    def from_t7(cls, fields: Fields) -> _FractionalMaxPooling:
        prefix = "ratio" if f"ratio{cls.axes[0]}" in fields else "out"
        size = tuple(fields.number(f"{prefix}{axis}") for axis in cls.axes)
        pool = tuple(fields.integer(f"poolSize{axis}") for axis in cls.axes)
        module = cls(pool, size, fields.boolean("newRandomPool", default=False))
        module.samples = fields.buffer("randomSamples") if module.fixed and "randomSamples" in fields else None
        return module

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        prefix = "ratio" if self._is_ratio() else "out"
        sizes = {f"{prefix}{axis}": size for axis, size in zip(self.axes, self.size, strict=True)}
        pools = {f"poolSize{axis}": size for axis, size in zip(self.axes, self.pool, strict=True)}
        samples = None if self.samples is None else out.tensor(self.samples)
        return {**sizes, **pools, "newRandomPool": self.fixed, "randomSamples": samples}

    def extra_repr(self) -> str:
        return f"pool={self.pool}, size={self.size}"

    def _is_ratio(self) -> bool:
        return any(size < 1 for size in self.size)

    def _output_size(self, input_size: tuple[int, ...]) -> list[int]:
        if self._is_ratio():
            return [int(n * ratio) for n, ratio in zip(input_size, self.size, strict=True)]
        return [int(n) for n in self.size]

    def _draw(self, x: torch.Tensor) -> torch.Tensor:
        """Uniform samples (N, C, number of axes), in the order in which Torch7 draws them."""
        shape = (*x.shape[:2], len(self.axes))
        if self.samples is None or self.samples.shape != shape or not self.fixed:
            if self.generator is None:
                self.samples = torch.rand(shape, dtype=x.dtype, device=x.device)
            else:
                drawn = self.generator.fill_uniform(np.empty(shape, np.float32))
                self.samples = torch.from_numpy(drawn).to(x)
        return self.samples.to(x)


@register("nn.SpatialFractionalMaxPooling")
class SpatialFractionalMaxPooling(_FractionalMaxPooling):
    """nn/SpatialFractionalMaxPooling.lua for (C, H, W) or (N, C, H, W); sizes as (W, H)."""

    axes = "WH"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        width, height = self._output_size((x.shape[-1], x.shape[-2]))
        pooled: torch.Tensor = functional.fractional_max_pool2d(
            x, (self.pool[1], self.pool[0]), output_size=(height, width), _random_samples=self._draw(x)
        )
        return pooled


@register("nn.VolumetricFractionalMaxPooling")
class VolumetricFractionalMaxPooling(_FractionalMaxPooling):
    """nn/VolumetricFractionalMaxPooling.lua: here, unlike elsewhere in nn, T is last, (N, C, H, W, T)."""

    axes = "TWH"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        size = self._output_size((x.shape[-1], x.shape[-2], x.shape[-3]))
        samples = self._draw(x).flip(-1)  # PyTorch takes one for each dimension in their order: H, W, T
        pooled: torch.Tensor = functional.fractional_max_pool3d(
            x, tuple(reversed(self.pool)), output_size=tuple(reversed(size)), _random_samples=samples
        )
        return pooled
