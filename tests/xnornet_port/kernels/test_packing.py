"""Weights as bits, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch

from xnornet_port import XnorNetError
from xnornet_port.kernels import Pooling, load_backend, pack_input, pack_weights, xnor_conv2d
from xnornet_port.kernels.packing import pack_bits, unpack_bits


def test_weights_by_hand() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0], [-0.5, -0.5, -0.5]]).view(2, 3, 1, 1)
    packed = pack_weights(weight, torch.tensor([1, 2]))
    assert packed.signs.flatten().tolist() == [0b010, 0b111]
    assert packed.nonzero is None
    assert packed.alpha.tolist() == [2.0, 0.5]
    assert packed.bias is not None
    assert packed.bias.dtype == torch.float32
    assert (packed.out_channels, packed.in_channels, packed.kernel_size) == (2, 3, (1, 1))


def test_copies_begin_without_what_a_backend_prepared() -> None:
    packed, x = pack_weights(torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1)), torch.ones(1, 3, 1, 1)
    first = xnor_conv2d(x, packed)
    for copied in (copy.copy(packed), copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):  # noqa: S301
        assert not copied.prepared
        assert torch.equal(xnor_conv2d(x, copied), first)


def test_a_zero_weight_is_kept() -> None:
    packed = pack_weights(torch.tensor([1.0, -0.0, -3.0]).view(1, 3, 1, 1))
    assert packed.nonzero is not None
    assert packed.signs.item() == 0b100
    assert packed.nonzero.item() == 0b101


def test_binary_weights_keep_their_alpha() -> None:
    alpha = torch.tensor([0.1])  # ten of them summed and divided do not give 0.1 in float
    weight = alpha * torch.tensor([1.0, -1.0]).repeat(35).view(1, 70, 1, 1)
    assert pack_weights(weight).alpha.item() == alpha.item()
    assert pack_weights(weight, alpha=torch.tensor([7.0])).alpha.item() == 7.0


@pytest.mark.parametrize("channels", [1, 8, 63, 64, 65, 130])
def test_bits_there_and_back(channels: int) -> None:
    bits = np.random.default_rng(channels).random((3, 2, channels)) < 0.5
    words = pack_bits(bits)
    assert words.shape == (3, 2, -(-channels // 64))
    np.testing.assert_array_equal(unpack_bits(words, channels), bits)
    for c in range(channels):
        np.testing.assert_array_equal(words[..., c // 64] >> np.uint64(c % 64) & np.uint64(1), bits[..., c])


def test_refuses() -> None:
    for weight, bias, message in [
        (torch.ones(2, 3, 3), None, r"must be real \(O, I, kH, kW\)"),
        (torch.ones(2, 3, 3, 3).int(), None, "must be real"),
        (torch.ones(0, 3, 3, 3), None, "must be real"),
        (torch.full((1, 1, 1, 1), float("nan")), None, "NaN or infinity"),
        (torch.ones(2, 3, 3, 3), torch.ones(3), "need a bias each"),
        (torch.ones(2, 3, 3, 3), 1.0, r"^2 filters need a bias each, a real torch\.Tensor, not float$"),
        (np.ones((2, 3, 3, 3)), None, r"\(O, I, kH, kW\), not ndarray: torch\.from_numpy\(weight\)$"),
        (None, None, "not NoneType$"),
        (torch.ones(2, 3, 3, 3), torch.ones(2).to(torch.complex64), r"not torch\.complex64 \(2,\)$"),
    ]:
        with pytest.raises(XnorNetError, match=message):
            pack_weights(weight, bias)  # type: ignore[arg-type]
    with pytest.raises(XnorNetError, match=r"2 filters need an alpha each, a real torch.Tensor, not float"):
        pack_weights(torch.ones(2, 3, 3, 3), alpha=1.0)  # type: ignore[arg-type]
    for no_backend in (None, 5, torch.device("cpu")):
        with pytest.raises(XnorNetError, match=r"^a backend is a name \(cpu, cuda, reference\) or has its four"):
            load_backend(no_backend)  # type: ignore[arg-type]
    with pytest.raises(XnorNetError, match="'gpu' is not known; there are cpu, cuda, reference"):
        load_backend("gpu")
    with pytest.raises(XnorNetError, match="more than half its kernel"):
        Pooling((2, 2), (2, 2), (2, 2))
    with pytest.raises(XnorNetError, match="stride must be"):
        Pooling((2, 2), (0, 2))


def test_what_is_packed_prints_as_its_sizes() -> None:
    weight = torch.randn(5, 70, 3, 2)
    assert repr(pack_weights(weight)) == "PackedWeights((5, 70, 3, 2))"
    weight[0, 0, 0, 0] = 0
    packed = pack_weights(weight, torch.ones(5))
    assert repr(packed) == "PackedWeights((5, 70, 3, 2), nonzero, bias)"
    assert packed.shape == weight.shape
    x = torch.ones(2, 70, 4, 6)
    bits = pack_input(x, "reference")
    assert (repr(bits), bits.shape) == ("PackedInput((2, 70, 4, 6))", (2, 70, 4, 6))
    x[0, 0, 0, 0] = 0
    assert repr(pack_input(x, "reference")) == "PackedInput((2, 70, 4, 6), nonzero)"


def test_pooling_holds_pairs() -> None:
    assert Pooling(2, [3, 1]) == Pooling((2, 2), (3, 1), (0, 0))  # type: ignore[arg-type]
