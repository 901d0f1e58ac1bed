"""A network as Torch7 prints it: the `__tostring__` methods of nn, cudnn and nngraph, on objects read from
a file.

Containers draw their children as a tree, other classes show their sizes, and a class without a
`__tostring__` of its own its name. Where a method would fail in Lua, for a field that is missing, the name
is shown alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lua_compat.errors import LuaCompatError
from lua_compat.lua_format import string_format, to_string
from lua_compat.values import LuaTable, LuaValue, TorchObject

__all__ = ["module_text"]

DEEPEST = 1000  # nesting shown; Torch7 itself cannot print a network that contains itself
LONGEST = 1 << 24  # characters shown

# A piece of the text still to be written: text as it is, or a module with the indent of its further lines
# and its depth.
Piece = str | tuple[Any, str, int]


def module_text(module: TorchObject) -> str:
    """The text of Torch7's `print(module)`, without the last line end."""
    written: list[str] = []
    length = 0
    waiting: list[Piece] = [(module, "", 0)]
    while waiting:
        piece = waiting.pop()
        if isinstance(piece, str):
            written.append(piece)
            length += len(piece)
            continue
        value, indent, depth = piece
        if depth > DEEPEST or length > LONGEST:
            waiting.append(f"{to_string(value)} ...")
        else:
            waiting.extend(reversed(pieces_of(value, indent, depth + 1)))
    return "".join(written)


def pieces_of(value: LuaValue, indent: str, depth: int) -> list[Piece]:
    """The text of one module, with its children as pieces."""
    if not isinstance(value, TorchObject):
        return [to_string(value)]
    name = ORIGINAL.get(value.typename, value.typename)
    try:
        if name == "nn.Sequential":
            return sequential(value, indent, depth)
        if name in BRANCHING:
            return branching(value, indent, depth)
        if name == "nn.MapTable":
            return map_table(value, indent, depth)
        if name in WRAPPERS:
            return [WRAPPERS[name](value), (wrapped_module(value), indent, depth)]
        if name in UNPOOLING:
            return [f"{name} associated to ", (value["pooling"], indent, depth)]
        if name in LEAVES:
            return [LEAVES[name](value)]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError, LuaCompatError):
        pass  # a field is missing or of another type, for which Lua would stop
    return [value.typename]


def children(module: TorchObject) -> list[LuaValue]:
    modules: LuaTable = module["modules"]
    return modules.to_list()


def sequential(module: TorchObject, indent: str, depth: int) -> list[Piece]:
    """nn.Sequential, which shows this name whatever class inherits from it."""
    modules = children(module)
    chain = "".join(f" -> ({number})" for number in range(1, len(modules) + 1))
    pieces: list[Piece] = [f"nn.Sequential {{\n{indent}  [input{chain} -> output]"]
    for number, child in enumerate(modules, 1):
        pieces += [f"\n{indent}  ({number}): ", (child, indent + "  ", depth)]
    return [*pieces, f"\n{indent}}}"]


def branching(module: TorchObject, indent: str, depth: int) -> list[Piece]:
    """nn.Concat, nn.ConcatTable, nn.ParallelTable, nn.Parallel: branches side by side."""
    modules = children(module)
    pieces: list[Piece] = [f"{module.typename} {{\n{indent}  input"]
    for number, child in enumerate(modules, 1):
        is_last = number == len(modules)
        arrow, below = ("   `-> ", "       ") if is_last else ("  |`-> ", "  |    ")
        pieces += [f"\n{indent}  {arrow}({number}): ", (child, f"{indent}  {below}", depth)]
    return [*pieces, f"\n{indent}     ... -> output\n{indent}}}"]


def map_table(module: TorchObject, indent: str, depth: int) -> list[Piece]:
    child = module.get("module")
    if child is None:
        return [f"{module.typename} {{ }}"]
    return [f"{module.typename} {{\n{indent}  ", (child, f"{indent}        ", depth), f"\n{indent}}}"]


