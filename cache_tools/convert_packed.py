"""convert to .xnor.safetensors: a trained network with its binary layers as bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cache_tools.network_profile import profile_network
from cache_tools.unfinished_file import unfinished_file
from lua_compat.nn.table import flattened
from xnornet_port.binarization import Binarizer, has_binary_weights
from xnornet_port.errors import XnorNetError
from xnornet_port.summation import convolution_sums
from xnornet_port.xnor_inference import XnorModel
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution

__all__ = ["picture_size", "write_packed_network"]

PICTURES = (3, 224, 224)  # the check's input where neither --input-size nor the network says another


def picture_size(network: nn.Module) -> tuple[int, ...]:
    """Channels, height and width of a picture that the network answers by one row of scores."""
    try:
        layers = profile_network(network, binary_weights=False, size=None)
    except XnorNetError:
        layers = []
    return layers[0].input_shape[-3:] if layers else PICTURES


def write_packed_network(
    network: nn.Module,
    source: Path,
    target: Path,
    binary_weight: bool,
    x: torch.Tensor | None,
    say: Callable[[str], None],
) -> None:
    """Pack, write, read again and compare: every number, and the answers to `x` (None: not run).

    Nothing is left at `target` where they differ.
    """
    weights = "binary already" if has_binary_weights(network) else "latent: alpha sign(W) is packed"
    try:
        model = XnorModel.from_model(network, binary_weights=binary_weight)
    except XnorNetError as error:
        raise XnorNetError(f"{source}: {error}") from error
    say(f"weights: {weights}")
    for layer in model.binary_layers:
        say(f"  {layer.place}: {layer!r}, {packed_bytes(layer):,} bytes for {float_bytes(layer):,}")
    packed, real = (sum(map(count, model.binary_layers)) for count in (packed_bytes, float_bytes))
    say(f"binary layers: {packed:,} bytes in place of {real:,}, 1/{real / packed:.1f}")
    with unfinished_file(target) as unfinished:
        model.save(unfinished, source=source.name)
        again = XnorModel.load(unfinished)
        require_equal(model, again, target)
        say("not checked on an input" if x is None else compared(network, model, again, x, target))


def require_equal(model: XnorModel, again: XnorModel, target: Path) -> None:
    """XnorNetError where a number was not read as it was written, or is none."""
    ours, theirs = model.state_dict(), again.state_dict()
    damaged = next((name for name, tensor in ours.items() if bool(tensor.isnan().any())), None)
    if damaged is not None:
        raise XnorNetError(f"{target}: not written: {damaged} contains nan; has training diverged?")
    differing = [name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])]
    if differing or len(ours) != len(theirs):
        raise XnorNetError(f"{target}: not written: {', '.join(differing[:3])} would not be read as it was written")


def compared(network: nn.Module, model: XnorModel, again: XnorModel, x: torch.Tensor, target: Path) -> str:
    """How the packed network answers beside the float one with binary weights; XnorNetError where it was read wrong."""
    with torch.no_grad(), convolution_sums(network, x.device), Binarizer(network).binary_weights():
        expected, found, read = (list(flattened(answering(x))) for answering in (network, model, again))
    if not all(torch.allclose(ours, theirs, 0, 0, equal_nan=True) for ours, theirs in zip(found, read, strict=True)):
        raise XnorNetError(f"{target}: not written: what is read again answers differently")
    pairs = [(rows(ours), rows(theirs)) for ours, theirs in zip(found, expected, strict=True)]
    difference = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    same = sum(int((ours.argmax(1) == theirs.argmax(1)).sum()) for ours, theirs in pairs)
    return (
        f"checked on {len(x)} random inputs of {'x'.join(map(str, x.shape[1:]))}: read again to the bit; beside the "
        f"float convolutions the same top-1 for {same} of {sum(len(ours) for ours, _ in pairs)}, "
        f"largest difference {difference:.1e}"
    )


def rows(answer: torch.Tensor) -> torch.Tensor:
    """A row of numbers for each sample; one where there is no dimension for them."""
    return answer.flatten(1) if answer.dim() > 1 else answer.reshape(1, -1)


def packed_bytes(layer: XnorConvolution | BinaryWeightConvolution) -> int:
    """Of a packed layer: bits, alpha, bias, thresholds."""
    return sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())


def float_bytes(layer: XnorConvolution | BinaryWeightConvolution) -> int:
    """Of the convolution it was: weights and bias in float32."""
    return 4 * (layer.n_weights + (0 if layer.bias is None else layer.out_channels))
