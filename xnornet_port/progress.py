"""How lower modules show how far they are, without knowing whether there is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["Progress", "no_progress"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""`with progress(title, total) as done:` and then done(steps so far), as `Report.progress`."""


@contextmanager
def no_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda done: None