def wrapped_module(module: TorchObject) -> LuaValue:
    """The module inside a decorator. nn.WeightNorm writes it without its weight, whose size it keeps itself."""
    child = children(module)[0]
    if not isinstance(child, TorchObject) or "weight" in child or "weightSize" not in module:
        return child
    weight = np.broadcast_to(np.float32(0), tuple(module["weightSize"].tolist()))
    return TorchObject(child.typename, {**child.fields, "weight": weight}, child.version)


def gpu(module: TorchObject) -> str:
    """nn.GPU keeps its device in the table in front of its fields."""
    device = module["device"] if "device" in module or module.header is None else module.header["device"]
    return f"{module.typename}({to_string(device)}) @ "


def named(module: TorchObject, pattern: str, *fields: str) -> str:
    """The class name, then fields through string.format."""
    return module.typename + string_format(pattern, *[module[field] for field in fields])


def leaf(pattern: str, *fields: str) -> Callable[[TorchObject], str]:
    """The text of a class that shows its name and some fields."""
    return lambda module: named(module, pattern, *fields)


def numbers(module: TorchObject, stem: str, axes: str) -> list[LuaValue]:
    """Fields of one kind for several axes, such as padW and padH."""
    return [module.get(stem + axis) for axis in axes]


def joined(values: list[LuaValue], separator: str = ",") -> str:
    return separator.join([to_string(value) for value in values])


def extra(values: list[LuaValue]) -> str:
    """Padding and the like: shown where one is set and not 0."""
    is_set = any(value is not None and value is not False for value in values)
    return f", {joined(values)}" if is_set and any(value != 0 for value in values) else ""


def window(module: TorchObject, axes: str) -> str:
    return string_format("x".join(["%d"] * len(axes)), *[module["k" + axis] for axis in axes])


def steps(module: TorchObject, axes: str) -> str:
    return string_format(", " + ",".join(["%d"] * len(axes)), *[module["d" + axis] for axis in axes])


def convolution(
    axes: str, shows_bias: bool = True, between: str = "", dilated: bool = False, adjusted: bool = False
) -> Callable[[TorchObject], str]:
    """The text of a convolution over `axes`; steps and padding are left out where they are 1 and 0."""

    def text(module: TorchObject) -> str:
        shown = named(module, "(%d -> %d, ", "nInputPlane", "nOutputPlane")
        shown += named_sizes(module, between) + window(module, axes)
        padding = numbers(module, "pad", axes)
        if any(module["d" + axis] != 1 for axis in axes) or any(value != 0 for value in padding):
            shown += steps(module, axes)
        shown += extra(padding)
        if adjusted:
            shown += extra(numbers(module, "adj", axes))
        if dilated:
            shown += f", {joined([module['dilation' + axis] for axis in axes])}"
        return shown + (")" if not shows_bias or has_bias(module) else ") without bias")

    return text


def named_sizes(module: TorchObject, axes: str) -> str:
    """The input size that nn.SpatialConvolutionLocal shows before its window."""
    return "".join(string_format("%d", module["i" + axis]) + "x" for axis in axes).removesuffix("x") + ", " * bool(axes)


def pooling(axes: str, dilated: bool = False) -> Callable[[TorchObject], str]:
    """The text of a pooling over `axes`."""

    def text(module: TorchObject) -> str:
        shown = f"{module.typename}({window(module, axes)}{steps(module, axes)}"
        shown += extra(numbers(module, "pad", axes))
        if dilated:
            shown += f", {joined([module['dilation' + axis] for axis in axes])}"
        return f"{shown})"

    return text


def has_bias(module: TorchObject) -> bool:
    bias = module.get("bias")
    return bias is not None and bias is not False


def without_bias(module: TorchObject) -> str:
    return "" if module.get("bias") is not None else " without bias"


