"""python -m cache_tools diff A B: where two .t7 files differ.

Compares contents and sharing, not bytes: a binary and an ascii file of one value do not differ. Of tensors
the first and the worst differing element are shown. The exit code is 0 when the files hold the same, else
1.
"""

import argparse
from itertools import zip_longest

from lua_compat import differences, iter_objects

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("left", metavar="A", help="a .t7 file")
    parser.add_argument("right", metavar="B", help="another")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, metavar="X", help="let floats in tensors differ by this (default: 0)"
    )
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="differences shown (default: 50)")


def run(arguments: argparse.Namespace) -> int:
    """Print the differences of two files; 0 when there are none, else 1."""
    absent = object()
    count = 0
    pairs = zip_longest(
        iter_objects(arguments.left, mmap=True), iter_objects(arguments.right, mmap=True), fillvalue=absent
    )
    for number, (left, right) in enumerate(pairs, 1):
        place = f"object {number}: " if number > 1 else ""
        if left is absent or right is absent:
            count += 1
            print(f"{place}only in {arguments.right if left is absent else arguments.left}")
            continue
        for difference in differences(left, right, arguments.tolerance):
            count += 1
            if count <= arguments.limit:
                print(f"{place}{difference}")
    if count > arguments.limit:
        print(f"... {count - arguments.limit} more")
    print(f"{count} difference{'s' * (count != 1)}" if count else "no differences")
    return 1 if count else 0
