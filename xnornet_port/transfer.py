"""Batches on their way to a GPU while it computes: copied to pinned memory, and sent beside the computation.

And small things on their way there and back, without the host waiting for all that the GPU has still to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from xnornet_port.batches import Batch

__all__ = ["Copies", "CudaCopies", "Mover", "begin_to_host", "to_device"]


class Copies(Protocol):
    """What a `Mover` asks of a device; `CudaCopies`, or a test's stand-in.

    pinned: memory on the host that the device reads by itself. send: begin to copy it to the device; returns the tensor
    there and an event. finish: wait until that copy is over. receive: have the computation wait for it, not the host.
    """

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor: ...

    def send(self, pinned: torch.Tensor) -> tuple[torch.Tensor, Any]: ...

    def finish(self, event: Any) -> None: ...

    def receive(self, tensor: torch.Tensor, event: Any) -> None: ...


class CudaCopies:
    """Copies on a stream beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def send(self, pinned: torch.Tensor) -> tuple[torch.Tensor, Any]:
        with torch.cuda.stream(self._stream):
            tensor = pinned.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return tensor, event

    def finish(self, event: Any) -> None:
        event.synchronize()

    def receive(self, tensor: torch.Tensor, event: Any) -> None:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        tensor.record_stream(stream)  # its memory is not given away before the computation is done with it


@dataclass
class _Place:
    """A pinned block, and the event of the last copy from it."""

    memory: torch.Tensor
    event: Any = None


class Mover:
    """Sends batches one after the other, through two pinned blocks in turn."""

    N_PLACES = 2

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._places: list[_Place] = []
        self._next = 0

    def send(self, batch: Batch) -> Callable[[], Batch]:
        """Begin to send the inputs; the result, called where the computation is, gives the batch with them there."""
        inputs = torch.from_numpy(batch.inputs)
        place = self._place(inputs)
        place.memory.copy_(inputs)
        tensor, event = self._copies.send(place.memory)
        place.event = event

        def receive() -> Batch:
            self._copies.receive(tensor, event)
            return replace(batch, inputs=tensor)

        return receive

    def _place(self, inputs: torch.Tensor) -> _Place:
        """The next block, when the copy from it is over; a new one where the batch has another size."""
        number = self._next % self.N_PLACES
        self._next += 1
        if number == len(self._places):
            self._places.append(_Place(self._copies.pinned(inputs.shape, inputs.dtype)))
        place = self._places[number]
        if place.event is not None:
            self._copies.finish(place.event)
        if place.memory.shape != inputs.shape:
            place = self._places[number] = _Place(self._copies.pinned(inputs.shape, inputs.dtype))
        return place


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, for the computation that follows; the host does not wait for it."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def begin_to_host(tensor: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to fetch a few numbers; the result waits for them, and not for what is computed after this."""
    if not tensor.is_cuda:
        return tensor.tolist
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensor.device))

    def numbers() -> list[float]:
        event.synchronize()
        values: list[float] = pinned.tolist()
        return values

    return numbers
