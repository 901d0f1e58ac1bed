"""Filling a batch, wherever that happens."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lua_compat import Generator, image
from xnornet_port.batches import BatchRequest, Loader
from xnornet_port.dataset import scan_folder
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing, evaluation_sample, train_sample


@pytest.fixture
def loader(golden: Path) -> Loader:
    train = scan_folder(str(golden / "imagenet" / "train"))
    test = scan_folder(str(golden / "imagenet" / "val"), force_classes=train.classes)
    statistics = ChannelStatistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return Loader(train, test, Preprocessing(64, 48, 0.1, statistics), Generator(5))


def test_pictures_are_drawn_one_after_the_other(loader: Loader) -> None:
    """Ledger row 13: class and index of a picture come after the flip of the one before."""
    inputs, labels = np.empty((3, 3, 48, 48), dtype=np.float32), np.zeros(3, dtype=np.int64)
    loader.fill(BatchRequest("train", 3), inputs, labels)
    stream = Generator(5)
    for place in range(3):
        path, label = loader.train.draw(stream)
        np.testing.assert_array_equal(inputs[place], train_sample(path, stream, loader.settings).pixels)
        assert labels[place] == label


def test_test_pictures_come_in_order_and_draw_too(loader: Loader) -> None:
    inputs, labels = np.empty((2, 3, 48, 48), dtype=np.float32), np.zeros(2, dtype=np.int64)
    loader.fill(BatchRequest("test", 2, first=6), inputs, labels)
    assert labels.tolist() == [1, 2]  # 6 of each class: the last of class 1 and the first of class 2
    stream = Generator(5)
    for place, number in enumerate((6, 7)):
        expected = evaluation_sample(loader.test.path(number), stream, loader.settings)
        np.testing.assert_array_equal(inputs[place], expected.pixels)
    assert loader.stream.state == stream.state


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "MemoryError"), (OSError(24, "Too many open files"), "Too many open files")]
)
def test_what_is_no_fault_of_the_picture_ends_the_run(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(path: str, memory: object) -> None:
        raise error

    monkeypatch.setattr(image, "decode", fail)
    inputs, labels = np.empty((1, 3, 48, 48), dtype=np.float32), np.zeros(1, dtype=np.int64)
    with pytest.raises(XnorNetError) as caught:
        loader.fill(BatchRequest("test", 1), inputs, labels)
    assert str(caught.value) == f"{os.fsdecode(loader.test.path(1))}: cannot be loaded ({reason})"


def test_loading_needs_no_torch() -> None:
    """A worker that imported it would start seconds later and take 300 MB more."""
    program = "import sys, xnornet_port.data, xnornet_port.donkey; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
