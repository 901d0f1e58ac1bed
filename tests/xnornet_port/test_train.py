"""One batch and one epoch on a network small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import xnornet_port.evaluate
from lua_compat.generator import Generator
from lua_compat.nn import ClassNLLCriterion, LogSoftMax, SpatialDropout, View
from lua_compat.optim import SGD, Adam
from xnornet_port import build_model
from xnornet_port.answers import criterion_of
from xnornet_port.batches import Batch
from xnornet_port.binarization import Binarizer
from xnornet_port.parallel import ALONE
from xnornet_port.schemes import xnor_weights
from xnornet_port.train import (
    CPU,
    EpochSoFar,
    GradientRule,
    Learner,
    TrainedBatch,
    TrainedEpoch,
    train_batch,
    train_epoch,
)
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


class Waits(TorchDispatchMode):
    """Counts where the host would wait for a device: numbers read one by one, and shapes that depend on values."""

    READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.READING:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
@pytest.mark.parametrize("net_type", ["small", "resnetxnor"])
def test_the_host_waits_once_per_batch(net_type: str, optimizer_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For loss and hits together, in training and in testing: no item(), no cpu(), no comparison on the host."""
    n_batches, size = 3, 2
    net = network()
    net.insert(1, SpatialDropout(0.5, generator=Generator(1)))
    if net_type == "resnetxnor":
        net, size = build_model(net_type, 4, depth=8, dataset="cifar"), 32
    values = np.random.default_rng(1).normal(size=(4, 3, size, size)).astype(np.float32)
    batches = [Batch(values, np.arange(1, 5), (), 0.0, b"") for _ in range(n_batches)]
    # whether a weight is saturated is asked on the CPU only: on a GPU binarize_into says so unasked
    monkeypatch.setattr(xnor_weights, "bool", lambda found: True, raising=False)
    waits = Waits()
    for name in ("tolist", "cpu", "numpy", "__array__"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *arguments: Any, _name: str = name, _original: Any = original) -> Any:
            waits.names.append(_name)
            return _original(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    criterion, binarizer = criterion_of(net), Binarizer(net)
    learner = Learner(net, criterion, optimizer_class(net.parameters(), lr=1e-3), PLAIN, binarizer)
    with waits:
        train_epoch(learner, batches, n_batches, EpochSoFar(), lambda batch: None, lambda: False)
    assert waits.names == ["tolist"] * n_batches
    waits.names.clear()
    tester = xnornet_port.evaluate.Tester(net, criterion, binarizer, CPU, ALONE)
    with waits:
        xnornet_port.evaluate.evaluate(tester, batches, lambda now, mean: None, lambda: False)
    assert waits.names == ["tolist"] * n_batches
    with waits:  # and the counter counts
        float(torch.ones(1))
    assert waits.names[-1] == "_local_scalar_dense"
