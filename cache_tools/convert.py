"""convert: a Torch7 network into another file, or into a .t7 for other machines.

The network is written in evaluation mode and without gradients. What was written is read again and both networks answer
a random input, where its size is given or known; OUT appears only when they agree.
.onnx needs the packages onnx and onnxscript: pip install 'xnornet-port[convert]'.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

import lua_compat
from cache_tools.console import add_quiet
from cache_tools.convert_packed import picture_size, write_packed_network
from cache_tools.network_input import input_size, known_input_size
from cache_tools.network_profile import REFUSALS
from cache_tools.unfinished_file import unfinished_file
from cache_tools.value_tree import kind_of
from lua_compat.errors import LuaCompatError
from lua_compat.nn.class_names import Names
from lua_compat.nn.table import flattened
from lua_compat.values import LuaTable, TorchObject
from xnornet_port.binarization import Binarizer, has_binary_weights, has_mean_centred_weights
from xnornet_port.errors import reason_of
from xnornet_port.model import require_shallow, uses_binary_inputs
from xnornet_port.packed_file import PACKED_SUFFIX
from xnornet_port.schemes import import_schemes

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools convert model.t7 model.safetensors                  # its parameters, by name
  python -m cache_tools convert model.t7 model.pt                           # the same as a PyTorch state_dict
  python -m cache_tools convert model.t7 model.xnor.safetensors             # binary layers as bits
  python -m cache_tools convert model.t7 model.onnx --input-size 3,224,224  # the network itself
  python -m cache_tools convert xnor.t7 xnor.onnx --input-size 3,224,224 --binary-weight  # with alpha sign(W)
  python -m cache_tools convert model_gpu.t7 model.t7 --float               # nn.* and FloatTensor: no GPU needed
  python -m cache_tools convert model.t7 model_gpu.t7 --cuda-names          # cudnn.* and CudaTensor

exit codes: 0 done, 1 an error, told in one line, or the two would differ, 2 wrong usage, 130 stopped by Ctrl-C
"""

ReadAgain = Callable[[TorchObject], Callable[[torch.Tensor], Any]]
Writer = Callable[[nn.Module, Path, argparse.Namespace, torch.Tensor | None], ReadAgain]

TOLERANCE = 1e-5  # relative to the largest number of the output


class ConvertError(LuaCompatError):
    """A network that cannot be converted as asked, or came out different."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the files and options."""
    parser.add_argument("source", metavar="IN", type=Path, help="a .t7 file that holds a network")
    parser.add_argument(
        "target", metavar="OUT", type=Path, help="file to write: .safetensors, .pt, .onnx, .t7 or .xnor.safetensors"
    )
    parser.add_argument("--key", help="the network's key, where IN holds a table")
    parser.add_argument("--input-size", type=input_size, metavar="C,H,W", help="size of one sample, as 3,224,224")
    parser.add_argument("--no-check", action="store_true", help="do not run both networks on a random input")
    parser.add_argument(
        "--binary-weight",
        action="store_true",
        help="write alpha sign(W), what -testOnly tests, in all 2-d convolutions but the first and the last; "
        "into .xnor.safetensors, where it is always so: pack even a network that bears no mark of -binaryWeight",
    )
    add_quiet(parser)
    family = parser.add_mutually_exclusive_group()
    family.add_argument("--float", action="store_true", help="float32 numbers; in a .t7 nn.* classes and FloatTensor")
    family.add_argument("--cuda-names", action="store_true", help="in a .t7 cudnn.* classes and CudaTensor")


def run(arguments: argparse.Namespace) -> int:
    """Convert one file, check it and say what was done."""
    say = (lambda line: None) if arguments.quiet else print
    is_packed = arguments.target.name.endswith(PACKED_SUFFIX)
    write = chosen_writer(arguments, is_packed)
    source = network_object(arguments.source, arguments.key)
    network = readable(source, arguments.source).eval()
    network = network.float() if arguments.float else network
    size = arguments.input_size or (picture_size(network) if is_packed else known_input_size(network))
    if size is None and write is write_onnx:
        raise ConvertError(f"{arguments.target}: give the size of the input with --input-size, as 3,224,224")
    for line in summary(source, network):
        say(line)
    x = None if size is None else random_input(network, size)
    if x is not None:
        require_input(network, x, arguments.source)
    if is_packed:
        checked_on = None if arguments.no_check else x
        write_packed_network(network, arguments.source, arguments.target, arguments.binary_weight, checked_on, say)
    else:
        for line in settle_weights(network, arguments.source, arguments.binary_weight):
            say(line)
        convert_unpacked(network, source, write, arguments, x, say)
    say(f"{arguments.target}: {arguments.target.stat().st_size:,} bytes written")
    return 0


