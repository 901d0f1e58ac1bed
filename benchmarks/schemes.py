"""Binary schemes trained alike on real handwritten digits: a table and a picture of curves (docs/experiments.md).

    python benchmarks/schemes.py [--epochs 20] [--seeds 3] [--only xnor xnork] [--picture docs/experiments.png]

scikit-learn's 1797 digits of 8x8 pixels (UCI, Alpaydin and Kaynak), every fifth for testing. One small network for all,
its first and last convolution real and four blocks between them of the scheme; Adam as -optimType adam -binaryWeight
does it. A seed draws weights and the order of pictures. One core is enough: a training takes seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.generator import Generator
from lua_compat.nn import ClassNLLCriterion, LogSoftMax, View
from lua_compat.optim import Adam
from xnornet_port.binarization import Binarizer
from xnornet_port.initialization import as_xnornet
from xnornet_port.layers import batch_normalization, convolution, max_pooling, relu
from xnornet_port.schemes import scheme_named
from xnornet_port.schemes.scheme import Scheme
from xnornet_port.summation import convolution_sums
from xnornet_port.train import GradientRule, Learner, train_batch
from xnornet_port.training import OPTIMIZERS

BATCH = 64
RATE, LAST_RATE = 1e-3, 1e-4  # the second for the last third


class Variant(NamedTuple):
    """A row of the table."""

    title: str
    scheme: str
    is_binary: bool = True


VARIANTS = {
    "real": Variant("full precision", "bwn", is_binary=False),
    "bwn": Variant("BWN: binary weights", "bwn"),
    "sign": Variant("signs only: no alpha, no K", "sign"),
    "xnor": Variant("XNOR: alpha", "xnor"),
    "xnork": Variant("XNOR: alpha and K (-inputScale)", "xnork"),
    "xnor++": Variant("XNOR-Net++: learned scale", "xnor++"),
    "bireal": Variant("Bi-Real: shortcuts, its gradient", "bireal"),
}


@dataclass(frozen=True)
class Digits:
    """Pictures (N, 1, 8, 8), mean 0 and deviation 1; labels (N) from 1."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


