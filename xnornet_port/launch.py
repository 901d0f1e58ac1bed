"""-nGPU N on one machine: starts N processes of this program and ends with them. torchrun does so on several machines.

The processes get what torchrun would tell them. The first one's lines are this program's; what the others have to say
is shown where one of them is the first to fail.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

__all__ = ["LAUNCHED", "end_with_the_launcher", "launch"]

LAUNCHED = "XNORNET_LAUNCHED"  # set for processes that `launch` started: their standard input ends when it does

GRACE_SECONDS = 20.0  # for the others to end by themselves when one has failed
POLL_SECONDS = 0.05


def launch(n_processes: int, argv: Sequence[str]) -> int:
    """Run `main.py argv` in `n_processes` processes; returns the exit code of the first that failed, or 0.

    Signals go on to all of them. When one fails the others have 20 s to end, then they are killed.
    """
    port = _free_port()
    processes = [_Process(rank, n_processes, port, argv) for rank in range(n_processes)]
    before = {number: signal.signal(number, _passing_on(processes)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        failed = _wait(processes)
        if failed is None:
            return 0
        _end_others(processes)
        return _exit_code(failed, processes)
    finally:
        for process in processes:
            process.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_the_launcher() -> None:
    """In a launched process: SIGTERM to itself when the launcher is gone, however that ended."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        LAUNCHED: "1",
    }


def _passing_on(processes: Sequence[_Process]) -> Callable[[int, FrameType | None], None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                process.popen.send_signal(number)

    return on_signal


def _wait(processes: Sequence[_Process]) -> int | None:
    """The number of the first process that failed, from 0; None when all are done."""
    while True:
        codes = [process.popen.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            return failed[0]
        if None not in codes:
            return None
        time.sleep(POLL_SECONDS)


def _end_others(processes: Sequence[_Process]) -> None:
    end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, end - time.monotonic()))
    for process in processes:
        process.popen.kill()
        process.popen.wait()


def _exit_code(failed: int, processes: Sequence[_Process]) -> int:
    """That of the process that failed, 128 + number for one that was killed.

    What another process than the first has to say is shown where it is not what the first says too.
    """
    code = processes[failed].popen.returncode
    who = f"process {failed + 1} of {len(processes)}"
    first, said = (processes[rank].said() for rank in (0, failed))
    if code < 0:
        print(f"error: {who} was killed by {signal.Signals(-code).name}", file=sys.stderr)
        return 128 - code
    if said != first:
        print(f"{who}: {said}", file=sys.stderr)
    return code


class _Process:
    """One of the processes, and what it writes on standard error, which for the first is passed on at once."""

    def __init__(self, rank: int, size: int, port: int, argv: Sequence[str]) -> None:
        self._lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "xnornet_port", *argv],
            stdin=subprocess.PIPE,  # never written to: its end tells that this process is gone
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
            env=_environment(rank, size, port),
        )
        self._thread = threading.Thread(target=self._listen, args=(rank == 0,), daemon=True)
        self._thread.start()

    def _listen(self, passes_on: bool) -> None:
        for line in self.popen.stderr or ():
            text = line.decode(errors="replace")
            self._lines.append(text)
            if passes_on:
                sys.stderr.write(text)
                sys.stderr.flush()

    def close(self) -> None:
        """End it, at once."""
        self.popen.kill()
        self.popen.wait()
        self._thread.join(timeout=1.0)
        for pipe in (self.popen.stdin, self.popen.stderr):
            if pipe is not None:
                pipe.close()

    def said(self) -> str:
        """All of it, when the process has ended."""
        self._thread.join(timeout=1.0)  # its data workers may hold the pipe a moment longer
        return "".join(self._lines).strip()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