def chosen_writer(arguments: argparse.Namespace, is_packed: bool) -> Writer:
    """By OUT's ending. ConvertError for all that can be refused before a large file is read."""
    target = arguments.target
    write = WRITERS.get(target.suffix.lower())
    if write is None:
        raise ConvertError(f"{target}: the name should end in one of {', '.join([*WRITERS, PACKED_SUFFIX])}")
    if arguments.cuda_names and target.suffix.lower() != ".t7":
        raise ConvertError(f"{target}: --cuda-names is about class names, which only a .t7 has")
    if not target.parent.is_dir():
        raise ConvertError(f"{target}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise ConvertError(f"{target}: is a folder, expected the name of a file to write")
    if write is write_onnx:
        needed("onnx", "onnx")
        needed("onnxscript", "onnxscript")
    return write


def settle_weights(network: nn.Module, path: Path, wants_binary: bool) -> Iterator[str]:
    """Make the weights the ones to write, and say which of a binary network's they are.

    Its latent weights are replaced by alpha sign(W) where asked for; those that are binary already stay to the bit.
    ConvertError where there are none to make binary.
    """
    binarizer = Binarizer(network)
    number = len(binarizer.convolutions)
    if wants_binary and not number:
        raise ConvertError(
            f"{path}: the network has no binary layer, for all 2-d convolutions but the first and the last are binary; "
            "leave --binary-weight out"
        )
    is_latent = not has_binary_weights(network)
    if wants_binary:
        if is_latent:
            binarizer.binarize()
        yield f"weights: {'alpha sign(W) is written' if is_latent else 'binary already'} (binary layers: {number})"
    elif number and is_latent and (uses_binary_inputs(network) or has_mean_centred_weights(network)):
        yield (
            "weights: real-valued (latent) ones are written; "
            "--binary-weight writes the binary ones, which -testOnly tests"
        )


def convert_unpacked(
    network: nn.Module,
    source: TorchObject,
    write: Writer,
    arguments: argparse.Namespace,
    x: torch.Tensor | None,
    say: Callable[[str], None],
) -> None:
    """Write, read again, compare, and only then put the file in its place."""
    with unfinished_file(arguments.target) as unfinished:
        read_again = written(network, write, unfinished, arguments, x)
        if arguments.no_check or x is None:
            say(
                "not checked"
                if arguments.no_check
                else "not checked: the input's size is not known; give it with --input-size"
            )
        else:
            say(check(network, read_again(source), x, arguments))


def written(
    network: nn.Module, write: Writer, unfinished: Path, arguments: argparse.Namespace, x: torch.Tensor | None
) -> ReadAgain:
    """ConvertError where the library that writes this kind of file cannot: an exporter, or on a full disk."""
    try:
        return write(network, unfinished, arguments, x)
    except (RuntimeError, SafetensorError) as error:
        beneath = error.__context__  # what stopped a file of Python's that PyTorch wrote into
        reason = reason_of(beneath if isinstance(beneath, OSError) else error)
        raise ConvertError(f"{arguments.target}: not written ({reason})") from error


def require_input(network: nn.Module, x: torch.Tensor, path: Path) -> None:
    """ConvertError where the network cannot take an input of this size."""
    try:
        with torch.no_grad():
            network(x)
    except REFUSALS as error:
        raise ConvertError(
            f"{path}: the network cannot take an input of {'x'.join(map(str, x.shape[1:]))} ({reason_of(error)}); "
            "give another --input-size"
        ) from error


def check(
    network: nn.Module, other: Callable[[torch.Tensor], Any], x: torch.Tensor, arguments: argparse.Namespace
) -> str:
    """Both answer `x`: how well they agree; ConvertError where they do not."""
    difference = largest_difference(network, other, x)
    if not difference <= TOLERANCE:
        raise ConvertError(
            f"{arguments.target}: not written, it would answer differently from {arguments.source} (largest relative "
            f"difference {difference:.1e}, above {TOLERANCE}){ties(network, arguments.target)}"
        )
    return f"checked on a random input of {'x'.join(map(str, x.shape))}: largest relative difference {difference:.1e}"


def ties(network: nn.Module, target: Path) -> str:
    """Why an ONNX file may answer differently all the same: it adds in another order."""
    if target.suffix.lower() != ".onnx" or not uses_binary_inputs(network) or not has_binary_weights(network):
        return ""
    return (
        "; a sum of binary weights that is 0, as often before training, gets a sign by the order of its addition: "
        "--no-check writes it all the same"
    )


def network_object(path: Path, key: str | None) -> TorchObject:
    """The Torch7 object of the network in a file, below `key` where that is a table."""
    import_schemes()  # so that the layers of XNOR-Net and of other schemes are known
    value = lua_compat.load(path)
    if isinstance(value, TorchObject) and key is None:
        return value
    if isinstance(value, TorchObject):
        raise ConvertError(f"{path}: holds no table but {value.typename} itself; leave --key {key} out")
    if not isinstance(value, LuaTable):
        raise ConvertError(f"{path}: holds no network, but {kind_of(value)}")
    found = None if key is None else value.get(key)
    if isinstance(found, TorchObject):
        return found
    keys = ", ".join(str(name) for name, entry in value.items() if isinstance(entry, TorchObject))
    if not keys:
        raise ConvertError(f"{path}: holds no network, but a table without any Torch7 object in it")
    which = "holds a table" if key is None else f"holds no network below {key}"
    raise ConvertError(f"{path}: {which}; name the network's key with --key (objects in it: {keys})")


def readable(source: TorchObject, path: Path) -> nn.Module:
    try:
        network = lua_compat.nn.to_torch(source)
    except LuaCompatError as error:
        raise type(error)(f"{path}: {error}") from error
    require_shallow(network, path)
    return network


def summary(source: TorchObject, network: nn.Module) -> Iterator[str]:
    """What the network is made of, and what its classes became."""
    parameters = list(network.parameters())
    n_numbers = sum(parameter.numel() for parameter in parameters)
    dtypes = ", ".join(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})) or "none"
    yield f"{source.typename}: {n_numbers:,} parameters in {len(parameters)} tensors ({dtypes})"
    became: Counter[tuple[str, str]] = Counter()
    for module in network.modules():
        origin = lua_compat.nn.origin_of(module)
        if origin is not None:
            became[origin.typename, type(module).__name__] += 1
    for (typename, name), count in sorted(became.items()):
        yield f"  {count:4d}  {typename} -> {name}"


