"""Batches for training and testing, loaded in the main process or by data workers (data.lua, donkey.lua).

with open_data(...) as data:
    for batch in data.train_batches(epoch_size, batch_size):
        batch.inputs, batch.labels
"""

import contextlib
import time
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lua_compat import Generator
from xnornet_port.ahead import made_ahead
from xnornet_port.batches import Batch, BatchFiller, BatchRequest, Loader
from xnornet_port.donkeys import PICTURE_SECONDS, DonkeyPool
from xnornet_port.errors import XnorNetError
from xnornet_port.metadata import MEAN_STD_SAMPLES, open_metadata
from xnornet_port.preprocessing import Preprocessing
from xnornet_port.progress import Progress, no_progress
from xnornet_port.unreadable import UnreadableList

if TYPE_CHECKING:
    from xnornet_port.transfer import Mover

__all__ = ["DataSource", "MainProcess", "Part", "open_data"]

Say = Callable[[str], None]
Part = Callable[[int], tuple[int, int]]


class BatchMaker(Protocol):
    """What `DataSource` gets its batches from: `DonkeyPool`, or `MainProcess`."""

    streams: list[bytes]

    def batches(self, requests: Sequence[BatchRequest], first: int = 0) -> Iterator[Batch]: ...

    def close(self) -> None: ...


class MainProcess:
    """-nDonkeys 0: each batch is made when it is wanted, all from the one stream it is given (ledger row 13)."""

    def __init__(self, loader: BatchFiller) -> None:
        self._loader = loader

    @property
    def streams(self) -> list[bytes]:
        return [self._loader.stream.state]

    @streams.setter
    def streams(self, states: Sequence[bytes]) -> None:
        if len(states) != 1:
            raise XnorNetError(f"{len(states)} random streams of data workers, but none is in use (-nDonkeys 0)")
        self._loader.stream.state = states[0]

    def batches(self, requests: Sequence[BatchRequest], first: int = 0) -> Iterator[Batch]:
        for request in requests[first:]:
            start = time.perf_counter()
            try:
                inputs = np.empty(self._loader.input_shape(request), dtype=np.float32)
            except (MemoryError, ValueError) as error:  # ValueError: more elements than there are addresses
                raise XnorNetError(
                    f"no memory for a batch of {request.size} pictures; use a smaller -batchSize"
                ) from error
            labels = np.empty(request.size, dtype=np.int64)
            faults = self._loader.fill(request, inputs, labels)
            seconds, n_others = time.perf_counter() - start, request.before + request.after
            yield Batch(inputs, labels, faults, seconds, self._loader.stream.state, n_others)

    def close(self) -> None:
        """Nothing to close."""


