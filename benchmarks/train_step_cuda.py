"""One training step of alexnetxnor on the GPU beside the same step on the CPU, then how long it takes.

    python benchmarks/train_step_cuda.py [--batch 32] [--rounds 10]

The devices add in another order, so a sum near 0 may change its sign, an activation with it, and from there on it is
another step (the CPU with another order of its own: updates with a cosine of 0.2 to 0.8). Therefore the device's layers
get the CPU's numbers: each one's output is compared with that of the CPU (`OUTPUT_TOLERANCE`, difference over norm) and
then replaced by it, so that forward and backward each layer is on its own. The loss must agree to 1 in 10,000, each
update to `UPDATE_TOLERANCE`. Dropout is off; SGD, whose update is the gradient itself. Exit code 1 where they disagree.
`--device cpu` compares with the CPU without oneDNN.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.nn import ClassNLLCriterion
from xnornet_port import build_model
from xnornet_port.binarization import Binarizer
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS

LOSS_TOLERANCE, OUTPUT_TOLERANCE, UPDATE_TOLERANCE = 1e-4, 1e-4, 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="pictures per step (default 32)")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps (default 10)")
    parser.add_argument("--device", default="cuda", help="what to compare with the CPU (default cuda)")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("train_step_cuda: torch finds no GPU here", file=sys.stderr)
        return 1
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(arguments.batch, 3, 224, 224, generator=generator)
    labels = torch.randint(1, 1001, (arguments.batch,), generator=generator)
    agrees = compare(alexnetxnor, inputs, labels, torch.device(arguments.device))
    if arguments.device.startswith("cuda"):
        times = timed_steps(inputs.to(arguments.device), labels, arguments.rounds)
        print(
            f"{torch.cuda.get_device_name()}, batch {arguments.batch}: median {statistics.median(times):.2f} ms a step"
        )
    return 0 if agrees else 1


@dataclass
class Outputs:
    """What the layers of a network gave on the CPU, call by call; and how far another device was from it."""

    values: list[Tensor] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)


class _Replaced(torch.autograd.Function):
    """`value` in place of x; the gradient goes to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@contextmanager
def recorded(network: nn.Module, outputs: Outputs) -> Iterator[None]:
    """While it lasts, what each layer gives is kept."""
    layers = [module for module in network.modules() if not list(module.children())]
    handles = [
        layer.register_forward_hook(lambda _, __, output: outputs.values.append(output.detach().clone()))
        for layer in layers
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def replaced(network: nn.Module, outputs: Outputs) -> Iterator[None]:
    """While it lasts, what each layer gives is compared with the CPU's and replaced by it."""
    values = iter(outputs.values)
    layers = {name: module for name, module in network.named_modules() if not list(module.children())}

    def replace(name: str, output: Tensor) -> Tensor:
        value = next(values).to(output.device)
        outputs.differences[name] = relative(output.detach(), value)
        return _Replaced.apply(output, value)  # type: ignore[no-any-return,no-untyped-call]

    handles = [
        layer.register_forward_hook(lambda _, __, output, name=name: replace(name, output))
        for name, layer in layers.items()
    ]
    yield
    for handle in handles:
        handle.remove()


def compare(make_network: Callable[[], nn.Module], inputs: Tensor, labels: Tensor, device: torch.device) -> bool:
    """One training step of `make_network()` on the CPU and on the device; prints how they differ. Do they agree?"""
    outputs = Outputs()
    network = make_network().train()
    with recorded(network, outputs):
        cpu_loss, cpu_update = step_of(network, inputs, labels)
    other = make_network().train()
    Binarizer(other).mean_centre_and_clamp()  # on the CPU: a weight next to 0 has one sign
    other = other.to(device)
    with without_onednn() if device.type == "cpu" else nullcontext(), replaced(other, outputs):
        loss, update = step_of(other, inputs.to(device), labels, is_prepared=True)
    differences = {name: relative(update[name], value) for name, value in cpu_update.items()}
    worst_output = max(outputs.differences, key=lambda name: outputs.differences[name])
    worst_update = max(differences, key=lambda name: differences[name])
    print(f"loss {loss:.7f} on {device}, {cpu_loss:.7f} on the CPU")
    print(f"largest difference of a layer's output: {outputs.differences[worst_output]:.1e} ({worst_output})")
    print(f"largest difference of an update: {differences[worst_update]:.1e} ({worst_update})")
    agrees = (
        abs(loss - cpu_loss) <= LOSS_TOLERANCE * abs(cpu_loss)
        and outputs.differences[worst_output] <= OUTPUT_TOLERANCE
        and differences[worst_update] <= UPDATE_TOLERANCE
    )
    print("agree" if agrees else "DISAGREE")
    return agrees


@contextmanager
def without_onednn() -> Iterator[None]:
    was_enabled = bool(torch.backends.mkldnn.enabled)
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was_enabled


def relative(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over that of b."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def alexnetxnor() -> nn.Module:
    """The same weights every time, dropout off."""
    network = build_model("alexnetxnor", n_classes=1000, seed=2)
    for module in network.modules():
        if "Dropout" in type(module).__name__:
            module.p = 0.0
    return network


def step_of(
    network: nn.Module, inputs: Tensor, labels: Tensor, is_prepared: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """The loss, and what one step of SGD adds to each parameter that is no vector (a bias before a batch
    normalisation has a gradient of 0, and rounding)."""
    binarizer = Binarizer(network)
    optimizer_class, rule = OPTIMIZERS["sgd"]
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    if not is_prepared:
        binarizer.mean_centre_and_clamp()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    learner = Learner(network, ClassNLLCriterion(), optimizer, rule, binarizer, inputs.device)
    scores = train_batch(learner, inputs, labels)
    after = dict(network.named_parameters())
    update = {name: (after[name].detach() - value).cpu() for name, value in before.items() if value.ndim > 1}
    return float(scores.loss), update


def timed_steps(inputs: Tensor, labels: Tensor, rounds: int) -> list[float]:
    """Milliseconds of each step with adam and binary weights, as main.py does it."""
    network = alexnetxnor().train().to(inputs.device)
    binarizer = Binarizer(network)
    optimizer_class, rule = OPTIMIZERS["adam"]
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    learner = Learner(network, ClassNLLCriterion(), optimizer, rule, binarizer, inputs.device)
    times = []
    for _ in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        binarizer.mean_centre_and_clamp()
        train_batch(learner, inputs, labels)
        end.record()
        end.synchronize()
        times.append(float(start.elapsed_time(end)))
    return times[3:]


if __name__ == "__main__":
    sys.exit(main())
