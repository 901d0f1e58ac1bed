"""Damage .t7 files under the guidance of coverage (atheris, which is libFuzzer for Python) and read them:
only T7Error may come, soon, and without much memory.

    python benchmarks/t7_atheris.py --seconds 240 --folder tests/golden

Needs `pip install atheris`. It begins with the files that t7_fuzz.py damages and keeps every damaged file that
reaches a new branch of lua_compat, to damage it further. The first byte of an input chooses the options it is
read with. libFuzzer prints its figures as it goes and stops at the first finding: any other exception, a file
that takes over a second, or one that takes more memory than 64 MB and 4 times its length. The input is then left
in the folder --findings.
"""

import argparse
import contextlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import atheris

LARGEST_INPUT = 20_000


class FindingError(Exception):
    """A file that took too long or too much memory."""


def instrumented_modules() -> tuple[ModuleType, ModuleType]:
    """lua_compat, compiled so that its branches are counted, and t7_fuzz."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    with atheris.instrument_imports(include=["lua_compat"]):
        import t7_fuzz

        import lua_compat
    return lua_compat, t7_fuzz


def reading_test(lua_compat: ModuleType, t7_fuzz: ModuleType) -> Callable[[bytes], None]:
    """What libFuzzer calls with every input."""

    def read(data: bytes) -> None:
        options = t7_fuzz.CHOICES[data[0] % len(t7_fuzz.CHOICES)] if data else {}
        before = t7_fuzz.resident_bytes()
        start = time.perf_counter()
        with contextlib.suppress(lua_compat.T7Error):
            t7_fuzz.touch(lua_compat.loads(data[1:], **options))
        seconds = time.perf_counter() - start
        grown = t7_fuzz.resident_bytes() - before
        if seconds > t7_fuzz.SLOW_SECONDS:
            raise FindingError(f"{seconds:.1f} s for {len(data)} bytes")
        if grown > t7_fuzz.SPARE_BYTES + 4 * len(data):
            raise FindingError(f"{grown >> 20} MB for {len(data)} bytes")

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("tests/golden"))
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    lua_compat, t7_fuzz = instrumented_modules()
    warnings.simplefilter("ignore", lua_compat.TrailingDataWarning)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(t7_fuzz.seed_files(arguments.folder)):
            Path(corpus, f"{number}").write_bytes(b"\0" + data)
        options = [f"-max_total_time={arguments.seconds}", f"-max_len={LARGEST_INPUT}", f"-seed={arguments.seed}"]
        options += [f"-artifact_prefix={arguments.findings}/", "-print_final_stats=1", "-timeout=10"]
        atheris.Setup([sys.argv[0], *options, corpus], reading_test(lua_compat, t7_fuzz))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
