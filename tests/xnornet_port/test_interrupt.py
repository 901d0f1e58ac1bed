"""Ctrl-C once, twice, and afterwards."""

import signal

import pytest

from xnornet_port.interrupt import stop_on_interrupt


def test_the_first_only_asks_the_second_ends() -> None:
    said: list[str] = []
    with stop_on_interrupt(said.append) as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        assert said == ["Ctrl-C: stopping after this batch (once more to stop at once)"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handler_before_is_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt(lambda text: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
