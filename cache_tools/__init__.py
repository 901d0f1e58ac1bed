"""Command-line tools for Torch7's files: `python -m cache_tools COMMAND`. Nothing imports this package."""
