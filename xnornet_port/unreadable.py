"""Pictures that could not be read: named once, counted, and listed in a file of the run."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xnornet_port.batches import Fault
from xnornet_port.errors import one_line, reason_of

__all__ = ["FILE_NAME", "UnreadableList"]

FILE_NAME = "unreadable.txt"
SHOWN = 10
"""So many are named on the console; the others are in the file only."""

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class UnreadableList:
    """The file has a line per picture, `path TAB reason`; a backslash, tab or line break in a path is written `\\t` ...

    counts: path -> how often it was wanted in this process.
    """

    def __init__(self, say: Callable[[str], None], file: Path | None = None) -> None:
        """With `file` the list is kept there; what the run, in whatever process, has listed is not listed again."""
        self.counts: dict[str, int] = {}
        self._say = say
        self._file = file
        self._listed: set[str] = set()
        self._seen = 0  # so far the file has been read
        self._unnamed = 0  # since the last summary

    def add(self, fault: Fault) -> None:
        """Count a picture; the first time name it and write it down."""
        is_new = fault.path not in self.counts
        self.counts[fault.path] = self.counts.get(fault.path, 0) + 1
        if not is_new:
            return
        self._write(fault)
        if len(self.counts) <= SHOWN:
            self._say(f"ERROR: image can not be loaded!!! {one_line(fault.reason)}; the mean colour stands in for it")
        else:
            self._unnamed += 1

    def summarise(self) -> None:
        """After a pass: say how many there are by now, if there are any that were not named."""
        if self._unnamed:
            self._unnamed = 0
            where = f"; all are listed in {self._file}" if self._file else ""
            wanted = sum(self.counts.values())
            self._say(f"ERROR: {len(self.counts)} images can not be loaded so far, wanted {wanted} times{where}")

    def _write(self, fault: Fault) -> None:
        escaped = fault.path.translate(ESCAPES)
        if self._file is None or escaped in self._listed:
            return
        reason = fault.reason.removeprefix(f"{fault.path}: ")
        try:
            with open(self._file, "a+", encoding="utf-8", errors="surrogateescape") as file, _held(file.fileno()):
                file.seek(self._seen)  # what other processes of the run have listed since
                self._listed |= _paths_in(file.read())
                if escaped not in self._listed:
                    file.write(f"{escaped}\t{one_line(reason)}\n")
                    self._listed.add(escaped)
                self._seen = file.tell()
        except OSError as error:
            self._say(f"{self._file}: cannot be written ({reason_of(error)}); going on without this list")
            self._file = None


def _paths_in(text: str) -> set[str]:
    return {line.partition("\t")[0] for line in text.split("\n") if line}


@contextmanager
def _held(descriptor: int) -> Iterator[None]:
    """One process at a time, where the system and the file system have such locks."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with suppress(OSError):  # some network file systems have none: a picture may stand there twice
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield  # closing the file lets go of it
