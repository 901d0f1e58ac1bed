"""Batches of pictures, made in the main process or in a data worker alike (dataset.lua: sample, get)."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lua_compat import Generator
from lua_compat.image import ScalingMemory
from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.preprocessing import Preprocessing, Workspace, evaluation_sample, train_sample

if TYPE_CHECKING:
    import torch  # workers need no PyTorch

__all__ = ["Batch", "BatchFiller", "BatchRequest", "Fault", "Loader"]


WORDS = {"train": 6, "test": 1}
"""Words of the random stream that a readable picture takes: class, index, scale, row, column, flip; or the scale."""


class Fault(NamedTuple):
    """A picture that could not be read, and why."""

    path: str
    reason: str


class BatchRequest(NamedTuple):
    """Which batch to make: `size` random training pictures, or the test pictures from number `first` (from 1) on.

    Where several processes train together it is a part of a batch: `before` and `after` pictures of it are others'.
    """

    part: str  # "train" or "test"
    size: int
    first: int = 1
    before: int = 0
    after: int = 0
    is_shared: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """inputs: float32 (N, 3, crop, crop), an array or already a tensor on the device. labels: int64 (N,), from 1.

    faults: the unreadable ones among its pictures. seconds: time it took to load. stream: the state after this batch of
    the random stream it was drawn from (see `Generator.state`).
    """

    inputs: "npt.NDArray[np.float32] | torch.Tensor"
    labels: npt.NDArray[np.int64]
    faults: tuple[Fault, ...]
    seconds: float
    stream: bytes
    n_others: int = 0  # pictures of the batch that other processes have


class PictureSet(Protocol):
    """What `DataSource` asks of the training or the test pictures; `Dataset` has it."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def image_class(self) -> npt.NDArray[np.int64]: ...

    @property
    def sample_list(self) -> tuple[npt.NDArray[np.int64], ...]: ...

    def __len__(self) -> int: ...


class TrainingCheck(Protocol):
    """Settings that can refuse to train; `Preprocessing` has it."""

    def check_training(self) -> None: ...


class BatchFiller(Protocol):
    """What makes batches in the main process: `Loader`, or `CifarLoader`."""

    stream: Generator

    @property
    def train(self) -> PictureSet: ...

    @property
    def test(self) -> PictureSet: ...

    @property
    def settings(self) -> TrainingCheck: ...

    def input_shape(self, request: BatchRequest) -> tuple[int, int, int, int]: ...

    def fill(
        self, request: BatchRequest, inputs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> tuple[Fault, ...]: ...


@dataclass
class Loader:
    """One donkey: data sets, settings, the random stream that all its draws come from, and memory to scale in.

    refused: pictures that count as unreadable without a look at them, and why. on_picture: told each path before it is
    opened.
    """

    train: Dataset
    test: Dataset
    settings: Preprocessing
    stream: Generator
    memory: ScalingMemory = field(default_factory=ScalingMemory)
    refused: dict[bytes, str] = field(default_factory=dict)
    on_picture: Callable[[bytes], None] = lambda path: None

    def input_shape(self, request: BatchRequest) -> tuple[int, int, int, int]:
        """Shape of the batch's inputs, (N, 3, crop, crop)."""
        return (request.size, 3, self.settings.crop_size, self.settings.crop_size)

    def fill(
        self, request: BatchRequest, inputs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
    ) -> tuple[Fault, ...]:
        """Write the batch into `inputs` and `labels`; returns its unreadable pictures.

        Raises XnorNetError, naming the file, for what is not the picture's fault: no memory left, the data folder gone.
        """
        faults = []
        self._pass_over(request.part, request.before)
        for place in range(request.size):
            stream = _CountingStream(self.stream)
            # The draws of a picture follow those of the one before: class, index, scale, row, column, flip.
            if request.part == "train":
                path, labels[place] = self.train.draw(stream)
                make_sample = train_sample
            else:
                path, labels[place] = self.test.path(request.first + place), self.test.label(request.first + place)
                make_sample = evaluation_sample
            workspace = Workspace(inputs[place], self.memory, self.refused)
            self.on_picture(path)
            try:
                fault = make_sample(path, stream, self.settings, workspace).fault
            except (MemoryError, OSError) as error:
                raise XnorNetError(f"{os.fsdecode(path)}: cannot be loaded ({reason_of(error)})") from error
            if fault is not None:
                (self.train if request.part == "train" else self.test).check_present()
                faults.append(Fault(os.fsdecode(path), fault))
            if request.is_shared:
                stream.draw_up_to(WORDS[request.part])
        self._pass_over(request.part, request.after)
        return tuple(faults)

    def _pass_over(self, part: str, n_pictures: int) -> None:
        """Draw what the pictures of other processes draw, so that the streams of all stay at the same place."""
        for _ in range(n_pictures):
            _CountingStream(self.stream).draw_up_to(WORDS[part])


class _CountingStream:
    """The stream, and how many words were drawn through this: an unreadable picture takes one less."""

    def __init__(self, stream: Generator) -> None:
        self._stream = stream
        self._n_drawn = 0

    def random(self, first: int, last: int) -> int:
        self._n_drawn += 1
        return int(self._stream.random(first, last))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        self._n_drawn += 1
        return self._stream.uniform(low, high)

    def draw_up_to(self, n_words: int) -> None:
        while self._n_drawn < n_words:
            self.uniform()
