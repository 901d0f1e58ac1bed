"""Padding and up-sampling of pictures and volumes (the convolution chapter's layers without parameters)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["UpSampling"]


def _sides(fields: Fields) -> tuple[int, int, int, int]:
    left = fields.integer("pad_l")
    others = (fields.integer(f"pad_{side}", default=left) for side in "rtb")
    right, top, bottom = others
    return left, right, top, bottom


@register("nn.SpatialZeroPadding")
def zero_padding(fields: Fields) -> nn.ZeroPad2d:
    """A negative number crops, as in PyTorch."""
    return nn.ZeroPad2d(_sides(fields))


@register("nn.SpatialReflectionPadding")
def reflection_padding(fields: Fields) -> nn.ReflectionPad2d:
    return nn.ReflectionPad2d(_sides(fields))


@register("nn.SpatialReplicationPadding")
def replication_padding(fields: Fields) -> nn.ReplicationPad2d:
    return nn.ReplicationPad2d(_sides(fields))


@writes(nn.ZeroPad2d, "nn.SpatialZeroPadding")
@writes(nn.ReflectionPad2d, "nn.SpatialReflectionPadding")
@writes(nn.ReplicationPad2d, "nn.SpatialReplicationPadding")
def padding_fields(
    module: nn.ZeroPad2d | nn.ReflectionPad2d | nn.ReplicationPad2d, out: FieldWriter
) -> dict[str, object]:
    return {f"pad_{side}": size for side, size in zip("lrtb", module.padding, strict=True)}


_VOLUME_SIDES = ("left", "right", "top", "bottom", "front", "back")


@register("nn.VolumetricReplicationPadding")
def volumetric_replication_padding(fields: Fields) -> nn.ReplicationPad3d:
    left = fields.integer("pleft")
    left_to_back = [fields.integer(f"p{side}", default=left) for side in _VOLUME_SIDES]
    return nn.ReplicationPad3d(tuple(left_to_back))  # type: ignore[arg-type]


@writes(nn.ReplicationPad3d, "nn.VolumetricReplicationPadding")
def volumetric_padding_fields(module: nn.ReplicationPad3d, out: FieldWriter) -> dict[str, object]:
    return {f"p{side}": size for side, size in zip(_VOLUME_SIDES, module.padding, strict=True)}


@register("nn.UpSampling", "nn.SpatialUpSamplingNearest", "nn.SpatialUpSamplingBilinear")
class UpSampling(nn.Module):
    """Larger by a whole factor, or to a size: "nearest", or "linear" with the corners aligned.

    (C, H, W), (N, C, H, W) or (N, C, T, H, W).
    """

    def __init__(self, scale_factor: int | None, mode: str = "nearest", size: tuple[int, ...] | None = None):
        super().__init__()
        self.scale_factor = scale_factor
        self.mode = mode
        self.size = size

    @classmethod
    def from_t7(cls, fields: Fields) -> UpSampling:
        mode = "linear" if fields.typename == "nn.SpatialUpSamplingBilinear" else fields.string("mode", "nearest")
        if "scale_factor" in fields:
            return cls(fields.integer("scale_factor"), mode)
        depth = (fields.integer("odepth"),) if "odepth" in fields else ()
        return cls(None, mode, (*depth, fields.integer("oheight"), fields.integer("owidth")))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        names = ("odepth", "oheight", "owidth")[-len(self.size) :] if self.size is not None else ()
        sizes = dict(zip(names, self.size or (), strict=True))
        n_sizes = 5 if out.typename == "nn.UpSampling" else 4
        buffers = {name: out.sizes((0,) * n_sizes) for name in ("inputSize", "outputSize")}
        mode = self.mode if out.typename == "nn.UpSampling" else None
        return {"scale_factor": self.scale_factor, "mode": mode, **sizes, **buffers}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        n_spatial = x.dim() - 2
        size = self.size or tuple(n * (self.scale_factor or 1) for n in x.shape[2:])
        if self.mode == "nearest":
            return functional.interpolate(x, size, mode="nearest")
        mode = "bilinear" if n_spatial == 2 else "trilinear"
        return functional.interpolate(x, size[-n_spatial:], mode=mode, align_corners=True)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, size={self.size}, mode={self.mode}"


@register("nn.PixelShuffle")
def pixel_shuffle(fields: Fields) -> nn.PixelShuffle:
    """(N, C r r, H, W) to (N, C, r H, r W), in PyTorch's order."""
    return nn.PixelShuffle(fields.integer("upscaleFactor"))


@writes(nn.PixelShuffle, "nn.PixelShuffle")
def pixel_shuffle_fields(module: nn.PixelShuffle, out: FieldWriter) -> dict[str, object]:
    return {"upscaleFactor": module.upscale_factor, "upscaleFactorSquared": module.upscale_factor**2}
