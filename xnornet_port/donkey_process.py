"""One data worker, seen from the main process: its process, the connection to it, the memory of its batches."""

import mmap
import os
import select
import subprocess
import sys
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from xnornet_port.batches import BatchRequest
from xnornet_port.channel import Channel
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.interrupt import signal_name
from xnornet_port.picture_watch import WATCH_BYTES, PictureWatch
from xnornet_port.shared_arrays import Layout, allocate_memory, arrays_in, attach_memory

__all__ = ["DonkeyProcess", "LostDonkey"]

STOP_SECONDS = 5.0
LOOK_SECONDS = 0.5  # between looks at a worker that is waited for


class LostDonkey(Exception):
    """A worker that will make no more batches: what happened, and the picture it was at (empty: none)."""

    def __init__(self, what: str, path: bytes, is_hanging: bool) -> None:
        super().__init__(what)
        self.path = path
        self.is_hanging = is_hanging


class DonkeyProcess:
    """One worker process, the connection to it, and the slots of memory it puts batches into."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked: deque[int] = deque()  # slots of the batches asked for and not yet taken
        self.requests: deque[BatchRequest] = deque()  # these batches
        self.free: deque[int] = deque()  # slots nobody uses
        self._slots: list[mmap.mmap | None] = []
        self._watch: PictureWatch | None = None
        try:
            self.channel, self.process = _start_process()
        except OSError as error:
            raise XnorNetError(
                f"data worker {number} cannot be started ({reason_of(error)}); try a smaller -nDonkeys"
            ) from error

    def watch_over(self) -> None:
        """Give the worker memory to note its pictures in."""
        try:
            descriptor, memory = allocate_memory(WATCH_BYTES)
        except OSError as error:
            raise XnorNetError(f"no memory for data worker {self.number} ({reason_of(error)})") from error
        try:
            self.send({}, descriptor)
        finally:
            os.close(descriptor)
        self._watch = PictureWatch(memory)

    def ask(self, request: BatchRequest, size: int) -> None:
        """Have a batch of `size` bytes made."""
        if not self.free:
            self.free.append(len(self._slots))
            self._slots.append(None)
        slot = self.free.popleft()
        memory = self._slots[slot]
        self.send({"request": request, "slot": slot, "new": memory is None or len(memory) < size})
        self.asked.append(slot)
        self.requests.append(request)

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        try:
            self.channel.send(message, descriptor)
        except OSError as error:
            raise self._lost() from error

    def take(self, picture_seconds: float) -> tuple[dict[str, Any], int]:
        """The oldest batch asked for: its message and its slot.

        Raises LostDonkey when the worker is gone or hangs in a picture, XnorNetError for what it complains of.
        """
        self._wait(picture_seconds)
        try:
            message, descriptor = self.channel.receive()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if "error" in message:
            raise XnorNetError(f"data worker {self.number}: {message['error']}")
        slot = self.asked.popleft()
        self.requests.popleft()
        if descriptor is not None:
            self._slots[slot] = self._attached(descriptor)
        return message, slot

    def _wait(self, picture_seconds: float) -> None:
        """Until the worker has something to say.

        What counts is the time spent watching: not what passes while this process itself was stopped.
        """
        seen, seconds = None, 0.0
        while not select.select([self.channel], [], [], LOOK_SECONDS)[0]:
            note = self._watch.look() if self._watch else None
            seconds = seconds + LOOK_SECONDS if note == seen else 0.0
            seen = note
            if seconds >= picture_seconds:
                path = note[1] if note else b""
                where = f"hung in {os.fsdecode(path)}" if path else "hung"
                what = f"{self._who()} {where}, for more than {picture_seconds:g} s, and was killed"
                raise LostDonkey(what, path, is_hanging=True)

    def lend(self, slot: int, layout: Layout) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The inputs and labels in a slot, which is free again when nothing refers to the inputs any more."""
        memory = self._slots[slot]
        if memory is None:
            raise XnorNetError(f"data worker {self.number} sent no memory with its batch")
        inputs, labels = arrays_in(memory, layout)
        weakref.finalize(inputs, self.free.append, slot).atexit = False
        return inputs, labels.copy()

    def _attached(self, descriptor: int) -> mmap.mmap:
        try:
            return attach_memory(descriptor)
        except OSError as error:
            raise XnorNetError(f"no room for a batch of data worker {self.number} ({reason_of(error)})") from error
        finally:
            os.close(descriptor)

    def _who(self) -> str:
        return f"data worker {self.number} (process {self.process.pid})"

    def _lost(self) -> LostDonkey:
        """What happened to a worker that no longer answers. Raises XnorNetError where a new one would do no better."""
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise XnorNetError(f"{self._who()} closed its connection") from None
        if code >= 0:
            raise XnorNetError(f"{self._who()} ended with exit code {code}; what it printed is above") from None
        name = signal_name(-code)
        hint = " (no memory left? Try a smaller -nDonkeys or -batchSize)" if name in ("SIGKILL", "SIGBUS") else ""
        path = self._watch.look()[1] if self._watch else b""
        return LostDonkey(f"{self._who()} was killed by {name}{hint}", path, is_hanging=False)

    def stop(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


def _start_process() -> tuple[Channel, "subprocess.Popen[bytes]"]:
    """A worker finds modules where this process does, and computes in one thread."""
    search_path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    channel, far = Channel.pair()
    with far:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "xnornet_port.donkey", str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": search_path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except OSError:
            channel.close()
            raise
    return channel, process
