"""Damage .t7 files in many ways and read them: only T7Error may come, soon, and without much memory.
All files are cut off at every byte; then they are damaged at random.

    python benchmarks/t7_fuzz.py --folder tests/golden --samples ../shared/t7_samples > benchmarks/results/t7_fuzz.md

Each chunk of files is read in a process of its own, so that a crash of the interpreter is seen and the
memory of the process tells what reading took. The same seed gives the same files.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lua_compat
from lua_compat.values import LuaFunction, LuaTable, TorchObject

LARGEST_SEED_FILE = 20_000
SLOW_SECONDS = 1.0
SPARE_BYTES = 64 << 20
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 127, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)
CHOICES: tuple[dict[str, Any], ...] = ({}, {}, {}, {"long_size": 4}, {"byte_order": "big"}, {"mode": "ascii"})


@dataclass
class Tally:
    """What became of the files."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    mutations: Counter[str] = field(default_factory=Counter)


def seed_files(folder: Path, samples: Path | None = None) -> list[bytes]:
    """The files to damage: those of the format folders, and .t7 files under `samples`, that are not too large."""
    folders = [folder / name for name in ("format", "format_more", "crafted")]
    paths = sorted(path for each in folders for path in each.glob("*.t7"))
    paths += sorted(samples.rglob("*.t7")) if samples is not None else []
    contents = [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST_SEED_FILE]
    return [data for data in contents if data]


