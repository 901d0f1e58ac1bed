"""Loaded networks beside the same networks written in torch.nn by hand, in one run.

    python benchmarks/nn.py --output benchmarks/results/nn.md

The two contenders of a row take turns within each round, in an order that alternates, so that a busy machine slows both
alike; figures are the medians of processor time (of all threads) over the rounds, and the median of the rounds' ratios.
Both have the same weights and give the same answers, which is checked first.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.nn.graph import GraphModule, GraphNode
from lua_compat.nn.table import CAddTable

N_NODES = 400


class Row(NamedTuple):
    """One comparison: medians in seconds, the median ratio, and what issue 4 asks of it."""

    name: str
    loaded: float
    by_hand: float
    ratio: float
    wanted: str


def alexnet_features() -> list[nn.Module]:
    """One column of AlexNet with batch normalisation, as in XNOR-Net's models/alexnet.lua."""
    layers: list[nn.Module] = []
    for n_inputs, n_outputs, kernel, stride, padding, pools in (
        (3, 96, 11, 4, 2, True), (96, 256, 5, 1, 2, True), (256, 384, 3, 1, 1, False),
        (384, 384, 3, 1, 1, False), (384, 256, 3, 1, 1, True),
    ):  # fmt: skip
        convolution = nn.Conv2d(n_inputs, n_outputs, kernel, stride, padding)
        layers += [convolution, nn.BatchNorm2d(n_outputs), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] if pools else []
    return layers


def alexnet_pair(folder: Path) -> tuple[nn.Module, nn.Module]:
    """The network loaded from a .t7 file, and the one it was written from."""
    features = alexnet_features()
    classifier = [nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True),
                  nn.Linear(4096, 1000)]  # fmt: skip
    as_torch7 = nn.Sequential(*features, t7nn.View((9216,), 3), *classifier, t7nn.LogSoftMax())
    path = folder / "alexnet.t7"
    lua_compat.save(path, t7nn.from_torch(as_torch7))
    by_hand = nn.Sequential(*features, nn.Flatten(), *classifier, nn.LogSoftmax(dim=1))
    return t7nn.load(path), by_hand


class ByHand(nn.Module):
    """The graph of `graph_pair` as one would write it."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        layers = iter(self.layers)
        for linear, activation in zip(layers, layers, strict=True):
            x = activation(linear(x))
            x, before = x + before, x
        return x


def graph_pair(folder: Path) -> tuple[nn.Module, nn.Module]:
    """About 400 nodes: Linear, Tanh, and the sum with the output two layers before, again and again."""
    nodes, members, layers = [GraphNode()], [], []
    before = last = 0
    while len(nodes) < N_NODES:
        linear, activation = nn.Linear(128, 128), nn.Tanh()
        layers += [linear, activation]
        members += [linear, activation, CAddTable()]
        nodes.append(GraphNode((last,), has_module=True))
        nodes.append(GraphNode((len(nodes) - 1,), has_module=True))
        activated = len(nodes) - 1
        nodes.append(GraphNode((activated, before), has_module=True))
        before, last = activated, len(nodes) - 1
    path = folder / "graph.t7"
    lua_compat.save(path, t7nn.from_torch(GraphModule(nodes, members, 0, 1)))
    return t7nn.load(path), ByHand(layers)


def compare(
    name: str, contenders: tuple[nn.Module, nn.Module], x: torch.Tensor, training: bool, rounds: int, wanted: str
) -> Row:
    """Both on the same input; in training with the backward pass."""
    for contender in contenders:
        contender.train(training)
    with torch.no_grad():
        ours, theirs = (contender.eval()(x) for contender in contenders)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    calls = [step_of(contender.train(training), x, training) for contender in contenders]
    for call in calls:
        call()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            calls[which]()
            times[which].append(time.process_time() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return Row(name, statistics.median(times[0]), statistics.median(times[1]), ratio, wanted)


def step_of(network: nn.Module, x: torch.Tensor, training: bool) -> Callable[[], Any]:
    def evaluate() -> Any:
        with torch.no_grad():
            return network(x)

    def train() -> Any:
        network.zero_grad(set_to_none=True)
        return network(x).square().mean().backward()

    return train if training else evaluate


def measure(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        alexnet, graph = alexnet_pair(Path(name)), graph_pair(Path(name))
    picture, vector = torch.randn(4, 3, 224, 224), torch.randn(50, 128)  # the sizes of char-rnn
    wanted, at_most = "0.97 to 1.03", "at most 1.1"
    return [
        compare("AlexNet, batch of 4, evaluation", alexnet, picture, False, rounds, wanted),
        compare("AlexNet, batch of 4, forward and backward", alexnet, picture, True, max(rounds // 3, 3), wanted),
        compare(f"graph of {N_NODES} nodes, batch of 50, evaluation", graph, vector, False, rounds * 10, at_most),
        compare(f"graph of {N_NODES} nodes, forward and backward", graph, vector, True, rounds * 5, at_most),
    ]


def report(rows: list[Row], rounds: int) -> str:
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    lines = [
        "# Loaded networks beside the same networks in torch.nn by hand",
        "",
        f"`python benchmarks/nn.py --rounds {rounds}` on {machine}, PyTorch {torch.__version__}.",
        "Medians of processor time; the ratio is the median of the rounds' ratios (loaded / by hand).",
        "",
        "| | loaded ms | by hand ms | ratio | wanted |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        times = f"{row.loaded * 1e3:.2f} | {row.by_hand * 1e3:.2f}"
        lines.append(f"| {row.name} | {times} | {row.ratio:.3f} | {row.wanted} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="write the table into this file as well")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    text = report(measure(arguments.rounds), arguments.rounds)
    print(text, end="")
    if arguments.output is not None:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
