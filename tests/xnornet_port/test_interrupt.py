"""Ctrl-C once, twice, SIGTERM, and afterwards."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xnornet_port.interrupt import signal_name, stop_on_signals


def test_the_first_only_asks_the_second_ends() -> None:
    said: list[str] = []
    with stop_on_signals(said.append) as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        assert should_stop.exit_code == 130
        assert said == ["Ctrl-C: stopping after this batch (once more to stop at once)"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_clusters_notice_may_come_more_than_once() -> None:
    said: list[str] = []
    with stop_on_signals(said.append) as should_stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert should_stop.exit_code == 143
    assert said == ["SIGTERM: stopping after this batch"]


def test_a_terminal_that_is_gone_asks_too_but_not_under_nohup() -> None:
    said: list[str] = []
    with stop_on_signals(said.append) as should_stop:
        signal.raise_signal(signal.SIGHUP)
        assert should_stop.exit_code == 129
    assert said == ["SIGHUP: stopping after this batch"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(said.append) as should_stop:
            signal.raise_signal(signal.SIGHUP)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_line_that_cannot_be_said_breaks_nothing_off() -> None:
    """The output's reader is gone, and the signal came in the middle of an update."""

    def gone(text: str) -> None:
        raise BrokenPipeError

    with stop_on_signals(gone) as should_stop:
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()


def test_every_signal_can_be_named() -> None:
    """A process may be killed by one of 30 real-time signals, of which Python names two."""
    assert signal_name(signal.SIGKILL) == "SIGKILL"
    assert signal_name(signal.SIGRTMIN + 1) == f"signal {signal.SIGRTMIN + 1}"


def test_ctrl_c_after_the_end_of_a_run_gives_no_traceback() -> None:
    """While Python and PyTorch take themselves down, which takes a moment."""
    code = (
        "import atexit, signal, sys; atexit.register(signal.raise_signal, signal.SIGINT); sys.argv[1:] = ['-help'];"
        "from xnornet_port.cli import program; program()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("Usage: main.py")


def test_the_handlers_before_are_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_signals(lambda text: None):
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
