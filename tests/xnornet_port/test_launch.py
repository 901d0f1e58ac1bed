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
from xnornet_port.errors import XnorNetError

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


def all_end(processes: list[int], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while any(map(is_running, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def is_running(process: int) -> bool:
    """A process that has ended, and that nobody has asked after (a container's first process may not), is not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_process_ends_the_run(golden: Path, tmp_path: Path) -> None:
    run, processes = start(golden, tmp_path)
    os.kill(processes[1], signal.SIGKILL)
    _, error = run.communicate(timeout=600)
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


def test_systems_that_cannot_hand_on_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(XnorNetError, match="-nGPU above 1 needs Linux"):
        xnornet_port.launch.launch(2, [], lambda line: None)


def test_a_worker_that_hangs_with_the_pipe_open_keeps_nobody(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data worker whose picture hangs outlives its main process, and holds its standard error."""
    start_process = subprocess.Popen
    hanging = "import subprocess, sys; subprocess.Popen(['sleep', '600']); sys.exit(3)"
    started: list[subprocess.Popen[bytes]] = []

    def start_hanging(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start_process([sys.executable, "-c", hanging], **settings))
        return started[-1]

    monkeypatch.setattr(xnornet_port.launch.subprocess, "Popen", start_hanging)
    begin = time.monotonic()
    assert xnornet_port.launch.launch(2, words(golden, tmp_path), lambda line: None) == 3
    assert time.monotonic() - begin < 300
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


def end_before_they_are_looked_at(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """`launch` starts these programs, and first looks at them when all have ended: as on a busy machine."""
    start_process = subprocess.Popen
    waiting = iter(programs)

    def start_ended(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        process = start_process([sys.executable, "-c", next(waiting)], **settings)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return process

    monkeypatch.setattr(xnornet_port.launch.subprocess, "Popen", start_ended)


LOST = "import sys; sys.exit('error: process 1 of 2 has lost another one')"


def test_the_one_that_was_killed_is_named_though_the_other_has_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    end_before_they_are_looked_at(monkeypatch, LOST, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    said: list[str] = []
    assert xnornet_port.launch.launch(2, [], said.append) == 137
    assert said == ["error: process 1 of 2 has lost another one", "error: process 2 of 2 was killed by SIGKILL"]


def test_what_each_of_several_has_failed_of_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    end_before_they_are_looked_at(monkeypatch, LOST, "import sys; sys.exit('error: no such folder')")
    said: list[str] = []
    assert xnornet_port.launch.launch(2, [], said.append) == 1
    assert said == ["error: process 1 of 2 has lost another one", "process 2 of 2: error: no such folder"]


def test_the_port_is_nobody_elses_before_the_first_process_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """That process imports PyTorch for seconds before it comes to listen."""
    take = """
import os, socket
with socket.socket() as other:
    try:
        other.bind((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
    except OSError:
        raise SystemExit(0)
raise SystemExit("taken")
"""
    start_process = subprocess.Popen
    monkeypatch.setattr(
        xnornet_port.launch.subprocess,
        "Popen",
        lambda command, **settings: start_process([sys.executable, "-c", take], **settings),
    )
    said: list[str] = []
    assert (xnornet_port.launch.launch(1, [], said.append), said) == (0, [])
