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
from contextlib import ExitStack, suppress
from types import FrameType

from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.interrupt import signal_name, signals_to_heed

__all__ = ["LAUNCHED", "MEETING", "end_with_the_launcher", "launch"]

LAUNCHED = "XNORNET_LAUNCHED"  # set for processes that `launch` started: their standard input ends when it does
MEETING = "XNORNET_MEETING"  # for the first of them, the descriptor of the socket the others connect to; else empty

GRACE_SECONDS = 20.0  # for the others to end by themselves when one has failed
POLL_SECONDS = 0.05


def launch(n_processes: int, argv: Sequence[str], say: Callable[[str], None]) -> int:
    """Run `main.py argv` in `n_processes` processes; returns the first exit code of one killed or failed, or 0.

    Signals go on to all of them. When one fails the others have 20 s to end, then they are killed. What the first
    writes on standard error goes to `say` as it comes, and what is to be said of the one that failed. Raises
    XnorNetError where they cannot be started.
    """
    if not hasattr(os, "fork"):  # nor can a process be given an open socket there
        raise XnorNetError("-nGPU above 1 needs Linux, macOS or another Unix; leave it out")
    with ExitStack() as stack:
        # open from here on: a port that is only looked for may be another program's when the first process needs it
        meeting = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        processes: list[_Process] = []
        for rank in range(n_processes):
            processes.append(_started(rank, n_processes, meeting, argv, say))
            stack.callback(processes[-1].close)
        meeting.close()  # it is the first one's alone, and gone with it
        for number in signals_to_heed():
            before = signal.signal(number, _passing_on(processes))
            stack.callback(signal.signal, number, before)
        failed = _wait(processes)
        if not failed:
            return 0
        _end_others(processes)
        return _exit_code(failed, processes, say)


def end_with_the_launcher() -> None:
    """In a launched process: SIGTERM to itself when the launcher is gone, however that ended."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _started(rank: int, size: int, meeting: socket.socket, argv: Sequence[str], say: Callable[[str], None]) -> _Process:
    try:
        return _Process(rank, size, meeting, argv, say)
    except OSError as error:
        problem = f"process {rank + 1} of {size} cannot be started ({reason_of(error)})"
        raise XnorNetError(f"-nGPU {size}: {problem}; try a smaller -nGPU") from error


def _environment(rank: int, size: int, meeting: socket.socket) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(meeting.getsockname()[1]),
        MEETING: "" if rank else str(meeting.fileno()),
        LAUNCHED: "1",
    }


def _passing_on(processes: Sequence[_Process]) -> Callable[[int, FrameType | None], None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                process.popen.send_signal(number)

    return on_signal


def _wait(processes: Sequence[_Process]) -> list[int]:
    """The numbers, from 0, of the processes that had failed when the first failure was seen; none when all are done.

    Where the machine is busy the others may have ended too by then, for want of the one that failed. One that was
    killed has not ended for want of another.
    """
    while True:
        codes = [process.popen.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed or None not in codes:
            killed = [rank for rank in failed if (codes[rank] or 0) < 0]
            return killed or failed
        time.sleep(POLL_SECONDS)


def _end_others(processes: Sequence[_Process]) -> None:
    end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, end - time.monotonic()))
    for process in processes:
        process.popen.kill()
        process.popen.wait()


def _exit_code(failed: Sequence[int], processes: Sequence[_Process], say: Callable[[str], None]) -> int:
    """That of the first process that failed, 128 + number for one that was killed.

    What others than the first of all have to say is shown where it is not what the first says too.
    """
    first = processes[0].said()
    for rank in failed:
        code, said = processes[rank].popen.returncode, processes[rank].said()
        who = f"process {rank + 1} of {len(processes)}"
        if code < 0:
            say(f"error: {who} was killed by {signal_name(-code)}")
        elif said != first:
            say(f"{who}: {said}")
    code = processes[failed[0]].popen.returncode
    return 128 - code if code < 0 else code


class _Process:
    """One of the processes, and what it writes on standard error, which for the first is passed on at once."""

    def __init__(
        self, rank: int, size: int, meeting: socket.socket, argv: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "xnornet_port", *argv],
            stdin=subprocess.PIPE,  # never written to: its end tells that this process is gone
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
            pass_fds=() if rank else (meeting.fileno(),),
            env=_environment(rank, size, meeting),
        )
        passed_on = say if rank == 0 else _say_nothing
        self._thread = threading.Thread(target=self._listen, args=(passed_on,), daemon=True)
        self._thread.start()

    def _listen(self, say: Callable[[str], None]) -> None:
        if self.popen.stderr is None:
            return
        with self.popen.stderr as lines:  # closed here: elsewhere that would wait for a data worker that hangs
            for line in lines:
                text = line.decode(errors="replace").rstrip("\n")
                self._lines.append(text)
                say(text)

    def close(self) -> None:
        """End it, at once."""
        self.popen.kill()
        self.popen.wait()
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        self._thread.join(timeout=1.0)

    def said(self) -> str:
        """All of it, when the process has ended."""
        self._thread.join(timeout=1.0)  # its data workers may hold the pipe a moment longer
        return "\n".join(self._lines).strip()


def _say_nothing(text: str) -> None:
    """What the others have to say is kept until one of them fails."""
