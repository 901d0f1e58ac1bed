"""Everything a run prints, and its two log files, in the original's words (train.lua, test.lua, optim.Logger).

Lua's print ends a line of text with a tab in the `th` interpreter the original runs in; so do these lines, so that log
parsers of 2016 still work. On a terminal a progress bar takes the place of the line per batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lua_compat.logger import Logger
from lua_compat.lua_format import string_format
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.metrics import Scores
from xnornet_port.standard_streams import tell
from xnornet_port.tensorboard import EventFile
from xnornet_port.train import TrainedBatch

__all__ = ["Report"]

TRAIN_COLUMNS = ("% top1 accuracy (train set)", "% top5 accuracy (train set)", "avg loss (train set)")
TEST_COLUMNS = ("% top1 accuracy (test set) ", "% top5 accuracy (test set) ", "avg loss (test set)")

TRAIN_SUMMARY = (
    "Epoch: [%d][TRAINING SUMMARY] Total Time(s): %.2f\taverage loss (per batch): %.2f \t accuracy(%%):\t top-1 %.2f\t"
)
TEST_SUMMARY = (
    "Epoch: [%d][TESTING SUMMARY] Total Time(s): %.2f \taverage loss (per batch): %.2f \t "
    "accuracy [Center](%%):\t top-1 %.2f\t "
)


class Report:
    """Prints a run's lines to `stream` (standard output); `quiet` leaves out all but summaries and warnings."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._quiet = quiet
        self._train_log: Logger | None = None
        self._test_log: Logger | None = None
        self._scalars: EventFile | None = None
        self._rate: float | None = None  # of the last batch
        self._progress: Progress | None = None

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are drawn: on a terminal, unless quiet."""
        return self._console.is_terminal and not self._quiet

    def open_logs(self, folder: Path, append: bool = False) -> None:
        """Start train.log and test.log in the run's folder, or go on with them."""
        self._train_log = Logger(folder / "train.log", append=append)
        self._test_log = Logger(folder / "test.log", append=append)

    def open_tensorboard(self, folder: Path, from_epoch: int | None = None) -> None:
        """From now on write scalars into the run's folder; a line says so where it cannot be."""
        try:
            self._scalars = EventFile(folder, from_epoch)
        except XnorNetError as error:
            self.warn(f"-tensorboard: nothing is written for it, {error}")
        except OSError as error:
            self._end_scalars(error)

    def say(self, text: str) -> None:
        """One print of text, as the original's print shows it."""
        if not self._quiet:
            self._write(f"{text}\t")

    def block(self, text: str) -> None:
        """A printed table or network: no tab at its end."""
        if not self._quiet:
            self._write(text)

    def warn(self, text: str) -> None:
        """A line that this port adds and that is shown even when quiet."""
        self._write(text)

    def remark(self, text: str) -> None:
        """A line for whoever ran this, not for readers of the output: on standard error, unless quiet."""
        if not self._quiet:
            tell(text)

    def epoch_start(self, purpose: str, epoch: int) -> None:
        """`purpose` is "training" or "validation"."""
        self.say(f"==> doing epoch on {purpose} data:")
        self.say(f"==> online epoch # {epoch}")

    def trained_batch(self, epoch: int, n_batches: int, rate: float, batch: TrainedBatch) -> None:
        """The line after each training batch, or the progress bar's new state."""
        now, mean = batch.scores, batch.mean
        self._rate = rate
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0],
                completed=batch.number,
                status=(
                    f"err {now.loss:.4f}  top-1 {mean.top1:.2f}  top-5 {mean.top5:.2f}  data {batch.data_seconds:.3f} s"
                ),
            )
            return
        self.say(
            string_format(
                "Epoch: [%d][%d/%d]\tTime %.3f(%.3f) Err %.4f Top1-%%: %.2f (%.2f)  Top5-%%: %.2f (%.2f) "
                "LR %.0e DataTime %.3f",
                epoch,
                batch.number,
                n_batches,
                batch.data_seconds + batch.compute_seconds,
                batch.compute_seconds,
                now.loss,
                now.top1,
                mean.top1,
                now.top5,
                mean.top5,
                rate,
                batch.data_seconds,
            )
        )

    def tested_batch(self, epoch: int, n_test: int, batch: Scores, mean: Scores) -> None:
        """The line after every 1024 tested pictures, or the progress bar's new state."""
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0],
                completed=mean.n_pictures,
                status=f"top-1 {mean.top1:.2f}  top-5 {mean.top5:.2f}",
            )
        elif mean.n_pictures % 1024 == 0:
            self.say(
                string_format(
                    "Epoch: Testing [%d][%d/%d] | top1 : [%.2f (%.2f)] | top5 : [%.2f (%.2f)]",
                    epoch,
                    mean.n_pictures,
                    n_test,
                    batch.top1,
                    mean.top1,
                    batch.top5,
                    mean.top5,
                )
            )

    def train_summary(self, epoch: int, seconds: float, mean: Scores) -> None:
        """The epoch's summary line and its row in train.log."""
        self._summary(self._train_log, TRAIN_COLUMNS, TRAIN_SUMMARY, epoch, seconds, mean)
        self._add_scalars("train", epoch, mean)
        if self._rate is not None:
            self._add_scalar("learning rate", self._rate, epoch)

    def test_summary(self, epoch: int, seconds: float, mean: Scores) -> None:
        """The test's summary line and its row in test.log."""
        self._summary(self._test_log, TEST_COLUMNS, TEST_SUMMARY, epoch, seconds, mean)
        self._add_scalars("test", epoch, mean)

    def _add_scalars(self, part: str, epoch: int, mean: Scores) -> None:
        for name, value in (("loss", mean.loss), ("top-1", mean.top1), ("top-5", mean.top5)):
            self._add_scalar(f"{name}/{part}", value, epoch)

    def _add_scalar(self, tag: str, value: float, epoch: int) -> None:
        if self._scalars is None:
            return
        try:
            self._scalars.add_scalar(tag, value, epoch)
        except OSError as error:
            self._end_scalars(error)

    def _end_scalars(self, error: OSError) -> None:
        """No reason to end a run."""
        self._scalars = None
        self.warn(f"-tensorboard: nothing more is written for it ({reason_of(error)})")

    def _summary(
        self, log: Logger | None, columns: tuple[str, ...], line: str, epoch: int, seconds: float, mean: Scores
    ) -> None:
        if log is not None:
            log.add(dict(zip(columns, (mean.top1, mean.top5, mean.loss), strict=True)))
        self._write(string_format(line, epoch, seconds, mean.loss, mean.top1) + "\t")
        self.say("\n")

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on a terminal, nothing elsewhere; yields a function that takes how many are done."""
        if not self.shows_progress:
            yield lambda done: None
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
        ) as progress:
            task = progress.add_task(title, total=total, status="")
            self._progress = progress
            try:
                yield lambda done: progress.update(task, completed=done)
            finally:
                self._progress = None

    def _write(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, soft_wrap=True)
        else:  # rich would turn the tabs into spaces
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except OSError as error:
                raise OSError(error.errno, error.strerror, "standard output") from error