def random_input(network: nn.Module, size: tuple[int, ...]) -> torch.Tensor:
    """Two samples."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    return torch.randn(2, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def write_t7(network: nn.Module, target: Path, arguments: argparse.Namespace, x: torch.Tensor | None) -> ReadAgain:
    names: Names = "nn" if arguments.float else "cudnn" if arguments.cuda_names else "kept"
    written = lua_compat.nn.from_torch(network, names=names, memory="cuda" if arguments.cuda_names else "cpu")
    lua_compat.save(target, written)
    return lambda source: lua_compat.nn.load(target).eval()


def write_state(network: nn.Module, target: Path, arguments: argparse.Namespace, x: torch.Tensor | None) -> ReadAgain:
    with open(target, "wb") as file:
        torch.save(network.state_dict(), file)

    def read_again(source: TorchObject) -> nn.Module:
        return with_state(source, torch.load(target, weights_only=True), arguments.float)

    return read_again


def write_safetensors(
    network: nn.Module, target: Path, arguments: argparse.Namespace, x: torch.Tensor | None
) -> ReadAgain:
    """Parameters on one storage are written one by one; what two layers share is written once (save_model)."""
    save_model(separate(network), str(target), metadata={"format": "pt", "source": arguments.source.name})

    def read_again(source: TorchObject) -> nn.Module:
        fresh = blank(source, arguments.float)
        load_model(fresh, str(target))
        return fresh

    return read_again


def write_onnx(network: nn.Module, target: Path, arguments: argparse.Namespace, x: torch.Tensor | None) -> ReadAgain:
    onnx = needed("onnx", "onnx")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its future
        any_batch = ({0: torch.export.Dim.AUTO},)
        program = torch.onnx.export(network, (x,), dynamo=True, verbose=False, dynamic_shapes=any_batch)
    if program is None:
        raise ConvertError(f"{target}: PyTorch's exporter gave no ONNX program")
    program.save(str(target))

    def read_again(source: TorchObject) -> Callable[[torch.Tensor], Any]:
        reference = importlib.import_module("onnx.reference")
        evaluator = reference.ReferenceEvaluator(onnx.load(str(target)))
        return lambda x: [torch.from_numpy(y) for y in evaluator.run(None, {evaluator.input_names[0]: x.numpy()})]

    return read_again


def needed(module: str, package: str) -> ModuleType:
    """A package that only some kinds of files need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConvertError(f"this needs the package {package}: pip install 'xnornet-port[convert]'") from error


def separate(network: nn.Module) -> nn.Module:
    """The network with every tensor on memory of its own; shared parameters stay shared."""
    for tensor in {id(tensor): tensor for tensor in network.state_dict(keep_vars=True).values()}.values():
        tensor.data = tensor.detach().clone().contiguous()
    return network


def blank(source: TorchObject, as_float: bool) -> nn.Module:
    """The same network with zeros for parameters and buffers, to be filled from the written file."""
    network = separate(lua_compat.nn.to_torch(source).eval())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    return network.float() if as_float else network


def with_state(source: TorchObject, state: dict[str, torch.Tensor], as_float: bool) -> nn.Module:
    network = blank(source, as_float)
    network.load_state_dict(state)
    return network


def largest_difference(network: nn.Module, other: Callable[[torch.Tensor], Any], x: torch.Tensor) -> float:
    """Between the outputs, relative to the largest number; infinite where their shapes differ."""
    with torch.no_grad():
        ours, theirs = list(flattened(network(x))), list(flattened(other(x)))
    if [y.shape for y in ours] != [y.shape for y in theirs]:
        return float("inf")
    scale = max(float(y.abs().max()) for y in ours) or 1.0
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / scale


WRITERS: dict[str, Writer] = {
    ".safetensors": write_safetensors,
    ".pt": write_state,
    ".onnx": write_onnx,
    ".t7": write_t7,
}
