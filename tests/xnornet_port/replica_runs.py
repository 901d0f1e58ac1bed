"""Runs of one and of two processes for test_parallel.py, which starts this once: PyTorch is imported once and forked.

    python replica_runs.py GOLDEN FOLDER

Each case is a run of main.py as launch.py or torchrun starts it (RANK and the rest in the environment). Beside the
run's files each writes what it saw: FOLDER/CASE_RANK.npz with losses, digests of pictures, first gradients; its lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

import lua_compat  # noqa: E402
import lua_compat.nn  # noqa: E402
import xnornet_port.passes  # noqa: E402
import xnornet_port.run  # noqa: E402
from xnornet_port import cli  # noqa: E402
from xnornet_port.evaluate import Tester  # noqa: E402
from xnornet_port.launch import MEETING  # noqa: E402
from xnornet_port.train import Learner  # noqa: E402

Act = Callable[[int, int], None]  # (rank, batches trained) -> something done to the run


class Seen:
    """What one process sees of its run."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.test: list[float] = []
        self.train_pictures: list[str] = []
        self.test_pictures: list[str] = []
        self.gradients: list[np.ndarray] = []

    def watch(self, act: Act, rank: int) -> None:
        self._wrap("train_epoch", "train", act, rank)
        self._wrap("evaluate", "test", lambda rank, number: None, rank)

    def _wrap(self, name: str, phase: str, act: Act, rank: int) -> None:
        original = getattr(xnornet_port.passes, name)

        def watched(learner: Learner | Tester, *arguments: Any) -> Any:
            *before, on_batch, should_stop = arguments
            at = next(place for place, argument in enumerate(before) if hasattr(argument, "__next__"))
            before[at] = self._noting(before[at], phase)

            def note(*report: Any) -> None:
                losses: list[float] = getattr(self, phase)
                losses.append((report[0].scores if phase == "train" else report[0]).loss)
                if phase == "train" and len(losses) == 1:
                    self.gradients = [p.grad.numpy().copy() for p in learner.network.parameters() if p.grad is not None]
                on_batch(*report)
                act(rank, len(losses))

            return original(learner, *before, note, should_stop)

        setattr(xnornet_port.passes, name, watched)

    def _noting(self, batches: Any, phase: str) -> Any:
        for batch in batches:
            pictures: list[str] = getattr(self, f"{phase}_pictures")
            pictures += [hashlib.sha256(picture.tobytes()).hexdigest() for picture in batch.inputs]
            yield batch


def one_run(
    name: str, folder: Path, words: list[str], size: int, act: Act, eval_norm: bool, by_torchrun: bool
) -> list[int]:
    """Exit codes of the processes of a run."""
    children = []
    with socket.create_server(("127.0.0.1", 0)) as meeting:
        for rank in range(size):
            child = os.fork()
            if child == 0:
                environment = _environment(meeting, rank, size, by_torchrun) if size > 1 else {}
                _in_child(name, folder, words, rank, environment, act, eval_norm)
            children.append(child)
        # torchrun's agent keeps the store in a process of its own
        store = dist.TCPStore(*meeting.getsockname(), None, True, wait_for_workers=False,
                              master_listen_fd=meeting.detach()) if by_torchrun else None  # fmt: skip
    codes = []
    for child in children:
        _, status = os.waitpid(child, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    del store
    return codes


def _environment(meeting: socket.socket, rank: int, size: int, by_torchrun: bool) -> dict[str, str]:
    """What launch.py or torchrun tells a process."""
    host, port = meeting.getsockname()
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": host, "MASTER_PORT": port}
    if by_torchrun:
        told["TORCHELASTIC_USE_AGENT_STORE"] = True
    else:
        told[MEETING] = "" if rank else os.dup(meeting.fileno())
    meeting.close()  # or it would be there still when the first process has gone
    return {name: str(value) for name, value in told.items()}


def _in_child(
    name: str, folder: Path, words: list[str], rank: int, environment: dict[str, str], act: Act, eval_norm: bool
) -> None:
    code = 99
    try:
        with open(folder / f"{name}_{rank}.log", "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(environment)
        if eval_norm:  # statistics of the whole training set, not of a replica's part: then parts add up to the whole
            nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)  # type: ignore[method-assign]
        seen = Seen()
        seen.watch(act, rank)
        code = cli.main(words)
        arrays = {f"gradient{k}": gradient for k, gradient in enumerate(seen.gradients)}
        np.savez(folder / f"{name}_{rank}.npz", train=seen.train, test=seen.test,
                 train_pictures=seen.train_pictures, test_pictures=seen.test_pictures, **arrays)  # fmt: skip
        sys.stdout.flush()
    finally:
        os._exit(code)


def nothing(rank: int, number: int) -> None:
    pass


def kill_the_second(rank: int, number: int) -> None:
    if rank == 1 and number == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def tell_the_second_to_stop(rank: int, number: int) -> None:
    if rank == 1 and number == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def main(golden: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    network = folder / "network.t7"
    plain = golden / "models" / "tiny_bwn.t7"

    def start(cache: str, network: Path, *options: object) -> list[str]:
        shutil.copytree(golden / "cache", folder / cache)
        words = ["-data", golden / "imagenet", "-cache", folder / cache, "-nClasses", 5, "-device", "cpu",
                 "-batchSize", 8, "-epochSize", 3, "-nEpochs", 2, "-retrain", network, *options]  # fmt: skip
        return [str(word) for word in words]

    def resume(cache: str) -> list[str]:
        return ["-resume", str(next((folder / cache).glob("alexnet*/*/")))]

    results: dict[str, Any] = {"seconds": {}}

    def case(
        name: str, words: list[str], size: int, act: Act = nothing, eval_norm: bool = False, by_torchrun: bool = False
    ) -> None:
        begin = time.perf_counter()
        results[name] = one_run(name, folder, words, size, act, eval_norm, by_torchrun)
        results["seconds"][name] = time.perf_counter() - begin

    child = os.fork()
    if child == 0:
        with_dropout = lua_compat.nn.load(golden / "models" / "tiny_xnor.t7")
        with_dropout.insert(3, lua_compat.nn.SpatialDropout(0.3))  # type: ignore[operator]
        lua_compat.save(network, lua_compat.nn.from_torch(with_dropout))
        os._exit(0)
    os.waitpid(child, 0)
    for size in (1, 2):
        case(f"same{size}", start(f"same{size}", plain, "-nDonkeys", 0, "-testAll"), size, eval_norm=True)
    for size in (1, 2):
        options: tuple[object, ...] = ("-nDonkeys", 2, "-batchSize", 7, "-nEpochs", 1, "-binaryWeight")
        case(f"uneven{size}", start(f"uneven{size}", plain, *options), size, eval_norm=True)
    case("plain2", start("plain2", plain, "-nDonkeys", 0, "-testAll"), 2, by_torchrun=True)
    saved = next((folder / "plain2").glob("alexnet*/*/")) / "model_2.t7"
    case("tested", start("tested", saved, "-nDonkeys", 0, "-testAll", "-testOnly"), 1)
    options = ("-nDonkeys", 0, "-binaryWeight", "-optimType", "adam", "-checkpointEvery", 1)
    case("undisturbed", start("undisturbed", network, *options), 2)
    case("killed", start("killed", network, *options), 2, kill_the_second)
    case("killed_resumed", resume("killed"), 2)
    case("stopped", start("stopped", network, *options), 2, tell_the_second_to_stop)
    case("stopped_resumed", resume("stopped"), 2)
    shutil.copytree(folder / "stopped", folder / "longer")
    case("longer_alone", [*resume("longer"), "-nEpochs", "3"], 1)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
