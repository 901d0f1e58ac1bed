"""-nGPU 2 on the CPU, as a user starts it: one line for a mistake, no process left when one is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xnornet_port import cli

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


def words(golden: Path, cache: Path, *options: object) -> list[str]:
    shutil.copytree(golden / "cache", cache, dirs_exist_ok=True)
    return [str(word) for word in ("-data", golden / "imagenet", "-cache", cache, "-nClasses", 5, "-nGPU", 2,
            "-device", "cpu", "-nDonkeys", 1, "-batchSize", 4, "-epochSize", 1000, "-retrain",
            golden / "models" / "tiny_bwn.t7", *options)]  # fmt: skip


def start(golden: Path, cache: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A run of two processes that has trained two batches, and all processes below it."""
    run = subprocess.Popen([sys.executable, ROOT / "main.py", *words(golden, cache)], cwd=ROOT, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("Epoch: [1][2/"):
            break
    else:
        pytest.fail(str(run.communicate()))
    replicas = children(run.pid)
    assert len(replicas) == 2
    return run, [*replicas, *(worker for replica in replicas for worker in children(replica))]


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def all_end(processes: list[int], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{process}").exists() for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_killed_process_ends_the_run(golden: Path, tmp_path: Path) -> None:
    run, processes = start(golden, tmp_path)
    os.kill(processes[1], signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 137
    first, second = error.splitlines()
    assert first.startswith("error: process 1 of 2 has lost another one")
    assert second == "error: process 2 of 2 was killed by SIGKILL"
    assert all_end(processes)


def test_nothing_is_left_when_the_launcher_is_killed(golden: Path, tmp_path: Path) -> None:
    """The processes keep a state on their way out: they see it as a notice to stop."""
    run, processes = start(golden, tmp_path)
    run.kill()
    assert all_end(processes)
    run.communicate()
    assert len(list(tmp_path.glob("alexnet*/*/state_1_*.json"))) == 1


def test_a_mistake_is_one_line(golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(golden, tmp_path, "-data", tmp_path / "nowhere")) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert "nowhere" in error
    assert error.count("\n") == 1
