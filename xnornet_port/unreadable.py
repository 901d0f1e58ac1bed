"""Pictures that could not be read: named once, counted, and listed in a file of the run."""

from collections.abc import Callable
from pathlib import Path

from xnornet_port.batches import Fault
from xnornet_port.errors import one_line

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
        """With `file` the list is kept there; what a resumed run has listed already is not listed again."""
        self.counts: dict[str, int] = {}
        self._say = say
        self._file = file
        self._listed = _listed_in(file)
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
        self._listed.add(escaped)
        reason = fault.reason.removeprefix(f"{fault.path}: ")
        try:
            with open(self._file, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{escaped}\t{one_line(reason)}\n")
        except OSError as error:
            self._say(f"{self._file}: cannot be written ({error.strerror or error}); going on without this list")
            self._file = None


def _listed_in(file: Path | None) -> set[str]:
    if file is None or not file.is_file():
        return set()
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    return {line.partition("\t")[0] for line in text.split("\n") if line}
