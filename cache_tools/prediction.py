"""What a network makes of pictures, which come to it just as `main.py -testOnly` would bring them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cache_tools.network_input import input_channels
from cache_tools.network_profile import REFUSALS
from lua_compat import Generator
from xnornet_port.answers import class_scores
from xnornet_port.binarization import Binarizer
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.preprocessing import Preprocessing, evaluation_sample
from xnornet_port.summation import convolution_sums

__all__ = ["Answer", "Fault", "Predictor", "count_classes", "network_inputs"]

BATCH = 32


class Answer(NamedTuple):
    """probabilities: float32 (n_classes,), adding up to 1."""

    path: str
    probabilities: npt.NDArray[np.float32]

    def best(self, number: int) -> list[tuple[int, float]]:
        """The `number` likeliest classes, numbered from 1, and their probabilities; fewer where there are fewer."""
        values, indices = torch.from_numpy(self.probabilities).topk(min(number, len(self.probabilities)))
        return [(int(i) + 1, float(p)) for i, p in zip(indices, values, strict=True)]


class Fault(NamedTuple):
    """A picture that cannot be read."""

    path: str
    reason: str


@dataclass(frozen=True)
class Predictor:
    """A network, how pictures are brought to it, and whether its weights are binarised while it answers."""

    network: nn.Module
    settings: Preprocessing
    binarizer: Binarizer | None

    def answers(self, paths: Sequence[str]) -> Iterator[Answer | Fault]:
        """One for each path, in order."""
        self.network.eval()
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        weights = self.binarizer.binary_weights() if self.binarizer else nullcontext()
        with torch.no_grad(), convolution_sums(self.network, device), weights:
            for start in range(0, len(paths), BATCH):
                some = paths[start : start + BATCH]
                inputs, faults = network_inputs(some, self.settings)
                scores = class_scores(self.network, torch.from_numpy(inputs).to(device))
                probabilities = scores.log_softmax(dim=1).exp().cpu().numpy()  # of log-probabilities: the same again
                for path, fault, row in zip(some, faults, probabilities, strict=True):
                    yield Answer(path, row) if fault is None else Fault(path, fault)


def count_classes(network: nn.Module, side: int, advice: str = "give --crop-size") -> int:
    """How many classes the network answers for. Raises XnorNetError, with `advice`, where it takes no such picture."""
    try:
        with torch.no_grad():
            return class_scores(network.eval(), torch.zeros(1, 3, side, side)).shape[1]
    except REFUSALS as error:
        reason, channels = reason_of(error), input_channels(network)
        if channels not in (None, 3):
            raise XnorNetError(
                f"the network takes pictures of {channels} channel{'s' * (channels != 1)}, and is given 3: "
                f"red, green and blue ({reason})"
            ) from error
        advice = "it has no convolution: does it take pictures?" if channels is None else advice
        raise XnorNetError(f"the network takes no picture of {side} pixels ({reason}); {advice}") from error


def network_inputs(paths: Sequence[str], settings: Preprocessing) -> tuple[npt.NDArray[np.float32], list[str | None]]:
    """float32 (N, 3, crop, crop) as the test has them, and why a picture could not be read, or None."""
    stream = Generator(1)  # testHook draws a number and does not use it
    samples = [evaluation_sample(os.fsencode(path), stream, settings) for path in paths]
    return np.stack([sample.pixels for sample in samples]), [sample.fault for sample in samples]
