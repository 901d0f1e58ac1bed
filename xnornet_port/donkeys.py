"""Data workers, seen from the main process (data.lua). Batch k of a pass comes from worker (k mod n) + 1, in order.

Worker i draws from its own stream, seeded with manualSeed + i, which goes on through all epochs: two runs see the same
batches, whatever the speed of the workers (the original's order is a race: ledger row 17).
"""

import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat import Generator
from xnornet_port.batches import Batch, BatchRequest, Fault, Loader
from xnornet_port.channel import Channel
from xnornet_port.donkey import batch_layout, pack_work
from xnornet_port.errors import XnorNetError
from xnornet_port.shared_arrays import Layout, arrays_in, attach_memory, layout_size

__all__ = ["DonkeyPool"]

AHEAD_BYTES = 2 << 30
"""Batches are asked for ahead of their use: two per worker, fewer (but one) where that is more memory than this."""

STOP_SECONDS = 5.0


class DonkeyPool:
    """Worker processes that make batches ahead of their use. Close it, or use it in a `with` statement.

    Workers have a session of their own, so that Ctrl-C reaches the main process only. They end with the main process,
    however that ends.
    """

    def __init__(self, loader: Loader, manual_seed: int, n_donkeys: int) -> None:
        """Start `n_donkeys` processes that load what `loader` does, each from its own stream.

        Raises XnorNetError when they cannot be started.
        """
        if not hasattr(socket, "send_fds"):
            raise XnorNetError("-nDonkeys above 0 needs Linux, macOS or another Unix; use -nDonkeys 0")
        self._loader = loader
        self._donkeys: list[_Donkey] = []
        self._streams: list[bytes] = []  # after the last batch handed out, one per worker
        self._pass = 0
        try:
            message, descriptor = pack_work(loader)
            with os.fdopen(descriptor, "rb"):  # closes it
                for number in range(1, n_donkeys + 1):
                    seed = manual_seed + number
                    self._donkeys.append(_Donkey(number))
                    self._donkeys[-1].send({**message, "seed": seed}, descriptor)
                    self._streams.append(Generator(seed).state)
        except BaseException:
            self.close()
            raise

    @property
    def streams(self) -> list[bytes]:
        """State of each worker's stream after its last batch handed out, whatever it has made ahead."""
        return list(self._streams)

    @streams.setter
    def streams(self, states: Sequence[bytes]) -> None:
        if len(states) != len(self._donkeys):
            raise XnorNetError(f"{len(states)} random streams for {len(self._donkeys)} data workers (-nDonkeys)")
        self._pass += 1
        self._streams = list(states)
        self._drop_made_ahead(restore_all=True)

    def batches(self, requests: Sequence[BatchRequest], first: int = 0) -> Iterator[Batch]:
        """The batches of one pass, from request `first` (from 0) on, in order.

        Ends any earlier pass: what its workers have made ahead is dropped and not counted as drawn. Raises XnorNetError
        when a worker fails or is killed; the pool is then closed.
        """
        self._pass += 1
        this_pass = self._pass
        ahead = self._how_far_ahead(requests)
        asked = first
        try:
            self._drop_made_ahead()
            for k in range(first, len(requests)):
                while asked < min(len(requests), k + ahead):
                    size = layout_size(batch_layout(self._loader, requests[asked]))
                    self._donkeys[asked % len(self._donkeys)].ask(requests[asked], size)
                    asked += 1
                yield self._take(k, requests[k])
                if self._pass != this_pass:
                    raise RuntimeError("this pass cannot go on: a later one has begun, or the workers were closed")
        except (XnorNetError, KeyboardInterrupt):
            self.close()  # a message may be half read
            raise

    def _take(self, k: int, request: BatchRequest) -> Batch:
        worker = k % len(self._donkeys)
        message, slot = self._donkeys[worker].take()
        inputs, labels = self._donkeys[worker].lend(slot, batch_layout(self._loader, request))
        self._streams[worker] = bytes.fromhex(message["stream"])
        faults = tuple(Fault(*fault) for fault in message["faults"])
        return Batch(inputs, labels, faults, message["seconds"], self._streams[worker])

    def _how_far_ahead(self, requests: Sequence[BatchRequest]) -> int:
        count = len(self._donkeys)
        largest = max((math.prod(self._loader.input_shape(request)) * 4 for request in requests), default=1)
        return min(max(AHEAD_BYTES // largest, count), 2 * count)

    def _drop_made_ahead(self, restore_all: bool = False) -> None:
        if not self._donkeys:
            raise RuntimeError("the data workers have been closed")
        for donkey, stream in zip(self._donkeys, self._streams, strict=True):
            if donkey.asked or restore_all:
                while donkey.asked:
                    _, slot = donkey.take()
                    donkey.free.append(slot)
                donkey.send({"stream": stream.hex()})

    def close(self) -> None:
        """End the workers, at once."""
        for donkey in self._donkeys:
            donkey.stop()
        self._donkeys = []
        self._pass += 1

    def __enter__(self) -> "DonkeyPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Donkey:
    """One worker process, the connection to it, and the slots of memory it puts batches into."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked: deque[int] = deque()  # slots of the batches asked for and not yet taken
        self.free: deque[int] = deque()  # slots nobody uses
        self._slots: list[mmap.mmap | None] = []
        try:
            self.channel, self.process = _start_process()
        except OSError as error:
            raise XnorNetError(f"data worker {number} cannot be started ({error}); try a smaller -nDonkeys") from error

    def ask(self, request: BatchRequest, size: int) -> None:
        """Have a batch of `size` bytes made."""
        if not self.free:
            self.free.append(len(self._slots))
            self._slots.append(None)
        slot = self.free.popleft()
        memory = self._slots[slot]
        self.send({"request": request, "slot": slot, "new": memory is None or len(memory) < size})
        self.asked.append(slot)

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        try:
            self.channel.send(message, descriptor)
        except OSError as error:
            raise XnorNetError(self._obituary()) from error

    def take(self) -> tuple[dict[str, Any], int]:
        """The oldest batch asked for: its message and its slot."""
        try:
            message, descriptor = self.channel.receive()
        except (EOFError, OSError) as error:
            raise XnorNetError(self._obituary()) from error
        if "error" in message:
            raise XnorNetError(f"data worker {self.number}: {message['error']}")
        slot = self.asked.popleft()
        if descriptor is not None:
            self._slots[slot] = self._attached(descriptor)
        return message, slot

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
            raise XnorNetError(f"no room for a batch of data worker {self.number} ({error.strerror})") from error
        finally:
            os.close(descriptor)

    def _obituary(self) -> str:
        """What happened to a worker that no longer answers."""
        who = f"data worker {self.number} (process {self.process.pid})"
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{who} closed its connection"
        if code >= 0:
            return f"{who} ended with exit code {code}; what it printed is above"
        name = signal.Signals(-code).name
        hint = "; no memory left? Try a smaller -nDonkeys or -batchSize" if name in ("SIGKILL", "SIGBUS") else ""
        return f"{who} was killed by {name}{hint}"

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
