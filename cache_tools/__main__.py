"""python -m cache_tools COMMAND ...: look into .t7 files, compare, build and convert them.

Each command is a module with two functions and a text: `add_arguments(parser)` declares what it takes,
`run(arguments)` does the work and returns the exit code, `EPILOG` ends its help with examples and exit codes. Only the
module of the command that is run is imported.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn

from cache_tools.console import tool_problem
from lua_compat.errors import LuaCompatError
from xnornet_port.errors import XnorNetError, one_line
from xnornet_port.interrupt import exit_program
from xnornet_port.standard_streams import standard_streams, tell

__all__ = ["main", "program"]

INTERRUPTED = 130  # the exit code of a program ended by Ctrl-C


class Command(NamedTuple):
    """A command's module and its line in the help."""

    module: str
    summary: str
    failure: int = 1  # exit code of an error


COMMANDS = {
    "inspect": Command("cache_tools.inspect", "show what a .t7 file holds"),
    "diff": Command("cache_tools.diff", "compare two .t7 files", failure=2),  # 1: they differ, as diff(1) has it
    "convert": Command("cache_tools.convert", "a network to safetensors, PyTorch, ONNX or another .t7"),
    "caches": Command("cache_tools.caches", "check, relocate or build the data caches of a run"),
    "summary": Command("cache_tools.summary", "what a network costs: bits, memory and work per layer"),
    "predict": Command("cache_tools.predict", "what a network sees in pictures"),
    "parity": Command(
        "cache_tools.parity", "hold a network against its published figure, and its kernels against floats"
    ),
    "plot": Command("cache_tools.plot", "draw the curves of runs from their logs"),
    "report": Command("cache_tools.report", "a run as one HTML page: curves, weights, right and wrong answers"),
    "prepare": Command("cache_tools.prepare", "ImageNet from its tar files to the folders main.py wants"),
    "demo-data": Command("cache_tools.demo_data", "make a small real data set from handwritten digits"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    0 for success, 1 for a failure told in one line (`diff`: 2, for 1 says that files differ), 2 for wrong usage, 3 from
    `prepare` where not all of ImageNet was there, 130 after Ctrl-C.
    """
    with standard_streams():
        return exit_code(list(sys.argv[1:] if argv is None else argv))


def exit_code(words: list[str]) -> int:
    """That of the command, its errors told."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files are whatever bytes the file system has
            stream.reconfigure(errors="backslashreplace")
    chosen = next((word for word in words if word in COMMANDS), "")
    try:
        arguments = build_parser(chosen).parse_args(words)
        code: int = importlib.import_module(COMMANDS[arguments.command].module).run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        return 0
    except (LuaCompatError, XnorNetError, OSError) as error:
        tell(f"cache_tools {chosen}: {one_line(tool_problem(error))}")
        return COMMANDS[chosen].failure
    except KeyboardInterrupt:
        tell(f"cache_tools {chosen}: stopped")
        return INTERRUPTED
    return code


class CommandParser(argparse.ArgumentParser):
    """Where argparse has the topmost parser tell of unknown options, here it is the command's, with its usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """The parser of all commands; only the chosen command's own arguments are declared ("": of none)."""
    parser = CommandParser(prog="python -m cache_tools", description="Tools for Torch7's files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.summary, description=command.summary)
        if name == chosen:
            module = importlib.import_module(command.module)
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            subparser.epilog = module.EPILOG
            module.add_arguments(subparser)
    return parser


def program() -> NoReturn:
    """`main` as a whole process."""
    exit_program(main())


if __name__ == "__main__":
    program()
