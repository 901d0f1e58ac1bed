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
from xnornet_port.metrics import Scores, ScoreSum, batch_scores
from xnornet_port.model import uses_binary_inputs
from xnornet_port.parallel import Replicas

__all__ = ["Evaluation", "binarizes_for_test", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """`mean` is None when no batch was tested; `finished` is False when the test was stopped."""

    mean: Scores | None
    seconds: float
    finished: bool


def evaluate(
    network: nn.Module,
    criterion: nn.Module,
    batches: Iterable[Batch],
    binarizer: Binarizer | None,
    device: torch.device,
    replicas: Replicas,
    on_batch: Callable[[Scores, Scores], None],
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Test the network, with binary weights where a binarizer is given (the latent ones are back afterwards).

    Unlike training, the original's test binarises the weights as they are, without centring and clamping them first.
    `on_batch` gets the scores of each batch, of all its parts where several processes test, and their mean so far.
    """
    network.eval()
    total = ScoreSum()
    start = time.perf_counter()
    stopped = False
    with torch.no_grad(), binarizer.binary_weights() if binarizer else nullcontext():
        for batch in batches:
            scores = replicas.combine(_own_scores(network, criterion, batch, device))
            total.add(scores)
            on_batch(scores, total.mean())
            if replicas.any(should_stop()):
                stopped = True
                break
    return Evaluation(total.mean() if total.n_batches else None, time.perf_counter() - start, not stopped)


def _own_scores(network: nn.Module, criterion: nn.Module, batch: Batch, device: torch.device) -> Scores:
    if len(batch.labels) == 0:  # a last batch of fewer pictures than processes
        return Scores(0.0, 0.0, 0.0, n_batches=0, n_pictures=0)
    labels = torch.from_numpy(batch.labels)
    outputs = class_scores(network, torch.as_tensor(batch.inputs).to(device))
    loss = criterion(outputs, labels.to(device)).item()
    return batch_scores(loss, outputs.cpu(), labels)


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