def linear(module: TorchObject) -> str:
    outputs, inputs = module["weight"].shape
    return f"{module.typename}({inputs} -> {outputs}){without_bias(module)}"


def bilinear(module: TorchObject) -> str:
    outputs, first, second = module["weight"].shape
    return f"{module.typename}({first}x{second} -> {outputs}) {without_bias(module)}"


def batch_normalization(dimensions: int) -> Callable[[TorchObject], str]:
    return lambda module: f"{module.typename} ({dimensions}D) ({module['running_mean'].size})"


def sizes(separator: str) -> Callable[[TorchObject], str]:
    return lambda module: f"{module.typename}({joined(module['size'].tolist(), separator)})"


def normalize(module: TorchObject) -> str:
    return named(module, "(%d)" if module["p"] % 1 == 0 else "(%f)", "p")


def up_sampling(module: TorchObject) -> str:
    if module.get("scale_factor") is not None:
        return named(module, "(%dx, %s)", "scale_factor", "mode")
    if module.get("odepth") is not None:
        return named(module, "(%dx%dx%d, %s)", "odepth", "oheight", "owidth", "mode")
    return named(module, "(%dx%d, %s)", "oheight", "owidth", "mode")


def bilinear_up_sampling(module: TorchObject) -> str:
    if module.get("scale_factor") is not None:
        return named(module, "(%d)", "scale_factor")
    return named(module, "(%d, %d)", "oheight", "owidth")


def fractional_pooling(axes: str) -> Callable[[TorchObject], str]:
    """Output sizes, or ratios where those were given, then the window."""

    def text(module: TorchObject) -> str:
        outputs = [module.get("out" + axis) or module["ratio" + axis] for axis in axes]
        windows = [module["poolSize" + axis] for axis in axes]
        count = len(axes)
        pattern = "(" + "x".join(["%d"] * count) + ", " + ",".join(["%d"] * count) + ")"
        return module.typename + string_format(pattern, *outputs, *windows)

    return text


def temporal_row_convolution(module: TorchObject) -> str:
    shown = named(module, "(%d, %d", "inputFrameSize", "kW")
    if module["dW"] != 1:
        shown += string_format(", %d", module["dW"])
    if module.get("padW") not in (None, 0):
        shown += f", {to_string(module['padW'])}"
    return shown + (")" if has_bias(module) else ") without bias")


def graph_module(module: TorchObject) -> str:
    """nngraph's gModule: the name that the user gave it, or its class."""
    return to_string(module.get("name") or module.typename)


PADDED = leaf("(l=%d, r=%d, t=%d, b=%d)", "pad_l", "pad_r", "pad_t", "pad_b")
PROBABILITY = leaf("(%f)", "p")

