"""Ctrl-C, SIGTERM (a cluster's notice) and SIGHUP (the terminal is gone) end a run after the batch in hand.

A second Ctrl-C ends it at once. Under nohup, which ignores SIGHUP, that stays ignored.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

__all__ = ["StopRequest", "exit_program", "signal_name", "signals_to_heed", "stop_on_signals"]

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    NAMES[signal.SIGHUP] = "SIGHUP"


class StopRequest:
    """Whether to stop, as a function."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """A shell's for the signal that asked to stop: 130, 143, 129; 143 also where another process was told."""
        return 128 + (signal.SIGTERM if self.signal is None else self.signal)


def signal_name(number: int) -> str:
    """SIGKILL, SIGSEGV, ...; the number of a signal without a name, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signals_to_heed() -> list[signal.Signals]:
    """Those that ask a run to stop."""
    is_under_nohup = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in NAMES if not (is_under_nohup and number == signal.SIGHUP)]


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """Inside, the first signal only makes the yielded function answer True; the handlers before are put back after it.

    Further SIGTERMs change nothing: a cluster may send several.
    """
    request = StopRequest()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if request.signal is None:
            request.signal = number
            again = " (once more to stop at once)" if number == signal.SIGINT else ""
            # it may have come in the middle of another line being written, or of an update: nothing may fail here
            with suppress(RuntimeError, OSError):
                say(f"{NAMES[signal.Signals(number)]}: stopping after this batch{again}")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in signals_to_heed()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_program(code: int) -> NoReturn:
    """End the process; a Ctrl-C that comes too late gives no traceback of PyTorch's end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
