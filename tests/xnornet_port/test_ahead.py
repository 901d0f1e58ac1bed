"""Fetching one item ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from xnornet_port.ahead import made_ahead


def test_items_come_in_order_and_the_next_is_fetched_meanwhile() -> None:
    fetched: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            fetched.append(number)
            yield number

    items = made_ahead(numbers())
    assert next(items) == 0
    deadline = time.monotonic() + 60
    while fetched[-1] < 2 and time.monotonic() < deadline:  # 1 lies ready, 2 waits for its place
        time.sleep(0.01)
    time.sleep(0.05)
    assert fetched == [0, 1, 2]
    assert list(items) == [1, 2, 3, 4]


def test_an_exception_comes_where_the_item_would() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = made_ahead(failing())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_closing_ends_the_thread_and_the_items() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = set(threading.enumerate())
    items = made_ahead(endless())
    next(items)
    (thread,) = set(threading.enumerate()) - before  # of those before, some may end meanwhile
    items.close()
    assert closed.is_set()
    assert not thread.is_alive()
