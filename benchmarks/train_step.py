"""A training step of alexnetxnor as main.py does it, beside plain PyTorch's of the same network.

    python benchmarks/train_step.py [--rounds 5] [--batch 32]

Three groups, in each of which the rows alternate in one process; medians and their ratios to the group's first row are
what counts on a noisy machine.

adam: the first row is torch.nn forward, backward and the same Adam arithmetic (lua_compat.optim), nothing of
-binaryWeight; then what main.py does per batch, without and with -binaryWeight.
sgd: the first row is the loop of PyTorch's ImageNet example (output, loss, accuracy of 1 and 5, loss.item(), zero_grad,
backward, step) with torch.optim.SGD.
bf16: the same with the example's loop in torch.autocast, and main.py with -precision bf16.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.nn import ClassNLLCriterion
from xnornet_port import build_model
from xnornet_port.binarization import Binarizer
from xnornet_port.precision import PRECISIONS, arithmetic
from xnornet_port.summation import convolution_sums
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS

LIMIT = 1.15  # issue 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each row, after one of warming up")
    parser.add_argument("--batch", type=int, default=32, help="pictures per step")
    arguments = parser.parse_args()
    inputs, labels = torch.randn(arguments.batch, 3, 224, 224), torch.randint(1, 1001, (arguments.batch,))
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {arguments.batch}")
    ours = {"main.py": False, "main.py -binaryWeight": True}
    ratios = {}
    for group, precision in (("adam", "float32"), ("sgd", "float32"), ("bf16", "bf16")):
        method = "adam" if group == "adam" else "sgd"
        if group == "adam":
            steps = {"plain PyTorch": plain_step(inputs, labels)}
        else:
            steps = {"PyTorch's ImageNet example": example_step(inputs, labels, PRECISIONS[precision])}
        for name, is_binary in ours.items():
            steps[name] = our_step(inputs, labels, is_binary, method, precision)
        ratios[group] = measured(group, steps, arguments.rounds)
    ratio = ratios["adam"]["main.py -binaryWeight"]
    print(f"main.py -binaryWeight / plain PyTorch: {ratio:.2f}  (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


def measured(group: str, steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Print a row for each step; returns the medians as ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    first = next(iter(medians.values()))
    for name, times in seconds.items():
        spread = f"({min(times[1:]):.3f} to {max(times[1:]):.3f})"
        print(f"{group:5} {name:27} median {medians[name]:.3f} s  {spread}  ratio {medians[name] / first:.2f}")
    return {name: median / first for name, median in medians.items()}


def plain_step(inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    network, criterion = build_model("alexnetxnor").train(), ClassNLLCriterion()
    optimizer = OPTIMIZERS["adam"][0](network.parameters(), lr=1e-3, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        criterion(network(inputs), labels).backward()
        optimizer.step()

    return step


def example_step(inputs: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """One turn of `train` in pytorch/examples/imagenet/main.py, its meters left out; the network ends in LogSoftMax."""
    network, criterion = build_model("alexnetxnor").train(), torch.nn.NLLLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    targets = labels - 1

    def step() -> None:
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            outputs = network(inputs)
            loss = criterion(outputs.float(), targets)
        with torch.no_grad():
            hits = outputs.topk(5, 1).indices.t().eq(targets.view(1, -1))
            [hits[:k].reshape(-1).float().sum().mul(100 / len(targets)).item() for k in (1, 5)]
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_step(
    inputs: torch.Tensor, labels: torch.Tensor, is_binary: bool, method: str, precision: str
) -> Callable[[], None]:
    network, criterion, device = build_model("alexnetxnor").train(), ClassNLLCriterion(), torch.device("cpu")
    optimizer_class, rule = OPTIMIZERS[method]
    momentum = {"momentum": 0.9, "dampening": 0.0}
    optimizer = optimizer_class(network.parameters(), lr=1e-3, weight_decay=5e-4, **momentum)
    binarizer = Binarizer(network) if is_binary else None
    learner = Learner(network, criterion, optimizer, rule, binarizer)

    def step() -> None:
        with convolution_sums(network, device), arithmetic(network, device, precision):
            if binarizer is not None:
                binarizer.mean_centre_and_clamp()
            train_batch(learner, inputs, labels)

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
