"""Batches on their way to a GPU, with a stand-in for the GPU: no such machine was at hand."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xnornet_port.batches import Batch
from xnornet_port.data import DataSource, open_data
from xnornet_port.transfer import Mover


class LateCopies:
    """A device whose copies happen as late as they may: when the computation, or the host, waits for them."""

    def __init__(self) -> None:
        self.n_pinned = 0
        self.log: list[str] = []
        self._copying = threading.Lock()  # a copy is begun once, whichever thread asks for it, and is over when asked

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        self.n_pinned += 1
        return torch.empty(shape, dtype=dtype)

    def send(self, pinned: torch.Tensor) -> tuple[torch.Tensor, Any]:
        tensor = torch.full_like(pinned, torch.nan)
        self.log.append("send")
        return tensor, {"from": pinned, "to": tensor, "done": False}

    def _copy(self, event: Any) -> None:
        with self._copying:
            if not event["done"]:
                event["to"].copy_(event["from"])
                event["done"] = True

    def finish(self, event: Any) -> None:
        self.log.append("finish")
        self._copy(event)

    def receive(self, tensor: torch.Tensor, event: Any) -> None:
        self.log.append("receive")
        self._copy(event)


def batch_of(number: int, size: int) -> Batch:
    return Batch(np.full((size, 3, 2, 2), number, np.float32), np.arange(size), (), 0.0, b"")


def test_a_pinned_block_is_used_again_only_after_its_copy() -> None:
    copies = LateCopies()
    mover = Mover(copies)
    receives = [mover.send(batch_of(number, 4)) for number in range(7)]  # none is received yet
    batches = [receive() for receive in receives]
    assert [torch.as_tensor(batch.inputs).unique().tolist() for batch in batches] == [[n] for n in range(7)]
    assert copies.n_pinned == 2
    assert copies.log == ["send"] * 2 + ["finish", "send"] * 5 + ["receive"] * 7


def test_batches_of_other_sizes_get_blocks_of_their_own() -> None:
    copies = LateCopies()
    mover = Mover(copies)
    received = [mover.send(batch_of(number, size))() for number, size in enumerate((4, 4, 3, 4, 4))]
    assert [tuple(batch.inputs.shape) for batch in received] == [(size, 3, 2, 2) for size in (4, 4, 3, 4, 4)]
    assert [torch.as_tensor(batch.inputs).unique().tolist() for batch in received] == [[n] for n in range(5)]


def open_golden(golden: Path, n_donkeys: int, mover: Mover | None) -> DataSource:
    return open_data(
        str(golden / "imagenet"), str(golden / "cache"), image_size=64, crop_size=48, n_classes=5, scaling_factor=0.0,
        n_donkeys=n_donkeys, manual_seed=2, say=lambda text: None, mover=mover,
    )  # fmt: skip


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_the_same_batches_and_streams_with_and_without(golden: Path, n_donkeys: int) -> None:
    """Two passes, and the random streams after each batch handed out, though the next one is made by then."""
    runs = []
    for mover in (None, Mover(LateCopies())):
        with open_golden(golden, n_donkeys, mover) as data:
            found = []
            for batches in (data.train_batches(5, 4), data.test_batches(8), data.train_batches(3, 4)):
                found += [(torch.as_tensor(batch.inputs).clone(), batch.labels, data.streams) for batch in batches]
            runs.append(found)
    assert len(runs[0]) == len(runs[1]) == 11
    for (inputs, labels, streams), (other_inputs, other_labels, other_streams) in zip(*runs, strict=True):
        assert torch.equal(inputs, other_inputs)
        np.testing.assert_array_equal(labels, other_labels)
        assert streams == other_streams


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_a_pass_left_early_draws_no_more_than_was_handed_out(golden: Path, n_donkeys: int) -> None:
    runs = []
    for mover in (None, Mover(LateCopies())):
        with open_golden(golden, n_donkeys, mover) as data:
            left = data.train_batches(6, 4)
            next(left)
            next(left)
            left.close()  # type: ignore[attr-defined]
            runs.append([batch.labels.tolist() for batch in data.train_batches(4, 4)])
    assert runs[0] == runs[1]
