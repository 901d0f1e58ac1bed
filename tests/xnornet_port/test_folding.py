"""Thresholds against the network's own modules, asked for every whole number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lua_compat.nn import Dropout, SpatialDropout
from lua_compat.nn.normalization import SpatialBatchNormalization
from xnornet_port.errors import XnorNetError
from xnornet_port.folding import foldable_tail, integer_thresholds
from xnornet_port.kernels import Pooling, Thresholds
from xnornet_port.kernels.reference import scale


def normalization(weight: list[float], bias: list[float], mean: list[float], variance: list[float]) -> nn.BatchNorm2d:
    module = SpatialBatchNormalization(len(weight), eps=1e-4)
    with torch.no_grad():
        for target, values in (
            (module.weight, weight), (module.bias, bias), (module.running_mean, mean), (module.running_var, variance),
        ):  # fmt: skip
            target.copy_(torch.tensor(values))
    return module.eval()


def signs_by_modules(modules: list[nn.Module], alpha: torch.Tensor, bias: torch.Tensor, largest: int) -> torch.Tensor:
    """(O, 2 largest + 1): the sign the network computes for each whole number from -largest on."""
    dots = torch.arange(-largest, largest + 1, dtype=torch.int32)
    x = torch.from_numpy(scale(dots.view(-1, 1, 1, 1).repeat(1, len(alpha), 1, 1).numpy(), alpha.numpy(), bias.numpy()))
    with torch.no_grad():
        for module in modules:
            x = module(x)
    return x.sign().view(len(dots), -1).T


def signs_by_thresholds(thresholds: Thresholds, largest: int) -> torch.Tensor:
    dots = torch.arange(-largest, largest + 1)
    up, down = thresholds.positive_from.view(-1, 1), thresholds.negative_to.view(-1, 1)
    descending = thresholds.descending.view(-1, 1)
    positive = torch.where(descending, dots <= up, dots >= up)
    negative = torch.where(descending, dots >= down, dots <= down) & ~positive
    return positive.float() - negative.float()


finite = st.floats(-4, 4, width=32)


@settings(max_examples=60)
@given(st.data())
def test_signs_are_those_of_the_modules_for_every_whole_number(data: st.DataObject) -> None:
    n, largest = 7, data.draw(st.integers(1, 90))

    def numbers(strategy: st.SearchStrategy[float]) -> list[float]:
        return data.draw(st.lists(strategy, min_size=n, max_size=n))

    modules: list[nn.Module] = [normalization(numbers(finite), numbers(finite), numbers(finite),
                                              numbers(st.floats(0, 9, width=32)))]  # fmt: skip
    modules += data.draw(st.sampled_from([[], [nn.ReLU()], [SpatialDropout(0.3).eval()], [Dropout(0.5).eval()]]))
    alpha, bias = torch.tensor(numbers(st.floats(0, 1, width=32))), torch.tensor(numbers(finite))
    thresholds = integer_thresholds(modules, alpha, bias, largest, "conv")
    expected = signs_by_modules(modules, alpha, bias, largest)
    assert torch.equal(signs_by_thresholds(thresholds, largest), expected)


def test_thresholds_by_hand() -> None:
    """BN(x) = weight (x - mean) with variance 1 - eps; x = dot / 2 + 1: rising, falling, and never passing 0."""
    variance = [1 - 1e-4] * 4
    module = normalization([1, -1, 0, 0], [0, 0, 1, -1], [3, 3, 0, 0], variance)
    alpha, bias = torch.full((4,), 0.5), torch.ones(4)
    found = integer_thresholds([module], alpha, bias, 9, "conv")
    # dot / 2 + 1 - 3 is 0 at dot = 4: above it positive, below negative, there exactly 0; the falling one mirrored
    assert found.positive_from.tolist() == [5, 3, -9, 10]
    assert found.negative_to.tolist() == [3, 5, -10, 9]
    assert found.descending.tolist() == [False, True, False, False]
    assert signs_by_thresholds(found, 9)[:2, 9 + 4].tolist() == [0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["weight", "bias", "running_mean", "running_var"])
def test_numbers_that_are_not_finite_are_refused(field: str, value: float) -> None:
    module = normalization([1, 1], [0, 0], [0, 0], [1, 1])
    with torch.no_grad():
        getattr(module, field)[1] = value
    if (field, value) == ("running_var", float("inf")):  # divides by infinity: the sign of the bias, for every number
        integer_thresholds([module], torch.ones(2), None, 9, "5.2")
        return
    with pytest.raises(XnorNetError, match=r"^5\.2: the batch normalisation"):
        integer_thresholds([module], torch.ones(2), None, 9, "5.2")


def test_which_modules_fold() -> None:
    rising, falling = (
        normalization([1, 0], [0] * 2, [0] * 2, [1] * 2),
        normalization([1, -1], [0] * 2, [0] * 2, [1] * 2),
    )
    tail = foldable_tail([nn.MaxPool2d(3, 2, 1, ceil_mode=True), falling])
    assert tail is not None
    assert (tail.pooling, tail.modules) == (Pooling((3, 3), (2, 2), (1, 1), True), (falling,))
    assert foldable_tail([rising, nn.MaxPool2d(2), falling]) is not None
    assert foldable_tail([falling, nn.MaxPool2d(2)]) is None  # the largest would have to be the smallest
    assert foldable_tail([nn.MaxPool2d(2), nn.MaxPool2d(2), rising]) is None
    assert foldable_tail([nn.AvgPool2d(2)]) is None
    assert foldable_tail([nn.MaxPool2d(3, dilation=2)]) is None
    assert foldable_tail([nn.BatchNorm2d(3, track_running_stats=False)]) is None
    assert foldable_tail([SpatialDropout(0.5, stochastic_inference=True)]) is None
