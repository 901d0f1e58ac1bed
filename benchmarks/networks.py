"""Every network of -netType at its full size: built, trained one step with -binaryWeight, saved, loaded, tested.

    python benchmarks/networks.py [--batch 4] [netType ...] > benchmarks/results/networks.md

Random pictures and 1000 classes; resnets for CIFAR have 10 and pictures of 32x32. The counts of parameters stand beside
published ones where there are any. Up to 2 GB of memory and 1.1 GB of disk at a time; about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import lua_compat
from lua_compat.generator import Generator
from lua_compat.nn import from_torch
from xnornet_port import load_model
from xnornet_port.answers import class_scores, criterion_of
from xnornet_port.binarization import Binarizer, binary_convolutions
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.summation import convolution_sums
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS

CIFAR = "cifar10"


@dataclass(frozen=True)
class Case:
    """A network, and the published number of its parameters with where it is from; a difference says why."""

    net_type: str
    published: int | None
    source: str
    difference: str = ""
    settings: NetworkSettings = field(default_factory=NetworkSettings)
    crop: int = 224


def resnet(depth: int, published: int, source: str = "torchvision resnet{}") -> Case:
    return Case("resnet", published, source.format(depth), settings=NetworkSettings(depth=depth))


def resnet_for_cifar(depth: int, millions: float) -> Case:
    settings = NetworkSettings(10, depth=depth, shortcut_type="A", dataset=CIFAR)
    return Case("resnet", round(millions * 1e6), "He et al. 2015, table 6 (two digits)", "rounded there", settings, 32)


CASES = [
    Case("alexnet", None, "XNOR-Net models/alexnet.lua; golden runs of real Torch7"),
    Case("alexnetxnor", None, "XNOR-Net models/alexnetxnor.lua; golden runs of real Torch7"),
    Case("overfeat", 145_000_000, "Sermanet et al. 2013, table of the fast network, in millions",
         "5x5 pixels in front of the first linear layer (there 6x6): 11 x 1024 x 3072 = 34.6 million fewer"),
    Case("alexnetowt", 61_100_840, "torchvision alexnet"),
    Case("alexnetowtbn", 61_100_840, "torchvision alexnet", "batch normalisation of 9344 planes: 18,688 more"),
    Case("alexnettowers", 60_965_224, "Krizhevsky et al. 2012",
         "the third convolution sees its own tower only: 442,368 fewer"),
    Case("vgg", 132_863_336, "torchvision vgg11"),
    Case("vggbn", 132_863_336, "torchvision vgg11", "batch normalisation of 8192 numbers: 16,384 more"),
    Case("googlenet", None, "golden/nets.t7 (10 classes: 17,348,468)"),
    Case("googlenetbn", None, "by hand: googlenet and batch normalisation of 11,680 planes"),
    Case("ninbn", None, "by hand, tests/xnornet_port/models/test_networks.py"),
    Case("ninxnor", None, "by hand, tests/xnornet_port/models/test_networks.py"),
    Case("vggsmall", None, "ours, no published count", crop=32),
    Case("squeezenet", 1_248_424, "torchvision squeezenet1_0"),
    resnet(18, 11_689_512),
    resnet(34, 21_797_672),
    resnet(50, 25_557_032),
    resnet(101, 44_549_160),
    resnet(152, 60_192_808),
    Case("resnetxnor", None, "by hand, tests/xnornet_port/models/test_networks.py"),
    resnet_for_cifar(20, 0.27),
    resnet_for_cifar(32, 0.46),
    resnet_for_cifar(44, 0.66),
    resnet_for_cifar(56, 0.85),
    resnet_for_cifar(110, 1.7),
    resnet_for_cifar(1202, 19.4),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net_types", nargs="*", metavar="netType", help="these only (default: all)")
    parser.add_argument("--batch", type=int, default=4, help="pictures of the step (default 4)")
    arguments = parser.parse_args()
    print(HEADER.format(
        command=" ".join(sys.argv), processor=processor(), threads=torch.get_num_threads(),
        versions=f"torch {torch.__version__}, Python {platform.python_version()}", batch=arguments.batch,
    ))  # fmt: skip
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not arguments.net_types or case.net_type in arguments.net_types:
                line, is_right = measured(case, arguments.batch, Path(folder) / "network.t7")
                print(line, flush=True)
                failed += not is_right
                gc.collect()
    return 1 if failed else 0


HEADER = """# Every network at full size

