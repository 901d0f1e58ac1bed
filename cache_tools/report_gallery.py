"""What a run's last network gets right and wrong on the test pictures: the answers, confusions, pictures to show."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from cache_tools.contact_sheet import thumbnail
from cache_tools.prediction import Answer, Predictor, count_classes
from cache_tools.run_folder import recorded_size
from xnornet_port.binarization import Binarizer
from xnornet_port.dataset import Dataset
from xnornet_port.dataset_cache import read_dataset, read_statistics
from xnornet_port.errors import XnorNetError
from xnornet_port.evaluate import binarizes_for_test
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing
from xnornet_port.progress import Progress

__all__ = ["Gallery", "Judged", "look_at_pictures", "picture_source"]

SHOWN = 12  # right ones, and as many wrong ones
THUMBNAIL = 112
MOST_CLASSES = 100


class Judged(NamedTuple):
    """A test picture: its class and the likeliest one, both from 1, and the probabilities of the two."""

    path: str
    label: int
    guess: int
    label_probability: float
    guess_probability: float


@dataclass(frozen=True)
class Gallery:
    """confusion: (n, n) counts, rows by class, columns by answer; None where there are more than 100 classes."""

    classes: tuple[str, ...]
    n_pictures: int
    n_tested: int
    n_unreadable: int
    right: list[Judged]
    wrong: list[Judged]
    n_right: int
    confusion: npt.NDArray[np.int64] | None


def look_at_pictures(
    network: nn.Module, options: dict[str, Any], data: Path, cache: Path, most: int, progress: Progress
) -> Gallery:
    """Test at most `most` pictures spread evenly over the test set.

    Raises XnorNetError where caches are missing, or are not of the network's classes.
    """
    file = str(cache / "testCache.t7")
    dataset = rebase(read_dataset(file), str(data / "val"), file)
    settings = Preprocessing(
        recorded_size(options, "imageSize", 256),
        recorded_size(options, "cropSize", 224),
        scaling_factor=0.0,
        statistics=read_statistics(str(cache / "meanstdCache.t7")),
    )
    count_classes(network, settings.crop_size, "is the run's cropSize as it was?")
    binary, latent = bool(options.get("binaryWeight")), bool(options.get("latentWeights"))
    binarizer = Binarizer(network) if binarizes_for_test(network, binary, latent, lambda line: None) else None
    return _judge(Predictor(network, settings, binarizer), dataset, most, progress)


def _judge(predictor: Predictor, dataset: Dataset, most: int, progress: Progress) -> Gallery:
    numbers = _spread(len(dataset), most)
    paths = [os.fsdecode(dataset.path(number)) for number in numbers]
    judged, n_unreadable, n_classes = [], 0, len(dataset.classes)
    confusion = np.zeros((n_classes, n_classes), np.int64) if n_classes <= MOST_CLASSES else None
    with progress("testing pictures", len(paths)) as done:
        for answer, number in zip(predictor.answers(paths), numbers, strict=True):
            label = dataset.label(number)
            if isinstance(answer, Answer):
                _require_classes(len(answer.probabilities), n_classes)
                ((guess, probability),) = answer.best(1)
                judged.append(Judged(answer.path, label, guess, float(answer.probabilities[label - 1]), probability))
                if confusion is not None:
                    confusion[label - 1, guess - 1] += 1
            else:
                n_unreadable += 1
            done(len(judged) + n_unreadable)
    right = [one for one in judged if one.guess == one.label]
    wrong = sorted((one for one in judged if one.guess != one.label), key=lambda one: -one.guess_probability)
    return Gallery(
        classes=dataset.classes,
        n_pictures=len(dataset),
        n_tested=len(judged),
        n_unreadable=n_unreadable,
        right=[right[place - 1] for place in _spread(len(right), SHOWN)],
        wrong=wrong[:SHOWN],
        n_right=len(right),
        confusion=confusion,
    )


def _require_classes(n_of_network: int, n_of_pictures: int) -> None:
    if n_of_network != n_of_pictures:
        raise XnorNetError(
            f"the network knows {n_of_network} classes, the pictures are of {n_of_pictures}: another run's"
        )


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of 1..count, evenly spread."""
    return sorted({int(place) for place in np.linspace(1, count, min(count, most))}) if count else []


def picture_source(path: str) -> str:
    """A small JPEG of a picture as the text of an image's source."""
    output = io.BytesIO()
    thumbnail(path, THUMBNAIL).convert("RGB").save(output, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(output.getvalue()).decode("ascii")


def worst_confusions(gallery: Gallery, most: int = 8) -> Sequence[tuple[int, int, int]]:
    """(count, class, answer) of the most frequent mistakes, classes from 1."""
    if gallery.confusion is None:
        return []
    mistakes = gallery.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, mistakes.shape)
    return [(int(mistakes[r, c]), int(r) + 1, int(c) + 1) for r, c in zip(rows, columns, strict=True) if mistakes[r, c]]
