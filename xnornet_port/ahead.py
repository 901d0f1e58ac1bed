"""The next item is fetched while the one before is in use."""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["made_ahead"]

Item = TypeVar("Item")
LOOK_SECONDS = 0.1  # between looks whether anybody still wants what was fetched


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    """Nothing more comes."""


def made_ahead(items: Iterator[Item]) -> Generator[Item]:
    """The same items, each fetched by a thread while the one before is in use. Exceptions come where the item would.

    Closing it waits for the item that is being fetched, and then closes `items`, in that thread.
    """
    ready: queue.Queue[Item | _Failure | _End] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def fetch() -> None:
        last: _Failure | _End = _End()
        try:
            for item in items:
                _put(ready, item, closed)
                if closed.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that uses the items)
            last = _Failure(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            _put(ready, last, closed)

    thread = threading.Thread(target=fetch, name="made_ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        closed.set()
        thread.join()


def _put(ready: queue.Queue[Any], item: object, closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            ready.put(item, timeout=LOOK_SECONDS)
        except queue.Full:
            continue
        return