`python {command}` on {processor}, {threads} thread(s), {versions}.

Batch {batch}; seconds are those of a busy machine and only say that it works. `binary` counts the convolutions that
-binaryWeight makes binary, of all there are; `inputs` those of them behind a BinActiveZ. `same` says that the network
loaded from the file that was saved after the step answers bit for bit as the one that was saved.

| -netType | input | answer | parameters | published | source, reason of a difference | binary | inputs | build s | step s | loss | .t7 MB | same |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def measured(case: Case, n_pictures: int, path: Path) -> tuple[str, bool]:
    """The case's row, and whether the file gave the same network."""
    torch.manual_seed(1)
    start = time.perf_counter()
    network = NETWORKS[case.net_type].build(case.settings)
    NETWORKS[case.net_type].initialize(network, Generator(2))
    build_seconds = time.perf_counter() - start
    pictures = torch.randn(n_pictures, 3, case.crop, case.crop)
    labels = torch.randint(1, case.settings.n_classes + 1, (n_pictures,))
    with convolution_sums(network, torch.device("cpu")):
        start = time.perf_counter()
        loss = step(network, pictures, labels)
        step_seconds = time.perf_counter() - start
        answer, whole = answers(network, pictures)
        lua_compat.save(path, from_torch(network))
        counts = figures(network)
        del network  # two of the largest do not fit in 2 GB
        loaded, _ = answers(load_model(path), pictures)
    is_same = torch.equal(answer, loaded)
    cells = [
        name(case), f"{case.crop}x{case.crop}", " x ".join(map(str, whole)), f"{counts[0]:,}",
        f"{case.published:,}" if case.published else "", "; ".join(filter(None, (case.source, case.difference))),
        f"{counts[1]} of {counts[2]}", str(counts[3]), f"{build_seconds:.1f}", f"{step_seconds:.1f}", f"{loss:.3f}",
        f"{path.stat().st_size / 1e6:.0f}", "yes" if is_same else "NO",
    ]  # fmt: skip
    path.unlink()
    return f"| {' | '.join(cells)} |", is_same


def name(case: Case) -> str:
    if case.net_type != "resnet":
        return case.net_type
    small = " -dataset cifar10" if case.settings.dataset == CIFAR else ""
    return f"resnet -depth {case.settings.depth} -shortcutType {case.settings.shortcut_type}{small}"


def step(network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> float:
    optimizer_class, rule = OPTIMIZERS["sgd"]
    optimizer = optimizer_class(network.parameters(), lr=0.001, momentum=0.0, dampening=0.0, weight_decay=5e-4)
    binarizer = Binarizer(network)
    binarizer.mean_centre_and_clamp()
    network.train()
    return train_batch(Learner(network, criterion_of(network), optimizer, rule, binarizer), pictures, labels).loss


def answers(network: nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The scores for the pictures, and the size of all that the network answers."""
    network.eval()
    with torch.no_grad():
        return class_scores(network, pictures), tuple(network(pictures).shape)


def figures(network: nn.Module) -> tuple[int, int, int, int]:
    """Parameters; convolutions that are binary, all, and binary ones with binary inputs."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    n_binary_inputs = sum(type(module).__name__ == "BinActiveZ" for module in network.modules())
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    return n_parameters, len(binary_convolutions(network)), len(convolutions), n_binary_inputs


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
