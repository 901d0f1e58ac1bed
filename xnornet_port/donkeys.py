"""Data workers, seen from the main process (data.lua). Batch k of a pass comes from worker (k mod n) + 1, in order.

Worker i draws from its own stream, seeded with manualSeed + i, which goes on through all epochs: two runs see the same
batches, whatever the speed of the workers (the original's order is a race: ledger row 17).

A worker that is killed, or hangs in a picture and is killed for it, is replaced: the new one starts from the stream's
state before the first batch that is missing, and so makes the batches the old one would have made.
"""

import contextlib
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from lua_compat import Generator
from xnornet_port.batches import Batch, BatchRequest, Fault, Loader
from xnornet_port.donkey import batch_layout, pack_work
from xnornet_port.donkey_process import DonkeyProcess, LostDonkey
from xnornet_port.errors import XnorNetError
from xnornet_port.shared_arrays import layout_size

__all__ = ["PICTURE_SECONDS", "DonkeyPool"]

PICTURE_SECONDS = 60.0
"""A picture that takes longer counts as unreadable."""

DEATHS_IN_A_PICTURE = 2
"""A picture in which so many workers were killed counts as unreadable."""

DEATHS_IN_A_ROW = 3
"""So many workers killed without a batch made, nor a picture found guilty, end the run."""

AHEAD_BYTES = 2 << 30
"""Batches are asked for ahead of their use: two per worker, fewer (but one) where that is more memory than this."""


def _say_nothing(text: str) -> None:
    """Nobody wants to know."""


