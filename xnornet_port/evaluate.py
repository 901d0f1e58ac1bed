"""One pass over the test set (test.lua)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from xnornet_port.answers import class_scores
from xnornet_port.batches import Batch
from xnornet_port.binarization import Binarizer, has_binary_weights, has_mean_centred_weights
from xnornet_port.metrics import Scores, ScoreSum, loss_and_hits, scores_of
from xnornet_port.model import uses_binary_inputs
from xnornet_port.parallel import Replicas
from xnornet_port.transfer import begin_to_host, to_device

__all__ = ["Evaluation", "Tester", "binarizes_for_test", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """`mean` is None when no batch was tested; `finished` is False when the test was stopped."""

    mean: Scores | None
    seconds: float
    finished: bool


@dataclass(frozen=True)
class Tester:
    """A network on `device`, and what it takes to test it: with binary weights where a binarizer is given."""

    network: nn.Module
    criterion: nn.Module
    binarizer: Binarizer | None
    device: torch.device
    replicas: Replicas


def evaluate(
    tester: Tester,
    batches: Iterable[Batch],
    on_batch: Callable[[Scores, Scores], None],
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Test the network; binarised weights are the latent ones again afterwards.

    Unlike training, the original's test binarises the weights as they are, without centring and clamping them first.
    `on_batch` gets the scores of each batch, of all its parts where several processes test, and their mean so far.
    """
    tester.network.eval()
    total = ScoreSum()
    start = time.perf_counter()
    stopped = False
    with torch.no_grad(), tester.binarizer.binary_weights() if tester.binarizer else nullcontext():
        for batch in batches:
            scores = tester.replicas.combine(_own_scores(tester, batch))
            total.add(scores)
            on_batch(scores, total.mean())
            if tester.replicas.any(should_stop()):
                stopped = True
                break
    return Evaluation(total.mean() if total.n_batches else None, time.perf_counter() - start, not stopped)


def _own_scores(tester: Tester, batch: Batch) -> Scores:
    n_pictures = len(batch.labels)
    if n_pictures == 0:  # a last batch of fewer pictures than processes
        return Scores(0.0, 0.0, 0.0, n_batches=0, n_pictures=0)
    labels = to_device(torch.from_numpy(batch.labels), tester.device)
    outputs = class_scores(tester.network, torch.as_tensor(batch.inputs).to(tester.device))
    numbers = begin_to_host(loss_and_hits(tester.criterion(outputs, labels), outputs, labels))
    return scores_of(numbers(), n_pictures)


def binarizes_for_test(
    network: nn.Module, binary_weight: bool, latent_weights: bool, warn: Callable[[str], None]
) -> bool:
    """Whether a loaded network is tested with binary weights; says so where `binary_weight` did not ask for it.

    `binary_weight` and `latent_weights` are the options of these names; a network whose weights are binary already
    stays as it is.
    """
    if binary_weight:
        return True
    if has_binary_weights(network):
        return False
    if uses_binary_inputs(network) and not latent_weights:
        warn(
            "This XNOR network holds latent (real-valued) weights: tested with binary weights, as -binaryWeight "
            "does; -latentWeights tests the latent ones, as the original"
        )
        return True
    if not uses_binary_inputs(network) and has_mean_centred_weights(network):
        warn(
            "The filters of this network are mean-centred, the mark of training with -binaryWeight: add "
            "-binaryWeight to test it with the binary weights it was trained for"
        )
    return False
