"""Mean-centring, clamping, binary weights and the gradient's scale, by hand."""

import pytest
import torch
from torch import nn

from xnornet_port.binarization import Binarizer, has_binary_weights, has_mean_centred_weights
from xnornet_port.schemes import xnor_weights


def network(weight: list[float], n_inputs: int = 2) -> tuple[nn.Sequential, nn.Conv2d]:
    """Three 1x1 convolutions; the middle one, the only binary one, has one filter per `n_inputs` of the weights."""
    n_filters = len(weight) // n_inputs
    middle = nn.Conv2d(n_inputs, n_filters, 1)
    net = nn.Sequential(nn.Conv2d(1, n_inputs, 1), middle, nn.Conv2d(n_filters, 1, 1))
    with torch.no_grad():
        middle.weight.copy_(torch.tensor(weight).view(n_filters, n_inputs, 1, 1))
    return net, middle


def numbers(tensor: torch.Tensor | None) -> list[float]:
    assert tensor is not None
    return [float(x) for x in tensor.detach().flatten()]


def test_first_and_last_convolution_are_never_binary() -> None:
    net, middle = network([0.5, -0.25])
    assert Binarizer(net).convolutions == [middle]


def test_mean_centre_then_clamp() -> None:
    net, middle = network([0.5, 0.25, 4.0, 0.0])
    Binarizer(net).mean_centre_and_clamp()
    # filter 1: mean 0.375 -> 0.125, -0.125; filter 2: mean 2 -> 2, -2, clamped to 1, -1
    assert numbers(middle.weight) == [0.125, -0.125, 1.0, -1.0]


def test_mean_is_over_input_channels_at_each_kernel_position() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, (1, 2)), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[[[0.5, 0.25]], [[0.25, 0.0]]]]))
    Binarizer(net).mean_centre_and_clamp()
    # position 1: mean of 0.5 and 0.25 is 0.375; position 2: of 0.25 and 0 is 0.125
    assert numbers(net[1].weight) == [0.125, 0.125, -0.125, -0.125]


def test_binary_weights_are_alpha_times_sign_and_a_zero_stays_zero() -> None:
    net, middle = network([0.5, -0.25, 0.0, 1.0])
    binarizer = Binarizer(net)
    with binarizer.binary_weights():
        # alpha 1 = (0.5 + 0.25) / 2 = 0.375; alpha 2 = (0 + 1) / 2 = 0.5
        assert numbers(middle.weight) == [0.375, -0.375, 0.0, 0.5]
    assert numbers(middle.weight) == [0.5, -0.25, 0.0, 1.0]


def test_latent_weights_are_back_after_an_exception() -> None:
    net, middle = network([0.5, -0.25])
    with pytest.raises(RuntimeError, match="in between"), Binarizer(net).binary_weights():
        raise RuntimeError("in between")
    assert numbers(middle.weight) == [0.5, -0.25]


def test_gradient_goes_to_the_latent_parameter() -> None:
    net, middle = network([0.5, -0.25])
    binarizer = Binarizer(net)
    with binarizer.binary_weights():
        net(torch.ones(1, 1, 1, 1)).sum().backward()
    assert middle.weight.grad is not None
    assert middle.weight.grad.shape == middle.weight.shape


@pytest.mark.parametrize(
    ("times_n", "factor", "expected"),
    [
        # filter 1: alpha 0.375, n = 2, I = 2: (0.375 + 1/2) (1 - 1/2) = 0.4375
        # filter 2: alpha (1 + 0.5) / 2 = 0.75: (0.75 + 0.5) / 2 = 0.625; for |w| >= 1: (0 + 0.5) / 2 = 0.25
        (False, 1.0, [0.4375, 0.875, 0.25 * 3, 0.625 * 4]),
        (True, 1.0, [0.875, 1.75, 0.25 * 6, 0.625 * 8]),
        (False, 4.0, [1.75, 3.5, 3.0, 10.0]),
    ],
)
def test_gradient_scale_is_per_element(times_n: bool, factor: float, expected: list[float]) -> None:
    net, middle = network([0.5, -0.25, -1.0, 0.5])
    binarizer = Binarizer(net)
    with binarizer.binary_weights():
        pass
    middle.weight.grad = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(2, 2, 1, 1)
    binarizer.scale_gradients(times_n, factor)
    assert numbers(middle.weight.grad) == expected


def test_chunks_of_filters_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(10, 3, 2, 2).clamp_(-1, 1).flatten().tolist()
    results = []
    for chunk in (1, 30, 1 << 20):
        monkeypatch.setattr(xnor_weights, "_CHUNK_ELEMENTS", chunk)
        net, middle = network(weight, n_inputs=12)
        binarizer = Binarizer(net)
        binarizer.mean_centre_and_clamp()
        with binarizer.binary_weights():
            binary = middle.weight.detach().clone()
        middle.weight.grad = torch.ones_like(middle.weight)
        binarizer.scale_gradients(times_n=True)
        results.append((binary, middle.weight.detach().clone(), middle.weight.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_binarize_replaces_the_weights_and_is_recognised() -> None:
    net, middle = network([0.5, -0.25, 0.0, 1.0])
    assert not has_binary_weights(net)
    Binarizer(net).binarize()
    assert numbers(middle.weight) == [0.375, -0.375, 0.0, 0.5]
    assert has_binary_weights(net)


def test_mean_centred_filters_are_recognised() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16 * 32, generator=generator)
    net, middle = network(weight.tolist(), n_inputs=32)
    assert not has_mean_centred_weights(net)
    with torch.no_grad():  # centred, then moved a little by an update
        middle.weight -= middle.weight.mean(dim=1, keepdim=True)
        middle.weight += 0.01 * torch.randn(16, 32, 1, 1, generator=generator)
    assert has_mean_centred_weights(net)
