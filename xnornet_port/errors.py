"""Errors that a user of the port can cause and mend; `cli.py` prints them as one line."""

__all__ = ["XnorNetError", "one_line"]


class XnorNetError(Exception):
    """A mistake in what the user gave: options, data folder, cache, model or state. The message says what to do."""


def one_line(text: str) -> str:
    """Text with a file's odd name in it, fit for one line of the console."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
