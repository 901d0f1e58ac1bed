"""Data workers at work: ours beside torch.utils.data with Pillow, on the same files in the same run.

    python benchmarks/loader_workers.py                  # the pictures of tests/golden/imagenet, a worker per core
    python benchmarks/loader_workers.py --data imagenet/val --workers 8 --output benchmarks/results/loader_workers.md

Rounds alternate. Busy: processor time of the workers in a round, divided by its wall time and their number; that says
something on a machine without other work only. Pictures per processor second hold on a busy one, too.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from loader import MEAN, STD, pillow_usual, processor, readable_pictures  # noqa: E402

from lua_compat import Generator  # noqa: E402
from xnornet_port.batches import BatchRequest, Loader  # noqa: E402
from xnornet_port.dataset import Dataset  # noqa: E402
from xnornet_port.donkeys import DonkeyPool  # noqa: E402
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
Round = Callable[[], float]  # does a round, returns the processor seconds of its workers


class PillowPictures(TorchDataset[tuple[torch.Tensor, int]]):
    """Decode, resize, crop, flip, normalise with Pillow; picture number k of a round is path k mod n."""

    def __init__(self, paths: list[Path], count: int) -> None:
        self._paths, self._count = paths, count
        self._sample = pillow_usual(np.random.default_rng(2))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self._sample(self._paths[number % len(self._paths)])), 1


def processor_seconds(pids: list[int]) -> float:
    """User and system time so far (fields 14 and 15 of /proc/PID/stat)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def ours(paths: list[Path], n_workers: int, n_batches: int, batch: int) -> Round:
    rows = np.array([os.fsencode(path) + b"\0" for path in paths], dtype=np.bytes_)
    matrix = rows.view(np.int8).reshape(len(paths), rows.itemsize)
    matrix = np.pad(matrix, ((0, 0), (0, 1)))
    numbers = np.arange(1, len(paths) + 1, dtype=np.int64)
    dataset = Dataset(str(paths[0].parent), ("all",), matrix, np.ones_like(numbers), (numbers,), (numbers,))
    settings = Preprocessing(256, 224, 0.0, ChannelStatistics(MEAN, STD))
    pool = DonkeyPool(Loader(dataset, dataset, settings, Generator(2)), 2, n_workers)
    pids = [donkey.process.pid for donkey in pool._donkeys]

    def go() -> float:
        start = processor_seconds(pids)
        for made in pool.batches([BatchRequest("train", batch)] * n_batches):
            assert made.inputs.shape[0] == batch
        return processor_seconds(pids) - start

    return go


def theirs(paths: list[Path], n_workers: int, n_batches: int, batch: int) -> Round:
    pictures = PillowPictures(paths, n_batches * batch)
    loader = DataLoader(pictures, batch_size=batch, num_workers=n_workers, persistent_workers=True, prefetch_factor=2)

    def go() -> float:
        iterator = iter(loader)
        pids = [worker.pid for worker in iterator._workers]
        start = processor_seconds(pids)
        for inputs, _ in iterator:
            assert inputs.shape[0] == batch
        return processor_seconds(pids) - start

    return go


def measure(contenders: dict[str, Round], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Contender -> (wall seconds, processor seconds of the workers) of each round but the first."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, go in contenders.items():
            start = time.perf_counter()
            busy = go()
            if number > 0:
                found[name].append((time.perf_counter() - start, busy))
    return found


def report(found: dict[str, list[tuple[float, float]]], n_workers: int, pictures: int, title: str) -> str:
    names = list(found)
    peers = [wall for wall, _ in found[names[1]]]
    lines = [
"# Data workers", "", title, f"{processor()}, {os.cpu_count()} cores; torch {torch.__version__}.", "",
        "| contender | pictures/s | per processor second | workers busy | rate / torch.utils.data (lowest, highest) |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, times in found.items():
        walls = [wall for wall, _ in times]
        busy = statistics.median(seconds / wall / n_workers for wall, seconds in times)
        ratios = sorted(peer / wall for peer, wall in zip(peers, walls, strict=True))
        lines.append(
            f"| {name} | {pictures / statistics.median(walls):.0f} "
            f"| {pictures / statistics.median(seconds for _, seconds in times):.0f} | {100 * busy:.0f} % "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    lines += ["", "Raw: wall seconds and processor seconds of the workers, round by round.", ""]
    lines += [f"- {name}: " + ", ".join(f"{w:.3f} {s:.2f}" for w, s in times) for name, times in found.items()]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=ROOT / "tests/golden/imagenet", help="folder with *.JPEG below")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=64, help="batches in a round")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a batch")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    paths = readable_pictures(options.data)
    sizes = (paths, options.workers, options.batches, options.batch)
    contenders = {"ours": ours(*sizes), "torch.utils.data with Pillow": theirs(*sizes)}
    title = (
        f"`python benchmarks/loader_workers.py --rounds {options.rounds}`: {options.workers} workers, rounds of "
        f"{options.batches} batches of {options.batch} from {len(paths)} JPEGs; both decode, resize, crop, flip and "
        "normalise."
    )
    text = report(measure(contenders, options.rounds), options.workers, options.batches * options.batch, title)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
