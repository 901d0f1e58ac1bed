"""What a run prints, to a pipe and to a terminal."""

import io

import pytest

from lua_compat.logger import read_log
from xnornet_port.metrics import Scores
from xnornet_port.report import Report
from xnornet_port.train import TrainedBatch

MEAN = Scores(1.5, 20.0, 60.0, 2, 16)
BATCH = TrainedBatch(2, Scores(1.25, 12.5, 50.0, 1, 8), MEAN, data_seconds=0.0625, compute_seconds=0.25)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_batch_line_is_train_luas(stream: io.StringIO) -> None:
    """The format string of train.lua, filled in by hand; Time is data and computation together."""
    Report(stream=stream).trained_batch(3, 6, 0.001, BATCH)
    assert stream.getvalue() == (
        "Epoch: [3][2/6]\tTime 0.312(0.250) Err 1.2500 Top1-%: 12.50 (20.00)  Top5-%: 50.00 (60.00) LR 1e-03 "
        "DataTime 0.062\t\n"
    )


def test_a_test_line_comes_every_1024_pictures(stream: io.StringIO) -> None:
    report = Report(stream=stream)
    report.tested_batch(1, 5000, BATCH.scores, Scores(1.0, 25.0, 75.0, 127, 1016))
    assert stream.getvalue() == ""
    report.tested_batch(1, 5000, BATCH.scores, Scores(1.0, 25.0, 75.0, 128, 1024))
    assert stream.getvalue() == ("Epoch: Testing [1][1024/5000] | top1 : [12.50 (25.00)] | top5 : [50.00 (75.00)]\t\n")


def test_summaries_and_logs(stream: io.StringIO, tmp_path) -> None:
    report = Report(stream=stream)
    report.open_logs(tmp_path)
    report.train_summary(1, 2.5, MEAN)
    report.test_summary(1, 1.25, MEAN)
    assert stream.getvalue() == (
        "Epoch: [1][TRAINING SUMMARY] Total Time(s): 2.50\taverage loss (per batch): 1.50 \t accuracy(%):\t "
        "top-1 20.00\t\t\n"
        "\n\t\n"
        "Epoch: [1][TESTING SUMMARY] Total Time(s): 1.25 \taverage loss (per batch): 1.50 \t accuracy [Center](%):\t "
        "top-1 20.00\t \t\n"
        "\n\t\n"
    )
    names = ("% top1 accuracy (train set)", "% top5 accuracy (train set)", "avg loss (train set)")
    assert read_log(tmp_path / "train.log") == dict(zip(names, ([20.0], [60.0], [1.5]), strict=True))


def test_quiet_keeps_summaries_and_warnings(stream: io.StringIO) -> None:
    report = Report(quiet=True, stream=stream)
    report.say("hidden")
    report.block("hidden")
    report.trained_batch(1, 6, 0.001, BATCH)
    report.warn("seen")
    assert stream.getvalue() == "seen\n"


def test_a_terminal_gets_a_bar_in_place_of_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    report = Report(stream=terminal)
    with report.progress("epoch 3: training", 6):
        report.trained_batch(3, 6, 0.001, BATCH)
        report.warn("a warning in between")
    shown = terminal.getvalue()
    assert "2/6" in shown
    assert "err 1.2500" in shown
    assert "a warning in between" in shown
    assert "Epoch: [3][2/6]" not in shown


def test_a_pipe_gets_no_bar(stream: io.StringIO) -> None:
    with Report(stream=stream).progress("epoch 3: training", 6) as done:
        done(3)
    assert stream.getvalue() == ""
