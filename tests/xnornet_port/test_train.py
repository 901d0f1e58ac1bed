"""One batch and one epoch on a network small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lua_compat.nn import ClassNLLCriterion, LogSoftMax, View
from lua_compat.optim import SGD
from xnornet_port.batches import Batch
from xnornet_port.binarization import Binarizer
from xnornet_port.train import EpochSoFar, GradientRule, Learner, TrainedBatch, TrainedEpoch, train_batch, train_epoch
from xnornet_port.training import OPTIMIZERS

PLAIN = GradientRule(times_n=False, factor=1.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2), nn.Conv2d(4, 5, 1), View((5,)), LogSoftMax())


def batch(n: int = 4, fill: float | None = None) -> Batch:
    inputs = np.random.default_rng(1).normal(size=(n, 3, 2, 2)).astype(np.float32)
    if fill is not None:
        inputs[:] = fill
    return Batch(inputs, np.arange(1, n + 1, dtype=np.int64), (), 0.0, b"")


def gradients(net: nn.Module, rule: GradientRule, binary: bool) -> list[torch.Tensor]:
    """Of one batch without an update."""
    optimizer = SGD(net.parameters(), lr=0.0)
    data = batch()
    binarizer = Binarizer(net) if binary else None
    learner = Learner(net, ClassNLLCriterion(), optimizer, rule, binarizer)
    train_batch(learner, torch.from_numpy(data.inputs), torch.from_numpy(data.labels))
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def test_adam_multiplies_all_gradients_by_a_billion_and_adamax_none() -> None:
    """Ledger 9: the factor is for every parameter, binary or not, and only with -binaryWeight."""
    assert OPTIMIZERS["adam"][1].factor == 1e9
    assert OPTIMIZERS["adamax"][1].factor == OPTIMIZERS["sgd"][1].factor == 1.0
    assert [name for name, (_, rule) in OPTIMIZERS.items() if rule.times_n] == ["sgd"]
    plain, large = (gradients(network(), GradientRule(False, factor), binary=True) for factor in (1.0, 1e9))
    for a, b in zip(plain, large, strict=True):
        torch.testing.assert_close(b, a * 1e9)
    without, large = (gradients(network(), GradientRule(False, factor), binary=False) for factor in (1.0, 1e9))
    assert all(torch.equal(a, b) for a, b in zip(without, large, strict=True))


def test_gradients_are_those_of_the_binary_weights() -> None:
    """Against autograd on a copy whose weights are replaced by alpha sign(w), scaled by the formula of the code."""
    net, copy = network(), network()
    Binarizer(copy).binarize()
    expected = gradients(copy, PLAIN, binary=False)
    found = gradients(net, PLAIN, binary=True)
    weight = network()[1].weight.detach()  # the only binary convolution: 4 filters of n = 16 in I = 4 channels
    scale = (weight.abs().mean(dim=(1, 2, 3), keepdim=True) + 1 / 16) * (1 - 1 / 4)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(a, b * scale if k == 2 else b)


def test_the_update_goes_to_the_latent_weights() -> None:
    net = network()
    latent = net[1].weight.detach().clone()
    optimizer = SGD(net.parameters(), lr=0.5)
    data = batch()
    learner = Learner(net, ClassNLLCriterion(), optimizer, PLAIN, Binarizer(net))
    train_batch(learner, torch.from_numpy(data.inputs), torch.from_numpy(data.labels))
    torch.testing.assert_close(net[1].weight.detach(), latent - 0.5 * net[1].weight.grad)


def epoch(net: nn.Module, batches: list[Batch], stop_after: int = 99, binary: bool = True) -> TrainedEpoch:
    seen: list[TrainedBatch] = []
    binarizer = Binarizer(net) if binary else None
    learner = Learner(net, ClassNLLCriterion(), SGD(net.parameters(), lr=0.1), PLAIN, binarizer)
    return train_epoch(learner, batches, len(batches), EpochSoFar(), seen.append, lambda: len(seen) >= stop_after)


def test_an_epoch_keeps_the_parameters_before_its_last_update() -> None:
    net = network()
    trained = epoch(net, [batch(), batch()])
    assert trained.finished
    assert trained.before_last_update is not None
    other = network()
    epoch(other, [batch()])
    Binarizer(other).mean_centre_and_clamp()  # the second batch begins with this
    for kept, parameter in zip(trained.before_last_update, other.parameters(), strict=True):
        assert torch.equal(kept, parameter)
    assert epoch(network(), [batch()], binary=False).before_last_update is None


def test_an_epoch_that_is_stopped_says_so() -> None:
    trained = epoch(network(), [batch(), batch(), batch()], stop_after=2)
    assert not trained.finished
    assert trained.before_last_update is None
    assert trained.mean is not None
    assert trained.mean.n_batches == 2


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    net = network()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        epoch(net, [batch(fill=float("nan"))], binary=False)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
