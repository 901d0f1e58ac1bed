"""alexnetxnor whole, on packed kernels and in every float32 form of PyTorch: pictures per second, memory, file sizes.

    python benchmarks/xnor_network.py [--rounds 15] [--batch 1 32] [--threads 1 2] [--compile]

All forms compute the same network (binary weights as alpha sign(W), 224x224 pictures, 1000 classes). They take turns in
one process; medians count, with the spread beside them. The float forms: as it is, in channels-last order, with its
last layers as matrix products (what main.py does), both, that frozen and optimised by torch.jit, and with --compile by
inductor with frozen weights. Ours is `XnorModel`: first and last layer in float32, the rest on bits. Memory is that of
a fresh process that loads the file and answers one picture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat import save
from lua_compat.nn import from_torch
from xnornet_port import XnorModel, build_model, load_model
from xnornet_port.binarization import Binarizer
from xnornet_port.layers import BinActiveZ
from xnornet_port.machine import describe_machine
from xnornet_port.xnor_layers import XnorConvolution

TARGETS = {1: 5.0, 32: 4.5}  # issue 5: times the fastest float32 form, by batch
OURS = "XNOR kernels"

Form = Callable[[torch.Tensor], torch.Tensor]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="measured turns of each form (default 15)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="pictures at a time (default 1 32)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads (default 1 2)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, which takes minutes")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for one thread on a busy machine")
    parser.add_argument("--no-memory", action="store_true", help="leave out memory and file sizes")
    parser.add_argument("--load", metavar="FILE", help=argparse.SUPPRESS)  # the child that measures memory
    arguments = parser.parse_args()
    if arguments.load:
        return print_memory(arguments.load)
    network = with_statistics(build_model("alexnetxnor"))
    model = XnorModel.from_model(network)
    machine = describe_machine(torch.device("cpu"))
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}, {arguments.rounds} rounds\n")
    if not arguments.no_memory:
        print_sizes(network, model)
    reached = True
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for batch in arguments.batch:
            reached &= compare(network, model, batch, threads, arguments)
    return 0 if reached else 1


def with_statistics(network: nn.Module) -> nn.Module:
    """Binary weights, and batch normalisations that have seen a batch.

    In a network that has seen nothing every mean is 0: a dot product of 0 is then a sign of 0 for the kernels and noise
    of either sign for float convolutions, which no trained network shows.
    """
    Binarizer(network).binarize()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(2)))
    return network.eval()


def compare(network: nn.Module, model: XnorModel, batch: int, threads: int, arguments: argparse.Namespace) -> bool:
    """Print one table; whether the target is reached (True where there is none)."""
    x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    forms = dict(float_forms(network, x, arguments.compile)) | {OURS: model}
    with torch.no_grad():
        require_equal(forms, x)
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        seconds = take_turns(forms, x, arguments.rounds, clock)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    fastest = min((name for name in forms if name != OURS), key=medians.__getitem__)
    print(f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}")
    print(f"| {'form':42} | ms (median, least to most) | pictures/s | times the fastest float32 |")
    print(f"|{'-' * 44}|---|---|---|")
    for name, times in seconds.items():
        spread = f"{1e3 * medians[name]:.2f} ({1e3 * min(times):.2f} to {1e3 * max(times):.2f})"
        print(f"| {name:42} | {spread} | {batch / medians[name]:.1f} | {medians[fastest] / medians[name]:.2f} |")
    ratio = medians[fastest] / medians[OURS]
    target = TARGETS.get(batch)
    verdict = "" if target is None else f" (target {target:g}: {'reached' if ratio >= target else 'NOT reached'})"
    print(f"{OURS}: {ratio:.2f} times the fastest float32 form, {fastest}{verdict}\n")
    return target is None or ratio >= target


def float_forms(network: nn.Module, x: torch.Tensor, with_compile: bool) -> Iterator[tuple[str, Form]]:
    """The same float32 network in every form that may be the fastest."""
    plain, products = rewritten(network, as_products=False), rewritten(network, as_products=True)
    last = torch.channels_last
    plain_last, products_last = (channels_last(module) for module in (plain, products))
    yield "float32", plain
    yield "float32, channels last", lambda y: plain_last(y.contiguous(memory_format=last))
    yield "float32, products", products
    yield "float32, products, channels last", lambda y: products_last(y.contiguous(memory_format=last))
    for name, module, example in (
        ("float32, products, torch.jit frozen", products, x),
        ("float32, products, channels last, jit", products_last, x.contiguous(memory_format=last)),
    ):
        frozen = jit_frozen(module, example)
        if frozen is not None:
            yield (
                name,
                (lambda y, f=frozen: f(y)) if example is x else lambda y, f=frozen: f(y.contiguous(memory_format=last)),
            )
    if with_compile:
        yield "float32, products, torch.compile frozen", compiled(products, x)


class Sign(nn.Module):
    """BinActiveZ without its gradient, which torch.jit cannot trace."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sign()


