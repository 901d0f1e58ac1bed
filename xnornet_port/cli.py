"""The command line: arguments in, exit code out. The only place that turns errors into text.

python main.py -data ImageNet -netType alexnetxnor -binaryWeight -optimType adam
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

from lua_compat.errors import LuaCompatError
from xnornet_port.errors import XnorNetError, file_problem, one_line
from xnornet_port.interrupt import exit_program
from xnornet_port.standard_streams import standard_streams, tell

__all__ = ["main", "program"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when done, 1 for an error (a line on standard error), 130, 143, 129 after Ctrl-C, SIGTERM, SIGHUP."""
    with standard_streams():
        return _exit_code(list(sys.argv[1:] if arguments is None else arguments))


def program() -> NoReturn:
    """`main` as a whole process."""
    exit_program(main())


def _exit_code(argv: list[str]) -> int:
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except (XnorNetError, LuaCompatError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        tell("Stopped.")
        return 130
    except OSError as error:  # a full disk, a folder that went away: whatever no one below could say better
        return _failed(file_problem(error))


def _failed(problem: str) -> int:
    tell(f"error: {one_line(problem)}")
    return 1


def _run(argv: list[str]) -> int:
    from xnornet_port.launch import LAUNCHED, end_with_the_launcher, launch
    from xnornet_port.options import help_text, option_lines, parse_options, wants_help
    from xnornet_port.record import resumed_options

    if wants_help(argv):
        print(help_text())
        return 0
    options = parse_options(argv)
    if options.resume != "none":
        options = resumed_options(options.resume, argv)

    if options.n_gpu > 1 and not {"RANK", "WORLD_SIZE"} <= os.environ.keys():  # else it is one of several already
        return launch(options.n_gpu, argv, tell)
    if LAUNCHED in os.environ:
        end_with_the_launcher()

    # PyTorch only after the options are right, so that -help and mistakes answer at once
    from xnornet_port.parallel import place_of
    from xnornet_port.report import Report
    from xnornet_port.run import run

    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    place = place_of(os.environ)
    is_first = place is None or place.rank == 0
    with ExitStack() as stack:
        stream = sys.stdout if is_first else stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        report = Report(quiet=options.quiet, stream=stream)
        if options.resume == "none":
            for line in option_lines(argv):
                report.say(line)
        return run(options, report, place)
