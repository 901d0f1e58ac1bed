"""Standard output and standard error that are closed, full or without a reader: no traceback, no exit code 120.

Python flushes both when a program ends; what cannot be written then ends it with a warning and exit code 120, whatever
the program has said about it before.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["standard_streams", "tell"]


@contextmanager
def standard_streams() -> Iterator[None]:
    """For a whole program: what is printed to a closed stream goes nowhere, and what cannot be written is dropped.

    It is dropped at the end; whoever prints has had the OSError of it before, if it has flushed.
    """
    for name in ("stdin", "stdout", "stderr"):  # in this order: each gets its own number, the lowest that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _lead_nowhere(stream.fileno())


def tell(text: str) -> None:
    """A line on standard error, for whoever may be there to read it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