class DonkeyPool:
    """Worker processes that make batches ahead of their use. Close it, or use it in a `with` statement.

    Workers have a session of their own, so that Ctrl-C reaches the main process only. They end with the main process,
    however that ends.
    """

    def __init__(
        self,
        loader: Loader,
        manual_seed: int,
        n_donkeys: int,
        picture_seconds: float = PICTURE_SECONDS,
        say: Callable[[str], None] = _say_nothing,
    ) -> None:
        """Start `n_donkeys` processes that load what `loader` does, each from its own stream.

        picture_seconds: how long a picture may take. say: told in a line when a worker is replaced. Raises XnorNetError
        when they cannot be started.
        """
        if not hasattr(socket, "send_fds"):
            raise XnorNetError("-nDonkeys above 0 needs Linux, macOS or another Unix; use -nDonkeys 0")
        self._loader = loader
        self._donkeys: list[DonkeyProcess] = []
        self._streams = [Generator(manual_seed + number).state for number in range(1, n_donkeys + 1)]
        self._pass = 0
        self._picture_seconds = picture_seconds
        self._say = say
        self._refused: dict[bytes, str] = {}
        self._deaths_in: Counter[bytes] = Counter()
        self._deaths_in_a_row = 0
        self._work, descriptor = pack_work(loader)
        self._memory = os.fdopen(descriptor, "rb")
        try:
            for number, stream in enumerate(self._streams, start=1):
                self._donkeys.append(self._started(number, stream))
        except LostDonkey as lost:
            self.close()
            raise XnorNetError(str(lost)) from lost
        except BaseException:
            self.close()
            raise

    def _started(self, number: int, stream: bytes) -> DonkeyProcess:
        """A new worker that draws from `stream` on."""
        donkey = DonkeyProcess(number)
        try:
            donkey.send(self._work, self._memory.fileno())
            donkey.watch_over()
            donkey.send({"stream": stream.hex()})
            for path, reason in self._refused.items():
                donkey.send({"refused": path.hex(), "reason": reason})
        except BaseException:
            donkey.stop()
            raise
        return donkey

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
        when a worker fails, or one after the other is killed; the pool is then closed.
        """
        self._pass += 1
        this_pass = self._pass
        ahead = self._how_far_ahead(requests)
        asked = first
        try:
            self._drop_made_ahead()
            for k in range(first, len(requests)):
                while asked < min(len(requests), k + ahead):
                    self._ask(asked % len(self._donkeys), requests[asked])
                    asked += 1
                yield self._take(k, requests[k])
                if self._pass != this_pass:
                    raise RuntimeError("this pass cannot go on: a later one has begun, or the workers were closed")
        except (XnorNetError, KeyboardInterrupt):
            self.close()  # a message may be half read
            raise

    def _ask(self, worker: int, request: BatchRequest) -> None:
        size = layout_size(batch_layout(self._loader, request))
        while True:
            try:
                return self._donkeys[worker].ask(request, size)
            except LostDonkey as lost:
                self._replace(worker, lost)

    def _take(self, k: int, request: BatchRequest) -> Batch:
        worker = k % len(self._donkeys)
        while True:
            try:
                message, slot = self._donkeys[worker].take(self._picture_seconds)
                break
            except LostDonkey as lost:
                self._replace(worker, lost)
        inputs, labels = self._donkeys[worker].lend(slot, batch_layout(self._loader, request))
        self._streams[worker] = bytes.fromhex(message["stream"])
        self._deaths_in_a_row = 0
        faults = tuple(Fault(*fault) for fault in message["faults"])
        n_others = request.before + request.after
        return Batch(inputs, labels, faults, message["seconds"], self._streams[worker], n_others)

    def _replace(self, worker: int, lost: LostDonkey, goes_on: bool = True) -> None:
        """Start a new worker in the place of a lost one and, if the pass `goes_on`, have it make what is missing."""
        old = self._donkeys[worker]
        old.stop()
        self._deaths_in_a_row += 1
        self._blame(lost)
        if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise XnorNetError(f"{lost}; {self._deaths_in_a_row} in a row, the run cannot go on")
        self._say(f"{lost}; a new one takes its place")
        requests = list(old.requests) if goes_on else []
        try:
            self._donkeys[worker] = self._started(old.number, self._streams[worker])
            for request in requests:
                self._donkeys[worker].ask(request, layout_size(batch_layout(self._loader, request)))
        except LostDonkey as again:
            raise XnorNetError(str(again)) from again

    def _blame(self, lost: LostDonkey) -> None:
        """Refuse the picture the worker was at if it hung there, or if others were killed there before."""
        if not lost.path or lost.path in self._refused:
            return
        self._deaths_in[lost.path] += 1
        name = os.fsdecode(lost.path)
        if lost.is_hanging:
            reason = f"{name}: not read after {self._picture_seconds:g} s"
        elif self._deaths_in[lost.path] >= DEATHS_IN_A_PICTURE:
            reason = f"{name}: {DEATHS_IN_A_PICTURE} data workers were killed while they read it"
        else:
            return
        self._deaths_in_a_row = 0
        self._refused[lost.path] = reason
        for donkey in self._donkeys:
            with contextlib.suppress(LostDonkey):  # it is replaced when its turn comes
                donkey.send({"refused": lost.path.hex(), "reason": reason})

    def _how_far_ahead(self, requests: Sequence[BatchRequest]) -> int:
        count = len(self._donkeys)
        # Of a pass only the last batch may be smaller.
        largest = math.prod(self._loader.input_shape(requests[0])) * 4 if requests else 1
        return min(max(AHEAD_BYTES // largest, count), 2 * count)

    def _drop_made_ahead(self, restore_all: bool = False) -> None:
        if not self._donkeys:
            raise RuntimeError("the data workers have been closed")
        for worker, (donkey, stream) in enumerate(zip(self._donkeys, self._streams, strict=True)):
            if donkey.asked or restore_all:
                try:
                    while donkey.asked:
                        _, slot = donkey.take(self._picture_seconds)
                        donkey.free.append(slot)
                    donkey.send({"stream": stream.hex()})
                except LostDonkey as lost:
                    self._replace(worker, lost, goes_on=False)

    def close(self) -> None:
        """End the workers, at once."""
        donkeys, self._donkeys = self._donkeys, []  # first: a thread that fetches ahead replaces none of them
        for donkey in donkeys:
            donkey.stop()
        self._memory.close()
        self._pass += 1

    def __enter__(self) -> "DonkeyPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
