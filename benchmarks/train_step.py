"""A training step of alexnetxnor with binary weights, beside the same network's plain step without binarisation.

    python benchmarks/train_step.py [--rounds 7] [--batch 32]

Plain: torch.nn forward, backward and the same Adam arithmetic (lua_compat.optim), nothing of -binaryWeight. Ours: what
main.py does per batch, with -binaryWeight and without, which shows what binarisation alone costs. They alternate in one
process; medians and their ratios are what counts on a noisy machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.nn import ClassNLLCriterion
from xnornet_port import build_model
from xnornet_port.binarization import Binarizer
from xnornet_port.summation import convolution_sums
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS

LIMIT = 1.15  # issue 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=7, help="measured steps of each (default 7, after one of warming up)"
    )
    parser.add_argument("--batch", type=int, default=32, help="pictures per step")
    arguments = parser.parse_args()
    inputs, labels = torch.randn(arguments.batch, 3, 224, 224), torch.randint(1, 1001, (arguments.batch,))
    steps = {
        "plain PyTorch": plain_step(inputs, labels),
        "main.py": our_step(inputs, labels, is_binary=False),
        "main.py -binaryWeight": our_step(inputs, labels, is_binary=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {arguments.batch}")
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(f"{name:22} median {medians[name]:.3f} s  ({min(times[1:]):.3f} to {max(times[1:]):.3f})")
    ratio = medians["main.py -binaryWeight"] / medians["plain PyTorch"]
    print(f"main.py -binaryWeight / plain PyTorch: {ratio:.2f}  (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


def plain_step(inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    network, criterion = build_model("alexnetxnor").train(), ClassNLLCriterion()
    optimizer = OPTIMIZERS["adam"][0](network.parameters(), lr=1e-3, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        criterion(network(inputs), labels).backward()
        optimizer.step()

    return step


def our_step(inputs: torch.Tensor, labels: torch.Tensor, is_binary: bool) -> Callable[[], None]:
    network, criterion = build_model("alexnetxnor").train(), ClassNLLCriterion()
    optimizer_class, rule = OPTIMIZERS["adam"]
    optimizer = optimizer_class(network.parameters(), lr=1e-3, weight_decay=5e-4)
    binarizer = Binarizer(network) if is_binary else None

    def step() -> None:
        with convolution_sums(network, torch.device("cpu")):
            if binarizer is not None:
                binarizer.mean_centre_and_clamp()
            train_batch(Learner(network, criterion, optimizer, rule, binarizer), inputs, labels)

    return step


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    sys.exit(main())
