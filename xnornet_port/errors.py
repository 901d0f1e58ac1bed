"""Errors that a user of the port can cause and mend, and how errors are put into words; `cli.py` prints one line."""

import os
from pathlib import Path

from lua_compat.atomic_file import wanted_name

__all__ = ["XnorNetError", "file_problem", "one_line", "reason_of"]


class XnorNetError(Exception):
    """A mistake in what the user gave: options, data folder, cache, model or state. The message says what to do."""


def one_line(text: str) -> str:
    """Text with a file's odd name in it, fit for one line of the console."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def reason_of(error: Exception) -> str:
    """What an error says, never empty: of an OSError the system's words alone, of others the first line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)


def file_problem(error: OSError) -> str:
    """The system's words, after the file they are about where there is one, by the name that was asked for."""
    if not isinstance(error.filename, str | bytes):
        return reason_of(error)
    path = Path(os.fsdecode(error.filename))
    name = wanted_name(path.name)
    return f"{path.with_name(name) if name else path}: {reason_of(error)}"
