"""What all commands share on the terminal: --quiet, progress bars, tables.

Colours and progress bars are for terminals; rich leaves colours out where NO_COLOR is set.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console

from xnornet_port.errors import file_problem

__all__ = ["UNFINISHED", "add_quiet", "positive", "progress_bar", "table_console", "tool_problem", "whole"]

PIPE_WIDTH = 1000
"""Columns where the output is not a terminal: no line is broken or cut off, whoever reads it."""
UNFINISHED = ".unfinished-"
"""Before the name of a file that is checked before it gets its name."""


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Declare --quiet, which every command has."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar and no remarks: errors only")


def positive(text: str) -> int:
    """A whole number from 1 on, as the type of an argument."""
    return whole(1)(text)


def whole(least: int, most: int = sys.maxsize) -> Callable[[str], int]:
    """The type of an argument that is a whole number in a range; `least` is 0 or more."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least or int(text) > most:
            is_above = text.isdecimal() and int(text) > most
            limits = f"from {least} to {most}" if is_above or most < sys.maxsize else f"from {least} on"
            raise argparse.ArgumentTypeError(f"expected a whole number {limits}, found {text!r}")
        return int(text)

    return number


class TableConsole(Console):
    """Where the reader is gone rich would end the program; that is for main() to say."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def table_console(stream: TextIO | None = None) -> Console:
    """For standard output: as wide as the terminal, and wide enough for anything elsewhere."""
    console = TableConsole(file=stream or sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


@contextmanager
def progress_bar(title: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, on standard error while that is a terminal; yields a function of how many are done."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def tool_problem(error: Exception) -> str:
    """An error in words; what is UNFINISHED stands for the file that was asked for."""
    return (file_problem(error) if isinstance(error, OSError) else str(error)).replace(UNFINISHED, "", 1)
