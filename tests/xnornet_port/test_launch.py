"""-nGPU 2 on the CPU, as a user starts it: one line for a mistake, no process left when one is lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import xnornet_port.launch
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


def test_processes_that_cannot_be_started_are_one_line(
    golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no room for the second: the first one ends too."""
    start_process = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def start_one(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        if started:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(start_process([sys.executable, "-c", "input()"], **settings))
        return started[0]

    monkeypatch.setattr(xnornet_port.launch.subprocess, "Popen", start_one)
    assert cli.main(words(golden, tmp_path)) == 1
    assert capfd.readouterr().err == (
        "error: -nGPU 2: process 2 of 2 cannot be started (Resource temporarily unavailable); try a smaller -nGPU\n"
    )
    assert started[0].returncode == -signal.SIGKILL


def test_a_worker_that_hangs_with_the_pipe_open_keeps_nobody(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data worker whose picture hangs outlives its main process, and holds its standard error."""
    start_process = subprocess.Popen
    hanging = "import subprocess, sys; subprocess.Popen(['sleep', '30']); sys.exit(3)"
    started: list[subprocess.Popen[bytes]] = []

    def start_hanging(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start_process([sys.executable, "-c", hanging], **settings))
        return started[-1]

    monkeypatch.setattr(xnornet_port.launch.subprocess, "Popen", start_hanging)
    begin = time.monotonic()
    assert xnornet_port.launch.launch(2, words(golden, tmp_path), lambda line: None) == 3
    assert time.monotonic() - begin < 15
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)  # the sleeping ones; their pipes are closed now
    for thread in threading.enumerate():
        if thread.daemon:
            thread.join(timeout=10)


def test_only_one_of_several_starts_no_others(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both variables make a process one of several (`place_of`); RANK alone, of whatever program, does not."""
    started: list[int] = []

    def launch(n_processes: int, *rest: object) -> int:
        started.append(n_processes)
        return 0

    monkeypatch.setattr(xnornet_port.launch, "launch", launch)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert cli.main(words(golden, tmp_path)) == 0
    assert started == [2]


def test_a_mistake_is_one_line(golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(golden, tmp_path, "-data", tmp_path / "nowhere")) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert "nowhere" in error
    assert error.count("\n") == 1
