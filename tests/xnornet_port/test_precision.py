"""-precision: half-precision convolutions, float32 parameters and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lua_compat import Generator
from lua_compat.nn import ClassNLLCriterion, set_generator
from xnornet_port import cli, precision
from xnornet_port.binarization import Binarizer
from xnornet_port.model import load_model
from xnornet_port.precision import arithmetic

CPU = torch.device("cpu")


def gradients(golden: Path, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
    """Loss and all gradients of one training pass with binary weights and fixed dropout."""
    pictures = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 3, 224, 224), dtype=np.float32))
    network = load_model(golden / "models" / "tiny_bwn.t7").train()
    set_generator(network, Generator(1))
    with arithmetic(network, CPU, name), Binarizer(network).binary_weights():
        outputs = network(pictures).view(4, -1)
        loss = ClassNLLCriterion()(outputs, torch.tensor([1, 2, 3, 4]))
        loss.backward()
    assert outputs.dtype == loss.dtype == torch.float32
    flat = torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])
    return loss.detach(), flat, network


@pytest.mark.parametrize(("name", "eps"), [("bf16", 2**-8), ("fp16", 2**-11)])
def test_near_to_float32_but_not_equal(golden: Path, name: str, eps: float) -> None:
    """bf16 keeps 8 bits, fp16 11; a tenth of a gradient of seven layers may come from rounding at 8."""
    loss, exact, _ = gradients(golden, "float32")
    half_loss, half, network = gradients(golden, name)
    assert half.dtype == torch.float32
    assert 0 < (half_loss - loss).abs() < 8 * eps
    assert not torch.equal(half, exact)
    assert torch.cosine_similarity(half, exact, dim=0) > 1 - 32 * eps
    assert half.norm() / exact.norm() == pytest.approx(1, abs=16 * eps)  # LOSS_SCALE is out of it again
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
    assert all(not parameter._backward_hooks for parameter in network.parameters())


def test_weights_changed_between_passes_are_seen(golden: Path) -> None:
    """A cache of half-precision weights would not notice that the binary ones take the place of the latent ones."""
    network = load_model(golden / "models" / "tiny_bwn.t7").eval()
    pictures = torch.ones(1, 3, 224, 224)
    with arithmetic(network, CPU, "bf16"), torch.no_grad():
        latent = network(pictures)
        with Binarizer(network).binary_weights():
            binary = network(pictures)
        assert not torch.equal(latent, binary)
        assert torch.equal(network(pictures), latent)


def test_gradients_that_overflow_count_nothing() -> None:
    unscaled = precision._unscale(torch.tensor([1024.0, torch.inf, -torch.inf, torch.nan, -2048.0]))
    assert unscaled.tolist() == [1, 0, 0, 0, -2]


def test_channels_last_only_for_pictures() -> None:
    picture, vector = torch.zeros(2, 3, 5, 5), torch.zeros(2, 7)
    first, second, third = precision._channels_last(torch.nn.Identity(), (picture, vector, "text"))
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert second is vector
    assert third == "text"


def test_a_run_says_so(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("trainCache.t7", "testCache.t7", "meanstdCache.t7"):
        (tmp_path / name).write_bytes((golden / "cache" / name).read_bytes())
    words = ["-data", str(golden / "imagenet"), "-cache", str(tmp_path), "-nClasses", "5", "-device", "cpu",
             "-nDonkeys", "0", "-batchSize", "8", "-epochSize", "2", "-nEpochs", "1", "-binaryWeight",
             "-optimType", "adam", "-retrain", str(golden / "models" / "tiny_xnor.t7")]  # fmt: skip
    assert cli.main([*words, "-precision", "bf16"]) == 0
    out = capsys.readouterr().out
    assert "-precision bf16: convolutions in half precision, no longer Torch7's numbers\n" in out
    assert "Epoch: [1][2/2]" in out
    assert cli.main([*words, "-precision", "half"]) == 1
    assert "expected one of float32, bf16, fp16" in capsys.readouterr().err
