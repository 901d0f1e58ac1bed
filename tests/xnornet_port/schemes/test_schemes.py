"""Binary schemes: weights and gradients by hand; every one trains, is saved, tested and packed as it was made."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lua_compat
from lua_compat.generator import Generator
from lua_compat.nn import ClassNLLCriterion, from_torch, to_torch
from lua_compat.nn.simple import CMul
from lua_compat.optim import Adam
from xnornet_port import build_model
from xnornet_port.binarization import Binarizer, binary_convolutions
from xnornet_port.errors import XnorNetError
from xnornet_port.layers import BinActiveZ
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.options import parse_options
from xnornet_port.schemes import REAL, SCHEMES, scheme_name, scheme_named, scheme_of
from xnornet_port.schemes.bireal import BiRealActivation
from xnornet_port.train import GradientRule, Learner, train_batch
from xnornet_port.xnor_inference import XnorModel


def built(scheme: str, depth: int = 8) -> nn.Sequential:
    network = NETWORKS["resnetxnor"].build(NetworkSettings(5, depth=depth, scheme=scheme))
    NETWORKS["resnetxnor"].initialize(network, Generator(2))
    return network


# ---- weights and their gradients ----

# Two filters of two weights: binary weights, and what a gradient of 1 becomes.
WEIGHTS = [0.5, -0.25, 0.0, -1.5]
ARITHMETIC = [
    # alpha = 0.375 and 0.75; (alpha [|w| < 1] + 1/2) (1 - 1/2)
    ("xnor", [0.375, -0.375, 0.0, -0.75], [0.4375, 0.4375, 0.625, 0.25]),
    # signs; 1 where |w| <= 1
    ("sign", [1.0, -1.0, 0.0, -1.0], [1.0, 1.0, 1.0, 0.0]),
    ("xnor++", [1.0, -1.0, 0.0, -1.0], [1.0, 1.0, 1.0, 0.0]),
    # alpha where |w| <= 1
    ("bireal", [0.375, -0.375, 0.0, -0.75], [0.375, 0.375, 0.75, 0.0]),
]


@pytest.mark.parametrize(("name", "binary", "gradient"), ARITHMETIC)
def test_weights_and_gradients(name: str, binary: list[float], gradient: list[float]) -> None:
    middle = scheme_named(name).convolution(2, 2, 1)
    with torch.no_grad():
        middle.weight.copy_(torch.tensor(WEIGHTS).view(2, 2, 1, 1))
    binarizer = Binarizer(nn.Sequential(nn.Conv2d(1, 2, 1), middle, nn.Conv2d(2, 1, 1)))
    with binarizer.binary_weights():
        assert middle.weight.flatten().tolist() == binary
    assert middle.weight.flatten().tolist() == WEIGHTS
    middle.weight.grad = torch.ones_like(middle.weight)
    binarizer.scale_gradients(times_n=False, factor=8.0)
    assert middle.weight.grad.flatten().tolist() == [8 * g for g in gradient]


def test_only_xnornets_own_weights_are_centred() -> None:
    for name in SCHEMES:
        middle = scheme_named(name).convolution(2, 1, 1)
        with torch.no_grad():
            middle.weight.copy_(torch.tensor([3.0, 0.0]).view(1, 2, 1, 1))
        Binarizer(nn.Sequential(nn.Conv2d(1, 2, 1), middle, nn.Conv2d(1, 1, 1))).mean_centre_and_clamp()
        centred = name in ("bwn", "xnor", "xnork")  # 3 and 0 less 1.5, then to [-1, 1]
        assert middle.weight.flatten().tolist() == ([1.0, -1.0] if centred else [3.0, 0.0])


def test_bireals_sign() -> None:
    x = torch.tensor([-2.0, -1.0, -0.25, 0.0, 0.5, 1.0], requires_grad=True)
    y = BiRealActivation()(x)
    y.backward(torch.full_like(x, 3.0))
    assert y.tolist() == [-1, -1, -1, 0, 1, 1]
    assert x.grad is not None
    # arXiv 1808.00278, equation 4: 2 + 2x below 0, 2 - 2x from 0 on, 0 outside of [-1, 1]
    assert x.grad.tolist() == [0, 0, 3 * 1.5, 3 * 2, 3 * 1, 0]


# ---- blocks ----


def test_bireals_shortcuts() -> None:
    block = scheme_named("bireal").block(4, 4, 3, padding=1)
    x = torch.randn(2, 4, 6, 6)
    block.eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()  # the branch gives its normalisation's shift, 0
    assert torch.equal(block(x), x)
    assert scheme_named("bireal").block(4, 8, 3, stride=2, padding=1)(torch.randn(2, 4, 7, 7)).shape == (2, 8, 4, 4)
    without = scheme_named("bireal").block(4, 4, 6)
    assert without(torch.randn(2, 4, 6, 6)).shape == (2, 4, 1, 1)


def test_bireal_keeps_its_projections_real() -> None:
    network = built("bireal")
    # 6 convolutions of 3x3; stages 2 and 3 project once each
    assert [tuple(c.kernel_size) for c in binary_convolutions(network)] == [(3, 3)] * 6
    assert sum(scheme_name(c) == REAL for c in network.modules() if isinstance(c, nn.Conv2d)) == 2


def test_the_learned_scale_is_learned() -> None:
    network = built("xnor++")
    scales = [module for module in network.modules() if isinstance(module, CMul)]
    assert len(scales) == 8
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(bool(scale.weight.grad.abs().sum() > 0) for scale in scales if scale.weight.grad is not None)
    # of a 3x3 filter of 16 planes, n = 144: mean |w| of N(0, 2/144) is sqrt(2/pi) sqrt(2/144) = 0.0940
    assert scales[0].weight.flatten()[0].item() == pytest.approx(0.09403, abs=1e-5)


def test_binary_weights_only() -> None:
    assert not any(isinstance(module, BinActiveZ) for module in built("bwn").modules())


def test_what_the_original_does_is_the_default() -> None:
    ours, named = build_model("alexnetxnor", 5), build_model("alexnetxnor", 5, scheme="xnor")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), named.parameters(), strict=True))
    assert all(scheme_name(c) is None for c in binary_convolutions(ours))


# ---- a network of each ----


@pytest.mark.parametrize("name", SCHEMES)
def test_trained_saved_tested_and_packed(name: str) -> None:
    network = built(name)
    torch.manual_seed(1)
    pictures, labels = torch.randn(8, 3, 32, 32), torch.randint(1, 6, (8,))
    optimizer, binarizer = Adam(network.parameters(), lr=1e-3), Binarizer(network)
    losses = []
    for _ in range(6):
        binarizer.mean_centre_and_clamp()
        learner = Learner(network, ClassNLLCriterion(), optimizer, GradientRule(False, 1e9), binarizer)
        scores = train_batch(learner, pictures, labels)
        losses.append(scores.loss)
    assert losses[-1] < losses[0]

    loaded = to_torch(lua_compat.loads(lua_compat.dumps(from_torch(network))))
    kinds = [type(scheme_of(c)) for c in binary_convolutions(network)]
    assert [type(scheme_of(c)) for c in binary_convolutions(loaded)] == kinds
    answers = []
    for tested in (network, loaded):
        tested.eval()
        with torch.no_grad(), Binarizer(tested).binary_weights():
            answers.append(tested(pictures))
    assert torch.equal(*answers)
    with torch.no_grad(), Binarizer(network).binary_weights():  # in float, a sum next to 0 may take the other sign
        exact = copy.deepcopy(network).double()(pictures.double())
    packed = XnorModel.from_model(loaded, "reference", binary_weights=True)
    torch.testing.assert_close(packed(pictures).double(), exact, atol=1e-5, rtol=1e-5)


# ---- options ----


def test_options() -> None:
    assert parse_options(["-netType", "alexnetxnor"]).binary_scheme == "original"
    assert parse_options(["-inputScale"]).binary_scheme == "xnork"
    assert parse_options(["-scheme", "bireal"]).binary_scheme == "bireal"
    with pytest.raises(XnorNetError, match=r"-scheme xnr: expected one of original, bwn, .*; did you mean xnor\?"):
        parse_options(["-scheme", "xnr"])
    with pytest.raises(XnorNetError, match="only XNOR-Net's own scheme has an input scale"):
        parse_options(["-scheme", "bireal", "-inputScale"])


def test_a_scheme_that_is_not_used_is_refused() -> None:
    with pytest.raises(XnorNetError, match="-scheme bireal: -netType resnet has no binary blocks"):
        build_model("resnet", 5, depth=20, scheme="bireal")
    build_model("resnet", 5, depth=20, scheme="bwn")


def test_a_file_of_an_unknown_scheme() -> None:
    written = from_torch(scheme_named("sign").convolution(2, 2, 1))
    written["scheme"] = "newest"
    with pytest.raises(XnorNetError, match="scheme newest: unknown; available are bwn"):
        scheme_of(to_torch(written))


def test_tools_read_the_layers_of_a_scheme(tmp_path: Path) -> None:
    """In a process of its own, where nothing else has made nn.BinActiveBiReal known."""
    lua_compat.save(tmp_path / "net.t7", from_torch(built("bireal")))
    words = [sys.executable, "-m", "cache_tools", "convert", str(tmp_path / "net.t7"), str(tmp_path / "again.t7")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.t7").exists()
