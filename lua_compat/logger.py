"""optim.Logger: a table of numbers that grows by a line per epoch (torch/optim Logger.lua).

The first line names the columns, every other line has their values as `%11.4e`; a tab follows each entry. The lines
are the original's byte for byte; only the order of the columns, arbitrary there, is the given one here.
"""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path

from lua_compat.errors import LoggerError
from lua_compat.lua_format import string_format, to_number

__all__ = ["Logger", "read_log"]

Entry = float | str


class Logger:
    """Writes one log file.

    >>> logger = Logger("run/train.log")                                    # doctest: +SKIP
    >>> logger.add({"% top1 accuracy (train set)": 25.0, "avg loss (train set)": 1.6271})

    The folder is made if it is missing. Each line reaches the file when it is added, so that a killed run keeps its
    lines. Raises `LoggerError` where the file cannot be written or an entry is neither number nor text.
    """

    def __init__(self, path: str | Path, names: Sequence[str] = (), append: bool = False) -> None:
        """Start the file, which is empty until names or a first line are added.

        `append` goes on with an existing log: its columns count, and `names`, where given, must be among the same.
        """
        self.path = Path(path)
        self.names: tuple[str, ...] = ()
        if append and self.path.exists():
            self.names = tuple(_read_rows(self.path)[0])
        else:
            self._write("", mode="w")
        if names and not self.names:
            self.set_names(names)
        elif names:
            self._check_names(names)

    def set_names(self, names: Sequence[str]) -> None:
        """Write the first line. `LoggerError` where there already is one, or a name cannot stand in it."""
        if self.names:
            raise LoggerError(f"{self.path}: the columns are named already: {', '.join(self.names)}")
        if not names or len(set(names)) != len(names):
            raise LoggerError(f"{self.path}: column names must differ, found {list(names)}")
        for name in names:
            _check_text(name, self.path)
        self._write(_line(names))
        self.names = tuple(names)

    def add(self, entries: Mapping[str, Entry] | Sequence[Entry]) -> None:
        """Write a line: values by column name, or in the order of the columns. The first line names the columns."""
        if not self.names:
            count_names = [str(number) for number in range(1, len(entries) + 1)]
            self.set_names(list(entries) if isinstance(entries, Mapping) else count_names)
        if isinstance(entries, Mapping):
            self._check_names(entries)
            entries = [entries[name] for name in self.names]
        elif len(entries) != len(self.names):
            raise LoggerError(f"{self.path}: {len(entries)} values for the {len(self.names)} columns")
        line = _line(_entry_text(entry, self.path) for entry in entries)
        is_gone = not self.path.exists()  # deleted meanwhile: values without their names could not be read again
        self._write(_line(self.names) + line if is_gone else line)

    def _check_names(self, names: Iterable[str]) -> None:
        if set(names) != set(self.names):
            raise LoggerError(f"{self.path} has the columns {list(self.names)}, found {list(names)}")

    def _write(self, text: str, mode: str = "a") -> None:
        """Open, write, close: nothing stays in memory, and no file stays open between epochs."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise LoggerError(f"{self.path}: cannot write the log ({error.strerror})") from error


def read_log(path: str | Path) -> dict[str, list[float]]:
    """The columns of a log by name, in the file's order; {} for a log without lines.

    Logs of the original and of this port alike. `LoggerError` names file and line of what is no such log.
    """
    names, rows = _read_rows(Path(path))
    columns: dict[str, list[float]] = {name: [] for name in names}
    for line_number, row in enumerate(rows, 2):
        for name, text in zip(names, row, strict=True):
            value = to_number(text)
            if value is None:
                raise LoggerError(f"{path}, line {line_number}, column {name!r}: expected a number, found {text!r}")
            columns[name].append(float(value))
    return columns


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Column names and the texts of every line, whose numbers agree."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LoggerError(f"{path}: cannot read the log ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise LoggerError(f"{path}: not a log of optim.Logger, byte {error.start} is no text") from error
    if not text:
        return [], []
    *lines, rest = text.split("\n")
    if rest:
        raise LoggerError(f"{path}, line {len(lines) + 1} is unfinished: {rest!r}; delete that line to go on")
    names, *rows = (line.removesuffix("\t").split("\t") for line in lines)
    if len(set(names)) != len(names) or not all(names):
        raise LoggerError(f"{path}, line 1: expected different column names with tabs between, found {lines[0]!r}")
    for line_number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise LoggerError(f"{path}, line {line_number}: expected {len(names)} values, found {len(row)}")
    return names, rows


def _line(entries: Iterable[str]) -> str:
    return "".join(f"{entry}\t" for entry in entries) + "\n"


def _entry_text(entry: Entry, path: Path) -> str:
    if isinstance(entry, str):
        _check_text(entry, path)
        return entry
    if isinstance(entry, bool) or not isinstance(entry, Real):
        raise LoggerError(f"{path}: can only log numbers and strings, found {entry!r}")
    return string_format("%11.4e", entry)


def _check_text(text: str, path: Path) -> None:
    if not text or not {"\t", "\n", "\r"}.isdisjoint(text):
        raise LoggerError(f"{path}: {text!r} cannot stand in a log: it needs text without tabs and line ends")