def rewritten(network: nn.Module, as_products: bool) -> nn.Sequential:
    """The modules in one row, on the network's own weights; the last three convolutions as nn.Linear if asked for."""
    row = list(flattened(network))
    if as_products:
        convolutions = [i for i, module in enumerate(row) if isinstance(module, nn.Conv2d)][-3:]
        for i in reversed(convolutions):
            row[i : i + 1] = [nn.Flatten(), as_linear(row[i]), nn.Unflatten(1, (-1, 1, 1))]
    return nn.Sequential(*row).eval()


def flattened(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential):
            yield from flattened(child)
        else:
            yield Sign() if isinstance(child, BinActiveZ) else child


def as_linear(convolution: nn.Module) -> nn.Linear:
    linear = nn.Linear(1, 1, device="meta")
    linear.weight = nn.Parameter(convolution.weight.detach().flatten(1), requires_grad=False)
    linear.bias = nn.Parameter(convolution.bias.detach(), requires_grad=False)
    return linear


def channels_last(network: nn.Sequential) -> nn.Sequential:
    """A copy whose convolutions' weights are in that order; products and batch normalisations are shared."""
    return nn.Sequential(*(reordered(module) if isinstance(module, nn.Conv2d) else module for module in network)).eval()


def reordered(convolution: nn.Conv2d) -> nn.Conv2d:
    copy = nn.Conv2d(
        convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride,
        convolution.padding, device="meta",
    )  # fmt: skip
    weight = convolution.weight.detach().contiguous(memory_format=torch.channels_last)
    copy.weight = nn.Parameter(weight, requires_grad=False)
    copy.bias = convolution.bias
    return copy


def jit_frozen(network: nn.Module, x: torch.Tensor) -> Form | None:
    """Traced, frozen and optimised for inference, which packs weights beforehand; None where torch.jit cannot."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, x)))
            for _ in range(3):  # it optimises while it runs
                frozen(x)
        except (RuntimeError, AttributeError) as error:
            print(f"(torch.jit cannot: {str(error).splitlines()[0]})")
            return None
    return frozen


def compiled(network: nn.Module, x: torch.Tensor) -> Form:
    import torch._inductor.config as inductor

    inductor.freezing = True
    fast = torch.compile(network)
    with torch.no_grad():
        fast(x)
    return fast


def require_equal(forms: dict[str, Form], x: torch.Tensor) -> None:
    """Every form predicts the same, but for one picture in ten at most.

    The float forms round their sums differently; where that flips a sign, a network of random numbers answers with
    other log-probabilities, all float forms among themselves as well.
    """
    answers = {name: form(x).view(len(x), -1) for name, form in forms.items()}
    expected = answers["float32"]
    for name, found in answers.items():
        n_same = int((found.argmax(1) == expected.argmax(1)).sum())
        if n_same < 0.9 * len(x):
            raise SystemExit(f"{name}: another network? top-1 is that of float32 for {n_same} of {len(x)} pictures")


def take_turns(
    forms: dict[str, Form], x: torch.Tensor, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each form's calls. In a turn the first is not counted: then its own data are in the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    calls = 3 if len(x) < 8 else 1
    for _ in range(rounds):
        for name, form in forms.items():
            form(x)
            for _ in range(calls):
                start = clock()
                form(x)
                seconds[name].append(clock() - start)
    return seconds


def print_sizes(network: nn.Module, model: XnorModel) -> None:
    """File sizes, the share of the binary layers, and memory of a process that loads and runs each."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"float32 (.t7)": Path(folder) / "a.t7", "packed": Path(folder) / "a.xnor.safetensors"}
        save(files["float32 (.t7)"], bare(from_torch(network)))
        model.save(files["packed"])
        print("| file | bytes | resident after one picture, over the imports | at most |")
        print("|---|---|---|---|")
        for name, path in files.items():
            done = subprocess.run(
                [sys.executable, __file__, "--load", str(path)], capture_output=True, text=True, check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            resident, most = done.stdout.split()
            print(f"| {name} | {path.stat().st_size:,} | {int(resident) / 1024:.0f} MiB | {int(most) / 1024:.0f} MiB |")
    layers = [layer for layer in model.binary_layers if isinstance(layer, XnorConvolution)]
    packed = sum(buffer.numel() * buffer.element_size() for layer in layers for buffer in layer.buffers())
    real = sum(4 * (layer.n_weights + layer.out_channels) for layer in layers)
    print(f"binary layers: {packed:,} bytes packed, {real:,} as float32: 1/{real / packed:.1f} (target 1/31)\n")


def bare(written: object) -> object:
    """Without gradients, which a network that is only used does not need in its file."""
    for module in getattr(written, "get", lambda name: None)("modules") or {}:
        bare(written["modules"][module])  # type: ignore[index]
    for name in ("gradWeight", "gradBias"):
        if name in written:  # type: ignore[operator]
            del written[name]  # type: ignore[attr-defined]
    return written


def print_memory(path: str) -> int:
    """Load, answer one picture, print KiB: resident beyond the imports, and the most there was."""
    before, _ = resident_kib()
    network = load_model(path).eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    after, most = resident_kib()
    print(after - before, most - before)
    return 0


def resident_kib() -> tuple[int, int]:
    """Resident now, and at most so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return found["VmRSS"], found["VmHWM"]


if __name__ == "__main__":
    sys.exit(main())