def flip_bytes(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    return data


def flip_bit(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return data


def cut_off(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    return data[: generator.randrange(len(data))]


def edit_number(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    """Overwrite 4 or 8 bytes with a number that lengths are likely to trip over."""
    value = generator.choice(INTERESTING) * generator.choice((1, -1))
    width = generator.choice((4, 8))
    raw = (value % 2 ** (8 * width)).to_bytes(width, generator.choice(("little", "big")))
    start = generator.randrange(len(data))
    data[start : start + width] = raw
    return data


def edit_digits(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    """Put a number as text somewhere, which ascii files trip over."""
    start = generator.randrange(len(data))
    data[start : start + 1] = str(generator.choice(INTERESTING) * generator.choice((1, -1))).encode()
    return data


def copy_piece(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    first, last = sorted(generator.randrange(len(data) + 1) for _ in range(2))
    start = generator.randrange(len(data))
    data[start:start] = data[first : min(last, first + 256)]
    return data


def drop_piece(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    start = generator.randrange(len(data))
    del data[start : start + generator.randint(1, 32)]
    return data


def splice(data: bytearray, generator: random.Random, others: list[bytes]) -> bytearray:
    other = generator.choice(others)
    return data[: generator.randrange(len(data) + 1)] + other[generator.randrange(len(other)) :]


MUTATIONS = (flip_bytes, flip_bit, cut_off, edit_number, edit_number, edit_digits, copy_piece, drop_piece, splice)


def damaged_files(seeds: list[bytes], count: int, seed: int, tally: Tally) -> Iterator[bytes]:
    """`count` damaged files; one in four is damaged twice."""
    generator = random.Random(seed)
    for _ in range(count):
        data = bytearray(generator.choice(seeds))
        for _ in range(2 if generator.random() < 0.25 else 1):
            mutate = generator.choice(MUTATIONS)
            tally.mutations[mutate.__name__] += 1
            data = mutate(data, generator, seeds) or bytearray(b"\0")
        yield bytes(data)


def shortened_files(seeds: list[bytes]) -> Iterator[bytes]:
    """Every beginning of every file."""
    for data in seeds:
        for length in range(len(data)):
            yield data[:length]


def touch(value: object) -> None:
    """Read the first and the last element of every array (outside its memory the process would crash) and show
    every object.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            if value.size:
                float(value[(0,) * value.ndim]), float(value[(-1,) * value.ndim])
        elif isinstance(value, LuaTable):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, TorchObject):
            repr(value)
            waiting += [value.header, value.payload]
        elif isinstance(value, LuaFunction):
            waiting.append(value.upvalues)
        elif isinstance(value, list):
            waiting += value


def read_damaged(seeds: list[bytes], count: int, seed: int) -> Tally:
    """Read `count` damaged files (0: every beginning of every file) and tell what became of them."""
    tally = Tally()
    generator = random.Random(seed + 1)
    files = damaged_files(seeds, count, seed, tally) if count else shortened_files(seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lua_compat.TrailingDataWarning)
        for data in files:
            options = generator.choice(CHOICES)
            start = time.perf_counter()
            try:
                touch(lua_compat.loads(data, **options))
                tally.read += 1
            except lua_compat.T7Error:
                tally.refused += 1
            except Exception as error:  # noqa: BLE001 - any other exception is what this looks for
                tally.failures.append(f"{type(error).__name__}: {error}; {options}; {data.hex()[:2000]}")
            seconds = time.perf_counter() - start
            if seconds > SLOW_SECONDS:
                tally.failures.append(f"{seconds:.1f} s; {options}; {data.hex()[:2000]}")
            tally.slowest = max(tally.slowest, seconds)
    return tally


def resident_bytes() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_chunk(folder: Path, samples: Path | None, count: int, seed: int) -> None:
    """In a process of its own: read a chunk and print its figures."""
    seeds = seed_files(folder, samples)
    read_damaged(seeds, 200, seed - 1)  # so that what Python and NumPy need themselves is there
    before = resident_bytes()
    tally = read_damaged(seeds, count, seed)
    grown = resident_bytes() - before
    if grown > SPARE_BYTES + 4 * 2 * LARGEST_SEED_FILE:
        tally.failures.append(f"memory grew by {grown >> 20} MB in the chunk of seed {seed}")
    mutations = ",".join(f"{name}={number}" for name, number in sorted(tally.mutations.items()))
    print(tally.read, tally.refused, tally.slowest, grown, mutations)
    for failure in tally.failures:
        print(failure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--chunk", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("tests/golden"))
    parser.add_argument("--samples", type=Path, help="a folder with further .t7 files")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        run_chunk(arguments.folder, arguments.samples, arguments.files, arguments.seed)
        return 0
    return run_all(arguments)


def run_all(arguments: argparse.Namespace) -> int:
    """All chunks one after another; prints a report in Markdown."""
    read = refused = done = grown = 0
    slowest = 0.0
    failures: list[str] = []
    mutations: Counter[str] = Counter()
    start = time.perf_counter()
    for count in chunk_sizes(arguments.files, arguments.chunk):
        command = [sys.executable, "-X", "faulthandler", __file__, "--in-process", "--files", str(count)]
        command += ["--seed", str(arguments.seed + 2 * done), "--folder", str(arguments.folder)]
        command += ["--samples", str(arguments.samples)] if arguments.samples is not None else []
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            failures.append(f"the process ended with {result.returncode}: {result.stderr[-500:]}")
            continue
        figures, *found = result.stdout.splitlines()
        words = figures.split()
        read, refused = read + int(words[0]), refused + int(words[1])
        done += int(words[0]) + int(words[1])
        slowest, grown = max(slowest, float(words[2])), max(grown, int(words[3]))
        for part in words[4].split(",") if len(words) > 4 else []:
            name, number = part.split("=")
            mutations[name] += int(number)
        failures += found
        print(f"{done} files, {len(failures)} failures", file=sys.stderr, flush=True)
    print(report(done, read, refused, slowest, grown, time.perf_counter() - start, mutations, failures))
    return 1 if failures else 0


def chunk_sizes(files: int, chunk: int) -> list[int]:
    """First the shortened files (0), then `files` others in chunks."""
    return [0] + [min(chunk, files - start) for start in range(0, files, chunk)]


def report(
    done: int,
    read: int,
    refused: int,
    slowest: float,
    grown: int,
    seconds: float,
    mutations: Counter[str],
    failures: list[str],
) -> str:
    """The figures as a page."""
    rows = [
        ("damaged files", f"{done:,}"),
        ("refused with T7Error", f"{refused:,}"),
        ("read (the damage made another valid file)", f"{read:,}"),
        ("other exceptions, crashes, over 1 s, over the memory limit", f"{len(failures):,}"),
        ("slowest file", f"{slowest * 1000:.0f} ms"),
        ("most memory added in a process", f"{grown / 2**20:.1f} MB"),
        ("time", f"{seconds:.0f} s"),
        *((f"mutation {name}", f"{number:,}") for name, number in sorted(mutations.items())),
    ]
    lines = ["# Damaged .t7 files", "", f"`{' '.join(['python', *sys.argv])}`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([*lines, "", *failures])


if __name__ == "__main__":
    sys.exit(main())
