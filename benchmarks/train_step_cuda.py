"""One training step of alexnetxnor on the GPU beside the same step on the CPU, then how long it takes.

    python benchmarks/train_step_cuda.py [--batch 32] [--rounds 10]

Dropout is off, so that both see the same numbers; SGD, whose update is the gradient itself. The devices add in another
order, so a sum near 0 may change its sign and with it an activation: the loss must agree to 1 in 1000, and the
update of each parameter must point the same way (cosine of at least 0.98). Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.nn import ClassNLLCriterion
from xnornet_port import build_model
from xnornet_port.binarization import Binarizer
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS

LOSS_TOLERANCE, LEAST_COSINE = 1e-3, 0.98


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
    (cpu_loss, cpu_update), (loss, update) = (
        first_step(inputs, labels, device) for device in ("cpu", arguments.device)
    )
    cosines = {name: cosine(update[name], cpu_update[name]) for name in update}
    worst = min(cosines, key=lambda name: cosines[name])
    print(f"loss {loss:.6f} on {arguments.device}, {cpu_loss:.6f} on the CPU")
    print(f"least cosine of an update: {cosines[worst]:.4f} ({worst})")
    if arguments.device.startswith("cuda"):
        times = timed_steps(inputs.cuda(), labels, arguments.rounds)
        print(
            f"{torch.cuda.get_device_name()}, batch {arguments.batch}: median {statistics.median(times):.2f} ms a step"
        )
    agrees = abs(loss - cpu_loss) <= LOSS_TOLERANCE * abs(cpu_loss) and cosines[worst] >= LEAST_COSINE
    print("agree" if agrees else "DISAGREE")
    return 0 if agrees else 1


def network_of(device: str) -> nn.Module:
    """The same weights everywhere, dropout off."""
    network = build_model("alexnetxnor", n_classes=1000, seed=2).train()
    for module in network.modules():
        if "Dropout" in type(module).__name__:
            module.p = 0.0
    return network.to(device)


def first_step(inputs: Tensor, labels: Tensor, device: str) -> tuple[float, dict[str, Tensor]]:
    """The loss, and what one step of SGD adds to each parameter that is not a bias before a batch normalisation."""
    network = network_of(device)
    binarizer = Binarizer(network)
    optimizer_class, rule = OPTIMIZERS["sgd"]
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    binarizer.mean_centre_and_clamp()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    learner = Learner(network, ClassNLLCriterion(), optimizer, rule, binarizer)
    scores = train_batch(learner, inputs.to(device), labels)
    after = dict(network.named_parameters())
    update = {name: (after[name].detach() - value).cpu() for name, value in before.items() if value.ndim > 1}
    return float(scores.loss), update


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-300))


def timed_steps(inputs: Tensor, labels: Tensor, rounds: int) -> list[float]:
    """Milliseconds of each step with adam and binary weights, as main.py does it."""
    network = network_of("cuda")
    binarizer = Binarizer(network)
    optimizer_class, rule = OPTIMIZERS["adam"]
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    learner = Learner(network, ClassNLLCriterion(), optimizer, rule, binarizer)
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
