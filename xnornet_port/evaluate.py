"""One pass over the test set (test.lua)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from xnornet_port.batches import Batch
from xnornet_port.binarization import Binarizer
from xnornet_port.metrics import Scores, ScoreSum, batch_scores

__all__ = ["Evaluation", "evaluate"]


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
    on_batch: Callable[[Scores, Scores], None],
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Test the network, with binary weights where a binarizer is given (the latent ones are back afterwards).

    Unlike training, the original's test binarises the weights as they are, without centring and clamping them first.
    `on_batch` gets the scores of each batch and their mean so far.
    """
    network.eval()
    total = ScoreSum()
    start = time.perf_counter()
    stopped = False
    with torch.no_grad(), binarizer.binary_weights() if binarizer else nullcontext():
        for batch in batches:
            labels = torch.from_numpy(batch.labels)
            outputs = network(torch.from_numpy(batch.inputs).to(device)).view(len(labels), -1)
            loss = criterion(outputs, labels.to(device)).item()
            scores = batch_scores(loss, outputs.cpu(), labels)
            total.add(scores)
            on_batch(scores, total.mean())
            if should_stop():
                stopped = True
                break
    return Evaluation(total.mean() if total.n_batches else None, time.perf_counter() - start, not stopped)
