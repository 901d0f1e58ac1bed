"""-tensorboard: the scalars of two epochs read back from the event file, and the line where the package is missing."""

import io
import sys
from pathlib import Path

import pytest

from xnornet_port.metrics import Scores
from xnornet_port.report import Report
from xnornet_port.train import TrainedBatch


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_scalars_of_two_epochs(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report = Report(quiet=True, stream=io.StringIO())
    report.open_tensorboard(tmp_path)
    for epoch, rate in ((1, 0.5), (2, 0.25)):
        mean = Scores(2.0 * epoch, 10.0 * epoch, 40.0 + epoch, 6, 48)
        report.trained_batch(epoch, 1, rate, TrainedBatch(1, mean, mean, 0.0, 0.0))
        report.train_summary(epoch, 1.0, mean)
        report.test_summary(epoch, 1.0, Scores(3.0 * epoch, 5.0 * epoch, 50.0 + epoch, 6, 48))
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {
        "loss/train": [(1, 2.0), (2, 4.0)],
        "top-1/train": [(1, 10.0), (2, 20.0)],
        "top-5/train": [(1, 41.0), (2, 42.0)],
        "learning rate": [(1, 0.5), (2, 0.25)],
        "loss/test": [(1, 3.0), (2, 6.0)],
        "top-1/test": [(1, 5.0), (2, 10.0)],
        "top-5/test": [(1, 51.0), (2, 52.0)],
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_resumed_run_shows_what_it_does_again_once(tmp_path: Path) -> None:
    """Killed after the training of epoch 2 and resumed within it: the first one's line of epoch 2 is not shown."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for from_epoch, rows in ((None, [(1, 4.0), (2, 3.5)]), (2, [(2, 3.0), (3, 2.5)])):
        report = Report(quiet=True, stream=io.StringIO())
        report.open_tensorboard(tmp_path, from_epoch)
        for epoch, loss in rows:
            report.train_summary(epoch, 1.0, Scores(loss, 0.0, 0.0, 6, 48))
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/train")] == [(1, 4.0), (2, 3.0), (3, 2.5)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_ends_the_scalars_not_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    stream = io.StringIO()
    report = Report(quiet=True, stream=stream)
    report.open_tensorboard(tmp_path)
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.symlink_to("/dev/full")
    for epoch in (1, 2):
        report.test_summary(epoch, 1.0, Scores(1.0, 20.0, 60.0, 1, 8))
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("-tensorboard")]
    assert lines == ["-tensorboard: nothing more is written for it (No space left on device)"]


def test_without_the_package_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    stream = io.StringIO()
    report = Report(quiet=True, stream=stream)
    report.open_tensorboard(tmp_path)
    report.test_summary(1, 1.0, Scores(1.0, 20.0, 60.0, 1, 8))
    first, *_ = stream.getvalue().splitlines()
    assert first == (
        "-tensorboard: nothing is written for it, its package is not installed: pip install tensorboard==2.21.0"
    )
    assert not list(tmp_path.iterdir())
