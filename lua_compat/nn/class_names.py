"""nn.* into cudnn.* and back, as cudnn.convert (cudnn.torch convert.lua) does for a whole network."""

from __future__ import annotations

from typing import Literal

from lua_compat.errors import ModuleError

__all__ = ["Names", "renamed"]

Names = Literal["kept", "nn", "cudnn"]

_IN_BOTH = (
    "BatchNormalization",
    "LogSoftMax",
    "ReLU",
    "Sigmoid",
    "SoftMax",
    "SpatialAveragePooling",
    "SpatialBatchNormalization",
    "SpatialConvolution",
    "SpatialCrossMapLRN",
    "SpatialFullConvolution",
    "SpatialMaxPooling",
    "SpatialSoftMax",
    "SpatialLogSoftMax",
    "Tanh",
    "VolumetricAveragePooling",
    "VolumetricBatchNormalization",
    "VolumetricConvolution",
    "VolumetricFullConvolution",
    "VolumetricMaxPooling",
)


def renamed(typename: str, fields: dict[str, object], names: Names, place: str) -> tuple[str, dict[str, object]]:
    """The class name and fields in the wanted family; classes that only one family has stay as they are.

    Raises ModuleError for a convolution in groups, which nn does not have.
    """
    package, _, name = typename.partition(".")
    if names == "kept" or package == names or package not in ("nn", "cudnn"):
        return typename, fields
    if typename == "nn.SpatialConvolutionMM":  # cudnn's convolution takes the flat weight as well
        name = "SpatialConvolution"
    if name not in _IN_BOTH:
        return typename, fields
    if names == "nn" and fields.get("groups", 1) != 1:
        raise ModuleError(f"{typename} at {place or 'the root'}: nn has no convolution in {fields['groups']} groups")
    if names == "nn":
        fields = {**fields, "groups": None, **_NN_ONLY.get(name, {})}
    else:
        fields = {**fields, **_CUDNN_ONLY.get(name, {})}
    return f"{names}.{name}", fields


_NN_ONLY: dict[str, dict[str, object]] = {
    "SpatialAveragePooling": {"divide": True, "count_include_pad": True},
    "ReLU": {"threshold": 0, "val": 0},
}
_CUDNN_ONLY: dict[str, dict[str, object]] = {"SpatialConvolution": {"groups": 1}}
