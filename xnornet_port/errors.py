"""Errors that a user of the port can cause and mend; `cli.py` prints them as one line."""

__all__ = ["XnorNetError"]


class XnorNetError(Exception):
    """A mistake in what the user gave: options, data folder, cache, model or state. The message says what to do."""
