"""Several processes train one network, each with a part of every batch: nn.DataParallelTable on torch.distributed.

As there the batch is split in order, each replica normalises over its own part (batch normalisation), the gradients of
the loss over the whole batch are added up, and the first replica is the one that is saved. Every process then makes the
same update from the same gradients. Testing is split as well; all replicas test with the first one's running
statistics, those of the saved network.

`launch.py` starts the processes of one machine for -nGPU; torchrun starts those of several.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.launch import MEETING
from xnornet_port.metrics import Scores

__all__ = ["ALONE", "Place", "Replicas", "join", "place_of"]

# How long the others wait for a process that is there but says nothing. One that has ended is noticed at once.
SILENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is, from 0, of all and on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


class Replicas:
    """This process among those that train together; alone, everything is passed through unchanged."""

    def __init__(self, place: Place = Place(), messages: dist.ProcessGroup | None = None) -> None:
        """`messages`: the group for small things, on the CPU whatever the network is on."""
        self.rank = place.rank
        self.size = place.size
        self._messages = messages

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.rank == 0

    def part(self, n_pictures: int) -> tuple[int, int]:
        """(first from 0, end) of this process's part of a batch, as DataParallelTable.lua's sliceRange."""
        first, end = (math.ceil(k * n_pictures / self.size) for k in (self.rank, self.rank + 1))
        return first, end

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network for training passes: gradients become the mean over the processes, parameters the first one's."""
        if self.size == 1:
            return network
        with self._noticing_a_loss():
            return DistributedDataParallel(network, forward_sync_buffers=False)

    def loss_weight(self, n_own: int, n_others: int) -> float:
        """What to weigh the mean loss of the own part with, so that the mean gradient is that of the whole batch."""
        return n_own * self.size / (n_own + n_others)

    def backward(self, loss: torch.Tensor, weight: float) -> None:
        """Gradients of the weighted loss, exchanged between the processes on the way."""
        with self._noticing_a_loss():
            loss.backward(torch.full_like(loss, weight))  # type: ignore[no-untyped-call]

    def combine(self, own: Scores) -> Scores:
        """Scores of the whole batch from those of the parts."""
        if self.size == 1:
            return own
        n = own.n_pictures
        loss, top1, top5, total = self._sum([own.loss * n if n else 0.0, own.top1 * n, own.top5 * n, float(n)])
        return Scores(loss / total, top1 / total, top5 / total, n_batches=1, n_pictures=round(total))

    def any(self, own: bool) -> bool:
        """Whether it is so in any process: all stop after the same batch."""
        return own if self.size == 1 else self._sum([float(own)])[0] > 0

    def wait(self) -> None:
        """Until all processes have come here."""
        self.any(False)

    def gather(self, own: bytes) -> list[bytes]:
        """The bytes of every process, as many from each."""
        if self.size == 1:
            return [own]
        mine = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with self._noticing_a_loss():
            dist.all_gather(parts, mine, group=self._messages)
        return [part.numpy().tobytes() for part in parts]

    def firsts_text(self, own: str) -> str:
        """The first process's text in place of the own one; up to 4096 bytes, as long as a path may be."""
        return os.fsdecode(self.gather(os.fsencode(own)[:4096].ljust(4096, b"\0"))[0].rstrip(b"\0"))

    def take_the_firsts_statistics(self, network: nn.Module) -> None:
        """The running statistics of the first replica, which is the one that is saved."""
        if self.size > 1:
            with self._noticing_a_loss(), torch.no_grad():
                for buffer in network.buffers():
                    dist.broadcast(buffer, 0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block before the others do: it makes the files that they find."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def _sum(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        with self._noticing_a_loss():
            dist.all_reduce(total, group=self._messages)
        values = total.tolist()
        return values

    @contextmanager
    def _noticing_a_loss(self) -> Iterator[None]:
        """XnorNetError where another process has ended or is silent; other errors as they are."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
                raise XnorNetError(
                    f"process {self.rank + 1} of {self.size} has lost another one ({reason_of(error)})"
                ) from error
            raise


ALONE = Replicas()


def place_of(environment: Mapping[str, str]) -> Place | None:
    """What torchrun, or launch.py, tells a process; None where nothing started it as one of several.

    Raises XnorNetError for numbers that cannot be.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        raise XnorNetError(f"RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE of the environment: {error}") from error
    if not 0 <= rank < size or not 0 <= local_rank < local_size:
        raise XnorNetError(
            f"RANK {rank}, WORLD_SIZE {size}, LOCAL_RANK {local_rank}, LOCAL_WORLD_SIZE {local_size} "
            "of the environment cannot be"
        )
    return Place(rank, size, local_rank, local_size)


@contextmanager
def join(place: Place | None, device: torch.device) -> Iterator[Replicas]:
    """Meet the other processes (MASTER_ADDR and MASTER_PORT of the environment); alone where there are none."""
    if place is None or place.size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        _meet("nccl" if device.type == "cuda" else "gloo", place, os.environ)
        messages = dist.new_group(backend="gloo", timeout=SILENCE)
    except (RuntimeError, ValueError) as error:
        master = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise XnorNetError(
            f"process {place.rank + 1} of {place.size} does not find the others at {master} ({reason_of(error)})"
        ) from error
    try:
        yield Replicas(place, messages)
    finally:
        dist.destroy_process_group()


def _meet(backend: str, place: Place, environment: Mapping[str, str]) -> None:
    """Where `launch` started the processes, the first has its socket open since before it started."""
    if MEETING not in environment:  # torchrun did, and has a store of its own
        dist.init_process_group(backend, timeout=SILENCE)
        return
    store = dist.TCPStore(  # type: ignore[attr-defined]
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        place.size,
        is_master=place.rank == 0,
        timeout=SILENCE,
        master_listen_fd=int(environment[MEETING]) if place.rank == 0 else None,
    )
    dist.init_process_group(backend, timeout=SILENCE, store=store, rank=place.rank, world_size=place.size)
