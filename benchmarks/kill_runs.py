"""Kills a small training run with SIGKILL at random moments, resumes it, and compares what it ends with.

    python benchmarks/kill_runs.py --kills 200            # half without, half with two data workers
    python benchmarks/kill_runs.py --kills 200 --write    # and keep the table in benchmarks/results/kill_runs.md

One run is left alone. The others are killed at a moment drawn evenly over the time it takes, resumed with -resume,
killed again at another, and so on until one of them comes to its end; then every file of it must be the undisturbed
one's, byte for byte: model_N.t7, optimState_N.t7, the logs. The network is the small XNOR network of tests/golden with
a dropout, the pictures are those of tests/golden, a state is kept after every batch. Each process is forked from one
that has imported PyTorch, so that a cycle takes about a second; it is a process of its own and really killed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PyTorch: no threads at the fork
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch._dynamo  # what a run imports, before the fork: PyTorch's optimisers take this one  # noqa: E402

import lua_compat  # noqa: E402
import lua_compat.nn  # noqa: E402
import xnornet_port.run  # noqa: E402, F401
from xnornet_port import cli  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
RESULTS = ROOT / "benchmarks" / "results" / "kill_runs.md"
N_EPOCHS, EPOCH_SIZE = 2, 4
FILES = ["train.log", "test.log", "classes.t7"] + [
    f"{kind}_{epoch}.t7" for kind in ("model", "optimState") for epoch in range(1, N_EPOCHS + 1)
]
ORPHAN_SECONDS, LOOK_SECONDS = 10.0, 0.01


@dataclass
class Tally:
    """What was seen with one number of workers."""

    n_donkeys: int
    kills: int = 0
    runs: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    half_written: int = 0  # kills that left a file half written, under a temporary name
    undisturbed_seconds: float = 0.0
    mistakes: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--donkeys", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kill_runs") as folder:
        tallies = [kill_and_resume(Path(folder), n, arguments.kills // len(arguments.donkeys), draw)
                   for n in arguments.donkeys]  # fmt: skip
    text = table(tallies)
    print(text)
    if arguments.write:
        RESULTS.write_text(text, encoding="utf-8")
    return 1 if any(tally.mistakes for tally in tallies) else 0


def kill_and_resume(folder: Path, n_donkeys: int, n_kills: int, draw: random.Random) -> Tally:
    """Runs that are killed and resumed until there were so many kills."""
    tally = Tally(n_donkeys)
    network = folder / "network.t7"
    if not network.exists():
        wait(fork(lambda: save_network(network), folder / "log"))
    expected = new_cache(folder / f"undisturbed{n_donkeys}")
    seconds = []
    for cache in (new_cache(folder / f"first{n_donkeys}"), expected):
        start = time.perf_counter()
        if wait(fork(lambda cache=cache: cli.main(new_run(cache, network, n_donkeys)), folder / "log")) != 0:  # type: ignore[misc]
            raise SystemExit((folder / "log").read_text())
        seconds.append(time.perf_counter() - start)
    tally.undisturbed_seconds = min(seconds)
    while tally.kills < n_kills:
        cache = new_cache(folder / "cache")
        until_it_ends(cache, network, tally, n_kills, draw)
        tally.runs += 1
        compare(run_folder(cache), run_folder(expected), tally)
        shutil.rmtree(cache)
        print(f"\r{n_donkeys} workers: {tally.kills} kills, {tally.runs} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tally


def until_it_ends(cache: Path, network: Path, tally: Tally, n_kills: int, draw: random.Random) -> None:
    """Start a run, kill and resume it until it comes to its end."""
    while True:
        for folder in cache.glob("alexnet*/*/"):
            if not (folder / "options.json").exists():  # killed before there was anything to resume
                shutil.rmtree(folder)
        folder = run_folder(cache)
        words = ["-resume", str(folder)] if folder else new_run(cache, network, tally.n_donkeys)
        log = cache / "log"
        child = fork(lambda words=words: cli.main(words), log)  # type: ignore[misc]
        limit = draw.uniform(0, 1.1 * tally.undisturbed_seconds) if tally.kills < n_kills else 600.0
        code = wait(child, limit)
        if code == 0:
            return
        if code is not None:
            tally.mistakes.append(f"exit code {code}: {log.read_text()[-300:]}")
            return
        os.kill(child, signal.SIGSTOP)  # it starts no worker between the look and the kill
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        workers = children_of(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tally.kills += 1
        tally.moments[moment(log, cache)] += 1
        tally.half_written += any(cache.rglob("*.tmp"))
        left = [pid for pid in workers if not ends(pid)]
        if left:
            tally.mistakes.append(f"workers {left} were still there {ORPHAN_SECONDS} s after the kill")


def compare(found: Path | None, expected: Path | None, tally: Tally) -> None:
    if found is None or expected is None:
        tally.mistakes.append("there is no folder of the run")
        return
    for name in FILES:
        if not (found / name).exists() or (found / name).read_bytes() != (expected / name).read_bytes():
            tally.mistakes.append(f"run {tally.runs}: {name} is another than the undisturbed run's")
    if list(found.glob(".*.tmp")):
        tally.mistakes.append(f"run {tally.runs}: half-written files are left")


def save_network(path: Path) -> int:
    network = lua_compat.nn.load(GOLDEN / "models" / "tiny_xnor.t7")
    network.insert(3, lua_compat.nn.SpatialDropout(0.3))  # type: ignore[operator]
    lua_compat.save(path, lua_compat.nn.from_torch(network))
    return 0


def new_cache(cache: Path) -> Path:
    shutil.copytree(GOLDEN / "cache", cache)
    return cache


def new_run(cache: Path, network: Path, n_donkeys: int) -> list[str]:
    options = {
        "data": GOLDEN / "imagenet", "cache": cache, "retrain": network, "nDonkeys": n_donkeys, "nClasses": 5,
        "device": "cpu", "batchSize": 4, "epochSize": EPOCH_SIZE, "nEpochs": N_EPOCHS, "optimType": "adam",
        "checkpointEvery": 1,
    }  # fmt: skip
    return [str(word) for name, value in options.items() for word in (f"-{name}", value)] + ["-binaryWeight"]


def run_folder(cache: Path) -> Path | None:
    return next(cache.glob("alexnet*/*/"), None)


# ---- processes ----


def fork(work: Callable[[], int], log: Path) -> int:
    """A process that does the work, its lines going to the log."""
    child = os.fork()
    if child:
        return child
    try:
        with open(log, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = work()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  (a forked process must not go on as its parent)
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 99
    os._exit(code)


def wait(child: int, limit: float = 600.0) -> int | None:
    """The exit code, or None where the process still runs after `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def ends(process: int) -> bool:
    """Looks so often, and no clock: on a busy machine, or one that sleeps meanwhile, the process has had no time."""
    for _ in range(round(ORPHAN_SECONDS / LOOK_SECONDS)):
        if not is_running(process):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def is_running(process: int) -> bool:
    """A process that has ended, and that nobody has asked after (a container's first process may not), is not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def moment(log: Path, cache: Path) -> str:
    """What the run was doing when it was killed, by the last line it printed."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    if "TRAINING SUMMARY" in last:
        return "saving a model"
    if "on validation data" in last or "TESTING SUMMARY" in last or "Tested" in last:
        return "testing"
    if re.match(r"Epoch: \[|==> ", last) and "Converting" not in last:
        return "training"
    return "starting"


# ---- what is printed ----


def table(tallies: list[Tally]) -> str:
    lines = [
        "# Runs killed with SIGKILL and resumed",
        "",
        "`python benchmarks/kill_runs.py --kills "
        f"{sum(tally.kills for tally in tallies)} --write`: a run of {N_EPOCHS} epochs of {EPOCH_SIZE} batches is "
        "killed at random moments, resumed, killed again, until it ends.",
        "",
        "| workers | kills | runs brought to their end | undisturbed run | kills in the middle of a file | mistakes |",
        "|---|---|---|---|---|---|",
    ]
    for tally in tallies:
        lines.append(
            f"| {tally.n_donkeys} | {tally.kills} | {tally.runs} | {tally.undisturbed_seconds:.1f} s "
            f"| {tally.half_written} | {len(tally.mistakes)} |"
        )
    moments: Counter[str] = sum((tally.moments for tally in tallies), Counter())
    lines += ["", "Killed while: " + ", ".join(f"{name} {count}" for name, count in sorted(moments.items())) + ".", ""]
    lines.append(
        "A mistake is: an exit code other than 0, a file of the ended run ("
        + ", ".join(f"`{name}`" for name in FILES)
        + ") that is not the undisturbed run's byte for byte, a half-written file left after the end, a data worker "
        f"still there {ORPHAN_SECONDS:.0f} s after its main process was killed."
    )
    lines += [f"- {mistake}" for tally in tallies for mistake in tally.mistakes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
