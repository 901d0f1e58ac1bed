"""python -m cache_tools diff A B: where two .t7 files differ.

Compares contents and sharing, not bytes: a binary and an ascii file of one value do not differ. Of tensors
the first and the worst differing element are shown. The exit code is 0 when the files hold the same, else
1.
"""

import argparse
import math
from itertools import zip_longest

from cache_tools.console import add_quiet, whole
from lua_compat import differences, iter_objects

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools diff model_1.t7 model_2.t7
  python -m cache_tools diff ours.t7 theirs.t7 --tolerance 1e-6 --limit 10
  python -m cache_tools diff a.t7 b.t7 --quiet && echo they hold the same

exit codes: 0 no differences, 1 differences, 2 an error or wrong usage, 130 stopped by Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("left", metavar="A", help="a .t7 file")
    parser.add_argument("right", metavar="B", help="another")
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        default=0.0,
        metavar="X",
        help="by how much floats in tensors may differ (default: 0)",
    )
    parser.add_argument("--limit", type=whole(0), default=50, metavar="N", help="differences shown (default: 50)")
    add_quiet(parser)


def tolerance(text: str) -> float:
    """A number from 0 on; with nan everything would be equal."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found {text!r}")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Print the differences of two files, or with --quiet nothing; 0 when there are none, else 1."""
    say = (lambda line: None) if arguments.quiet else print
    absent = object()
    count = 0
    pairs = zip_longest(
        iter_objects(arguments.left, mmap=True), iter_objects(arguments.right, mmap=True), fillvalue=absent
    )
    for number, (left, right) in enumerate(pairs, 1):
        place = f"object {number}: " if number > 1 else ""
        if left is absent or right is absent:
            count += 1
            say(f"{place}only in {arguments.right if left is absent else arguments.left}")
            continue
        for difference in differences(left, right, arguments.tolerance):
            count += 1
            if count <= arguments.limit:
                say(f"{place}{difference}")
    if count > arguments.limit:
        say(f"... {count - arguments.limit} more")
    say(f"{count} difference{'s' * (count != 1)}" if count else "no differences")
    return 1 if count else 0