LEAVES: dict[str, Callable[[TorchObject], str]] = {
    "nn.BatchNormalization": batch_normalization(2),
    "nn.Bilinear": bilinear,
    "nn.CReLU": lambda module: "CReLU()",
    "nn.Dropout": PROBABILITY,
    "nn.ELU": leaf(" (alpha:%f)", "alpha"),
    "nn.FeatureLPPooling": leaf("(w%d s%d power %d batch %d", "width", "stride", "power", "batch_mode"),
    "nn.LeakyReLU": leaf("(%g)", "negval"),
    "nn.Linear": linear,
    "nn.LinearWeightNorm": lambda module: named(module, "(%d -> %d)", "inputSize", "outputSize") + without_bias(module),
    "nn.Normalize": normalize,
    "nn.PartialLinear": lambda module: named(module, "(%d -> %d)", "inputsize", "outputsize") + without_bias(module),
    "nn.RReLU": leaf(" (l:%f, u:%f)", "lower", "upper"),
    "nn.Reshape": sizes("x"),
    "nn.SelectTable": lambda module: f"{module.typename}({to_string(module['index'])})",
    "nn.SpatialAveragePooling": pooling("WH"),
    "nn.SpatialBatchNormalization": batch_normalization(4),
    "nn.SpatialConvolution": convolution("WH"),
    "nn.SpatialConvolutionLocal": convolution("WH", shows_bias=False, between="WH"),
    "nn.SpatialConvolutionMM": convolution("WH"),
    "nn.SpatialDepthWiseConvolution": convolution("WH"),
    "nn.SpatialDilatedConvolution": convolution("WH", dilated=True),
    "nn.SpatialDilatedMaxPooling": pooling("WH", dilated=True),
    "nn.SpatialDropout": PROBABILITY,
    "nn.SpatialFractionalMaxPooling": fractional_pooling("WH"),
    "nn.SpatialFullConvolution": convolution("WH", adjusted=True),
    "nn.SpatialMaxPooling": pooling("WH"),
    "nn.SpatialReflectionPadding": PADDED,
    "nn.SpatialReplicationPadding": PADDED,
    "nn.SpatialUpSamplingBilinear": bilinear_up_sampling,
    "nn.SpatialZeroPadding": PADDED,
    "nn.TemporalRowConvolution": temporal_row_convolution,
    "nn.Unsqueeze": lambda module: f"{module.typename}(dim {to_string(module['pos'])})",
    "nn.UpSampling": up_sampling,
    "nn.View": sizes(", "),
    "nn.VolumetricAveragePooling": pooling("TWH"),
    "nn.VolumetricBatchNormalization": batch_normalization(5),
    "nn.VolumetricConvolution": convolution("TWH", shows_bias=False),
    "nn.VolumetricDilatedConvolution": convolution("TWH", dilated=True),
    "nn.VolumetricDilatedMaxPooling": pooling("TWH", dilated=True),
    "nn.VolumetricDropout": PROBABILITY,
    "nn.VolumetricFractionalMaxPooling": fractional_pooling("TWH"),
    "nn.VolumetricFullConvolution": convolution("TWH", shows_bias=False, adjusted=True),
    "nn.VolumetricMaxPooling": pooling("TWH"),
    "nn.VolumetricReplicationPadding": leaf(
        "(left=%d, right=%d, top=%d, bottom=%d, front=%d, back=%d)",
        *("pleft", "pright", "ptop", "pbottom", "pfront", "pback"),
    ),
    "nn.WhiteNoise": leaf(" mean: %f, std: %f", "mean", "std"),
    "nn.gModule": graph_module,
}

BRANCHING = {"nn.Concat", "nn.ConcatTable", "nn.Parallel", "nn.ParallelTable"}
UNPOOLING = {"nn.SpatialMaxUnpooling", "nn.VolumetricMaxUnpooling"}
WRAPPERS: dict[str, Callable[[TorchObject], str]] = {
    "nn.Decorator": lambda module: f"{module.typename} @ ",
    "nn.GPU": gpu,
    "nn.NaN": lambda module: f"{module.typename}({to_string(module['id'])}) @ ",
}

# Classes that inherit their text (torch.class with a parent, or the method assigned).
ORIGINAL = {
    "cudnn.SpatialAveragePooling": "nn.SpatialAveragePooling",
    "cudnn.SpatialConvolution": "nn.SpatialConvolution",
    "cudnn.SpatialFullConvolution": "nn.SpatialFullConvolution",
    "cudnn.SpatialMaxPooling": "nn.SpatialMaxPooling",
    "cudnn.VolumetricConvolution": "nn.VolumetricConvolution",
    "cudnn.VolumetricFullConvolution": "nn.VolumetricFullConvolution",
    "nn.Bottle": "nn.Decorator",
    "nn.DepthConcat": "nn.Concat",
    "nn.DontCast": "nn.Decorator",
    "nn.LayerNormalization": "nn.Sequential",
    "nn.Maxout": "nn.Sequential",
    "nn.Profile": "nn.Decorator",
    "nn.SpatialLPPooling": "nn.Sequential",
    "nn.WeightNorm": "nn.Decorator",
}