@dataclass(frozen=True)
class Curve:
    """Of one training: the mean loss of each epoch's batches, and the test's errors after it in percent."""

    losses: list[float]
    errors: list[float]
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each, seeds 1, 2, ...")
    parser.add_argument("--width", type=int, default=16, help="planes of the first convolution")
    parser.add_argument("--pictures", type=int, default=1437, help="training pictures to use")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS), help="rows of the table")
    parser.add_argument("--picture", type=Path, help="write the curves there, as PNG")
    arguments = parser.parse_args()
    digits = load_digits(arguments.pictures)
    start = time.perf_counter()
    curves = {
        name: [trained(VARIANTS[name], digits, seed, arguments) for seed in range(1, arguments.seeds + 1)]
        for name in arguments.only
    }
    print_table(curves, digits, arguments.epochs)
    print(f"\n{time.perf_counter() - start:.0f} s, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if arguments.picture:
        draw(curves, arguments.picture)
    return 0


def load_digits(n_training: int) -> Digits:
    from sklearn import datasets

    loaded: Any = datasets.load_digits()
    pictures = torch.from_numpy(loaded.images).float()[:, None]
    labels = torch.from_numpy(loaded.target).long() + 1
    is_test = torch.arange(len(labels)) % 5 == 0
    train = pictures[~is_test][:n_training]
    pictures = (pictures - train.mean()) / train.std()
    return Digits(pictures[~is_test][:n_training], labels[~is_test][:n_training], pictures[is_test], labels[is_test])


def build(scheme: Scheme, width: int, seed: int) -> nn.Sequential:
    """(N, 1, 8, 8) to (N, 10) log-probabilities, weights drawn as XNOR-Net's."""
    network = nn.Sequential(
        convolution(1, width, 3, padding=1),
        scheme.block(width, 2 * width, 3, padding=1),
        scheme.block(2 * width, 2 * width, 3, padding=1).append(max_pooling(2, 2)),  # 8 -> 4
        scheme.block(2 * width, 4 * width, 3, padding=1),
        scheme.block(4 * width, 4 * width, 3, padding=1).append(max_pooling(2, 2)),  # 4 -> 2
        batch_normalization(4 * width),
        relu(),
        convolution(4 * width, 10, 2),
        View((10,)),
        LogSoftMax(),
    )
    as_xnornet(network, Generator(seed))
    return network


def trained(variant: Variant, digits: Digits, seed: int, arguments: argparse.Namespace) -> Curve:
    start = time.perf_counter()
    network = build(scheme_named(variant.scheme), arguments.width, seed)
    binarizer = Binarizer(network) if variant.is_binary else None
    rule = OPTIMIZERS["adam"][1] if binarizer else GradientRule(times_n=False, factor=1.0)
    optimizer = Adam(network.parameters(), lr=RATE)
    learner = Learner(network, ClassNLLCriterion(), optimizer, rule, binarizer)
    order = np.random.default_rng(seed)
    losses, errors = [], []
    with convolution_sums(network, torch.device("cpu")):
        for epoch in range(1, arguments.epochs + 1):
            optimizer.param_groups[0]["lr"] = RATE if 3 * epoch <= 2 * arguments.epochs else LAST_RATE
            losses.append(train_epoch(learner, digits, order))
            errors.append(tested(network, binarizer, digits))
    return Curve(losses, errors, time.perf_counter() - start)


def train_epoch(learner: Learner, digits: Digits, order: np.random.Generator) -> float:
    """All pictures once, whole batches; returns the mean loss."""
    learner.network.train()
    losses = []
    places = torch.from_numpy(order.permutation(len(digits.train)))
    for batch in places.split(BATCH):
        if len(batch) == min(BATCH, len(places)):
            if learner.binarizer is not None:
                learner.binarizer.mean_centre_and_clamp()
            inputs, labels = digits.train[batch], digits.train_labels[batch]
            losses.append(train_batch(learner, inputs, labels).loss)
    return statistics.mean(losses)


def tested(network: nn.Module, binarizer: Binarizer | None, digits: Digits) -> float:
    """Errors among the test pictures, percent."""
    network.eval()
    with torch.no_grad(), binarizer.binary_weights() if binarizer else nullcontext():
        answers = network(digits.test).argmax(dim=1) + 1
    return 100 * float((answers != digits.test_labels).double().mean())


def print_table(curves: dict[str, list[Curve]], digits: Digits, n_epochs: int) -> None:
    """Means over the seeds, and the least and the greatest."""
    print(f"{len(digits.train)} training and {len(digits.test)} test pictures, {n_epochs} epochs\n")
    print("| scheme | test errors, % | of the seeds | training loss | seconds a training |")
    print("|---|---|---|---|---|")
    for name, runs in curves.items():
        errors = [run.errors[-1] for run in runs]
        each = ", ".join(f"{error:.1f}" for error in errors)
        loss = statistics.mean(run.losses[-1] for run in runs)
        seconds = statistics.median(run.seconds for run in runs)
        print(f"| {VARIANTS[name].title} | {statistics.mean(errors):.1f} | {each} | {loss:.3f} | {seconds:.0f} |")


def draw(curves: dict[str, list[Curve]], path: Path) -> None:
    """Loss and errors by epoch: the mean of the seeds as a line, from least to greatest as a band."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, runs in curves.items():
        for axes, numbers in zip(panels, ([r.losses for r in runs], [r.errors for r in runs]), strict=True):
            values = np.array(numbers)
            epochs = range(1, values.shape[1] + 1)
            (line,) = axes.plot(epochs, values.mean(axis=0), label=VARIANTS[name].title, linewidth=1.3)
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15)
    for axes, title in zip(panels, ("training loss", "test errors, %"), strict=True):
        axes.set(title=title, xlabel="epoch", yscale="log")
        axes.grid(alpha=0.3, which="both")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)
    with Image.open(path) as picture:  # a third of the size with 64 colours
        picture.convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