class DataSource:
    """The pictures of a run as batches. Close it, or use it in a `with` statement; workers end with it.

    classes: class names, class 1 first. n_test: number of test pictures. unreadable: the pictures that could not be
    read; the mean colour stands in for them. Batches are parts of whole ones where several processes train together.
    """

    def __init__(
        self,
        loader: BatchFiller,
        maker: BatchMaker,
        unreadable: UnreadableList,
        part: Part | None = None,
        mover: "Mover | None" = None,
    ) -> None:
        self.classes = list(loader.train.classes)
        self.n_test = len(loader.test)
        self.unreadable = unreadable
        self._loader = loader
        self._settings = loader.settings
        self._maker = maker
        self._part = part
        self._mover = mover
        self._streams = maker.streams

    def train_batches(self, n_batches: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """`n_batches` batches of random training pictures, classes in balance; from batch `first` (from 0) on."""
        self.check_training()
        _require_positive("-batchSize", batch_size)
        request = self._own_part(BatchRequest("train", batch_size))
        return self._noting_faults(self._maker.batches([request] * n_batches, first))

    def check_training(self) -> None:
        """Raise XnorNetError for sizes of pictures and crops that cannot be trained with."""
        self._settings.check_training()

    def _own_part(self, request: BatchRequest) -> BatchRequest:
        if self._part is None:
            return request
        start, end = self._part(request.size)
        rest = request.size - end
        return BatchRequest(request.part, end - start, request.first + start, start, rest, is_shared=True)

    def n_test_batches(self, batch_size: int, test_all: bool = False) -> int:
        """How many batches `test_batches` gives. Raises XnorNetError where the original would test nothing."""
        _require_positive("-batchSize", batch_size)
        if test_all:
            return -(-self.n_test // batch_size)
        if self.n_test < batch_size:
            raise XnorNetError(
                f"-batchSize {batch_size} is larger than the test set of {self.n_test} pictures, and the last, "
                f"incomplete batch is left out: nothing to test; use -testAll or -batchSize {self.n_test}"
            )
        return self.n_test // batch_size

    def test_batches(self, batch_size: int, test_all: bool = False, skip: int = 0) -> Iterator[Batch]:
        """The test pictures in order, from batch `skip` (from 0) on.

        The last, incomplete batch is left out, as in the original, unless `test_all`.
        """
        requests = []
        for k in range(self.n_test_batches(batch_size, test_all)):
            first = k * batch_size + 1
            requests.append(self._own_part(BatchRequest("test", min(batch_size, self.n_test - first + 1), first)))
        return self._noting_faults(self._maker.batches(requests, skip))

    @property
    def streams(self) -> list[bytes]:
        """Random streams after the last batch handed out: the main process's, or each worker's. Assign to resume."""
        return list(self._streams)

    @streams.setter
    def streams(self, states: Sequence[bytes]) -> None:
        self._maker.streams = list(states)
        self._streams = list(states)

    def identity(self) -> Iterator[bytes]:
        """What batches depend on beside options and files' contents: classes, pictures of each, mean and deviation."""
        for dataset in (self._loader.train, self._loader.test):
            yield "\0".join(dataset.classes).encode("utf-8", "surrogateescape")
            yield dataset.image_class.tobytes()
            yield from (numbers.tobytes() for numbers in dataset.sample_list)
        yield repr(self._settings).encode()

    def _noting_faults(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        is_finished = False
        sent = made_ahead(self._sent(batches)) if self._mover else self._sent(batches)
        try:
            for receive, streams in sent:
                batch = receive()
                for fault in batch.faults:
                    self.unreadable.add(fault)
                self._streams = streams
                yield batch
            is_finished = True
        finally:
            sent.close()
            if self._mover and not is_finished:  # what was fetched ahead counts as not drawn
                with contextlib.suppress(XnorNetError, RuntimeError):  # the workers may have been closed before
                    self._maker.streams = list(self._streams)
        self.unreadable.summarise()

    def _sent(self, batches: Iterator[Batch]) -> abc.Generator[tuple[Callable[[], Batch], list[bytes]]]:
        """Each batch, to be called for where it is needed, and the random streams after it."""
        for batch in batches:
            yield self._mover.send(batch) if self._mover else partial(_itself, batch), self._maker.streams

    def close(self) -> None:
        """End the data workers."""
        self._maker.close()

    def __enter__(self) -> "DataSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_data(
    data: str,
    cache: str,
    *,
    image_size: int,
    crop_size: int,
    n_classes: int,
    scaling_factor: float,
    n_donkeys: int,
    manual_seed: int,
    say: Say,
    progress: Progress = no_progress,
    n_samples: int = MEAN_STD_SAMPLES,
    training: bool = True,
    picture_seconds: float = PICTURE_SECONDS,
    unreadable_file: Path | None = None,
    warn: Say | None = None,
    allow_outside: bool = False,
    part: Part | None = None,
    mover: "Mover | None" = None,
) -> DataSource:
    """Everything data.lua does before training: open or make the caches, start the donkeys, count classes.

    data: folder with train/CLASS/... and val/CLASS/.... cache: folder of the cache files. manual_seed: with
    n_donkeys=0 all draws come from Generator(manual_seed), those of worker i from Generator(manual_seed + i).
    n_samples: pictures for the mean and again for the deviation, where there is no meanstdCache.t7. training=False:
    data/train may be missing. picture_seconds: a picture that takes a data worker longer counts as unreadable.
    unreadable_file: where unreadable pictures are listed. The original's console lines go to `say`, lines about
    unreadable pictures and lost workers to `warn` where it is given. allow_outside: caches may name pictures anywhere.
    part: tells (first from 0, end) of the pictures of a batch of n that are this process's, where several train
    together; all of them draw from their streams as if they loaded the whole. mover: what brings batches to a GPU, each
    while the one before is in use. Raises XnorNetError, in one line, for data, caches and options that do not fit
    together.
    """
    if n_donkeys < 0:
        raise XnorNetError(f"-nDonkeys is {n_donkeys}, expected 0 or more")
    settings = Preprocessing(image_size, crop_size, scaling_factor, statistics=None)
    metadata = open_metadata(
        data, cache, settings, manual_seed, say, progress, n_samples, n_classes, training, allow_outside
    )
    settings = Preprocessing(image_size, crop_size, scaling_factor, metadata.statistics)
    loader = Loader(metadata.train, metadata.test, settings, Generator(manual_seed))
    for number in range(1, n_donkeys + 1):
        say(f"Starting donkey with id: {number} seed: {manual_seed + number}")
    maker: BatchMaker = MainProcess(loader)
    if n_donkeys:
        maker = DonkeyPool(loader, manual_seed, n_donkeys, picture_seconds, warn or say)
    say(f"nClasses: \t{n_classes}")
    say(f"nTest: \t{len(metadata.test)}")
    return DataSource(loader, maker, UnreadableList(warn or say, unreadable_file), part, mover)


def _itself(batch: Batch) -> Batch:
    return batch


def _require_positive(option: str, value: int) -> None:
    if value < 1:
        raise XnorNetError(f"{option} is {value}, expected at least 1")
