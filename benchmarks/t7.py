"""Reading and writing .t7 files beside torchfile and NumPy's own files, in one run.

    python benchmarks/t7.py --output benchmarks/results/t7.md

The two contenders of a row take turns, so that a busy machine slows both alike. Times are wall-clock
medians over the rounds; files are in the page cache. Each file is brought to the disk (fsync) when `save`
writes it; `tofile` is measured both without and with the same fsync.
"""

import argparse
import gc
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torchfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lua_compat

TENSOR_BYTES = 256 << 20
MODEL_TENSORS = 50  # of 10 MB
ENTRIES = 1_000_000
SMALL_TENSORS = 100_000


class Row(NamedTuple):
    """One comparison: medians in seconds, and the ratio that issue 3 asks for (0 for none)."""

    name: str
    ours: float
    other_name: str
    other: float
    wanted: float


def take_turns(ours: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of two calls that take turns; what they return is freed outside the measured time."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, measured in zip((ours, other), times, strict=True):
            gc.collect()
            start = time.perf_counter()
            result = call()
            measured.append(time.perf_counter() - start)
            del result
    return statistics.median(times[0]), statistics.median(times[1])


def large_tensor(folder: Path, rounds: int) -> list[Row]:
    """One float tensor of 256 MB, read and written."""
    array = np.random.default_rng(1).random(TENSOR_BYTES // 4, dtype=np.float32)
    path, raw = folder / "tensor.t7", folder / "tensor.raw"
    lua_compat.save(path, array)
    array.tofile(raw)
    read = take_turns(lambda: lua_compat.load(path), lambda: np.fromfile(raw, np.float32), rounds)
    written = take_turns(partial(write_anew, array, path), partial(write_raw_anew, array, raw), rounds)
    synced = take_turns(lambda: lua_compat.save(path, array), lambda: write_and_sync(array, raw), rounds)
    path.unlink()
    raw.unlink()
    return [
        Row("read a 256 MB float tensor", read[0], "numpy.fromfile", read[1], 0.8),
        Row("write a 256 MB float tensor to a new file, sync=False", written[0], "ndarray.tofile", written[1], 0.7),
        Row(
            "write a 256 MB float tensor over an old file (with fsync)",
            synced[0],
            "ndarray.tofile and fsync",
            synced[1],
            0.7,
        ),
    ]


def write_anew(array: np.ndarray[Any, np.dtype[Any]], path: Path) -> None:
    """Where there was no file: ext4 brings a file that is renamed over another to the disk in any case."""
    path.unlink()
    lua_compat.save(path, array, sync=False)


def write_raw_anew(array: np.ndarray[Any, np.dtype[Any]], path: Path) -> None:
    path.unlink()
    array.tofile(path)


def write_and_sync(array: np.ndarray[Any, np.dtype[Any]], path: Path) -> None:
    with open(path, "wb") as file:
        array.tofile(file)
        os.fsync(file.fileno())


def mapped_model(folder: Path, rounds: int) -> list[Row]:
    """A model of 500 MB, opened to look at it."""
    layer = np.zeros(10_000_000 // 4, np.float32)
    modules = [lua_compat.TorchObject("nn.Linear", {"weight": layer + number}) for number in range(MODEL_TENSORS)]
    path = folder / "model.t7"
    lua_compat.save(path, lua_compat.TorchObject("nn.Sequential", {"modules": modules}))
    del modules
    times = take_turns(lambda: lua_compat.load(path, mmap=True), lambda: lua_compat.load(path), rounds)
    size = path.stat().st_size / 1e6
    path.unlink()
    return [Row(f"open a model of {size:.0f} MB with mmap", times[0], "load without mmap", times[1], 0)]


TABLES: dict[str, Callable[[], Any]] = {
    "a list of 1,000,000 numbers": lambda: [index * 0.5 for index in range(ENTRIES)],
    "a table of 1,000,000 whole numbers by number": lambda: {2 * index: index for index in range(ENTRIES)},
    "a list of 1,000,000 paths of varied length": lambda: [
        f"val/n{index % 997}/{index}.JPEG" for index in range(ENTRIES)
    ],
    "a table of 1,000,000 numbers by name": lambda: {f"name{index}": index for index in range(ENTRIES)},
    "a list of 100,000 float tensors of 10": lambda: [np.full(10, index, np.float32) for index in range(SMALL_TENSORS)],
    "a list of 100,000 float tensors of 1 to 7 elements": lambda: [
        np.full(1 + index * 7919 % 7, index, np.float32) for index in range(SMALL_TENSORS)
    ],
    "a list of 100,000 small tables": lambda: [{"label": index, "name": f"n{index}"} for index in range(SMALL_TENSORS)],
}


def tables(folder: Path, rounds: int) -> list[Row]:
    """Structure rather than elements: the time goes into Python objects."""
    rows = []
    for name, make in TABLES.items():
        path = folder / "table.t7"
        lua_compat.save(path, make())
        # With its list heuristic torchfile cannot read lists of tensors on NumPy 1.25 and later.
        heuristic = "tensor" not in name
        torchfile_load = partial(torchfile.load, str(path), use_list_heuristic=heuristic)
        times = take_turns(partial(lua_compat.load, path), torchfile_load, rounds)
        wanted = 0 if "small tables" in name else 5
        rows.append(Row(f"read {name}", times[0], "torchfile", times[1], wanted))
    return rows


def report(rows: list[Row], rounds: int) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "torchfile"))
    lines = [
        "# Reading and writing .t7 files",
        "",
        f"`{' '.join(['python', *sys.argv])}`; medians of {rounds} rounds, contenders in turns; "
        f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.",
        "",
        "| task | ours | beside | its time | ratio (its time / ours) | wanted |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        wanted = f"{row.wanted:g}" if row.wanted else ""
        lines.append(
            f"| {row.name} | {row.ours * 1000:,.1f} ms | {row.other_name} | {row.other * 1000:,.1f} ms "
            f"| {row.other / row.ours:.2f} | {wanted} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the report here")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        rows = [
            *large_tensor(folder, arguments.rounds),
            *mapped_model(folder, arguments.rounds),
            *tables(folder, arguments.rounds),
        ]
    text = report(rows, arguments.rounds)
    print(text, end="")
    if arguments.output is not None:
        arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
