"""A data worker, one of the original's donkeys: a process that does nothing but make batches.

`donkeys.py` starts it as `python -m xnornet_port.donkey DESCRIPTOR`, with a socket to the main process under that
number, tells it what to load from (`pack_work`), and then asks for batches. It ends when the main process does.
"""

import mmap
import os
import socket
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from lua_compat import Generator
from xnornet_port.batches import BatchRequest, Loader
from xnornet_port.channel import Channel
from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.picture_watch import PictureWatch
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing
from xnornet_port.shared_arrays import Layout, allocate_memory, arrays_in, attach_memory, layout_size

__all__ = ["batch_layout", "pack_work"]


def pack_work(loader: Loader) -> tuple[dict[str, Any], int]:
    """What a worker needs but its stream: a message, and memory for all workers, whose descriptor the caller closes.

    Raises XnorNetError when there is no memory.
    """
    arrays = [*_dataset_arrays(loader.train), *_dataset_arrays(loader.test)]
    layout = [(array.dtype.str, array.shape) for array in arrays]
    try:
        descriptor, memory = allocate_memory(layout_size(layout))
    except OSError as error:
        raise XnorNetError(
            f"no memory to share the paths of the pictures with the workers ({reason_of(error)})"
        ) from error
    for place, array in zip(arrays_in(memory, layout), arrays, strict=True):
        place[...] = array
    message = {
        "layout": layout,
        "folders": [loader.train.folder, loader.test.folder],
        "classes": loader.train.classes,
        "settings": asdict(loader.settings),
    }
    return message, descriptor


def batch_layout(loader: Loader, request: BatchRequest) -> Layout:
    """The two arrays of a batch in shared memory: inputs and labels."""
    return [("<f4", loader.input_shape(request)), ("<i8", (request.size,))]


def _dataset_arrays(dataset: Dataset) -> list[np.ndarray[Any, Any]]:
    lengths = np.array([len(numbers) for numbers in dataset.sample_list], dtype=np.int64)
    return [dataset.image_path, dataset.image_class, np.concatenate(dataset.sample_list), lengths]


def _receive_memory(channel: Channel) -> tuple[dict[str, Any], mmap.mmap]:
    message, descriptor = channel.receive()
    if descriptor is None:
        raise EOFError
    memory = attach_memory(descriptor)
    os.close(descriptor)
    return message, memory


def _receive_work(channel: Channel) -> Loader:
    message, memory = _receive_memory(channel)
    arrays = arrays_in(memory, message["layout"])
    classes = tuple(message["classes"])
    train_folder, test_folder = message["folders"]
    settings = message["settings"]
    statistics = ChannelStatistics(**settings.pop("statistics"))
    return Loader(
        train=_dataset(train_folder, classes, arrays[:4]),
        test=_dataset(test_folder, classes, arrays[4:]),
        settings=Preprocessing(**settings, statistics=statistics),
        stream=Generator(0),  # its state comes in a message
    )


def _dataset(folder: str, classes: tuple[str, ...], arrays: list[np.ndarray[Any, Any]]) -> Dataset:
    image_path, image_class, numbers, lengths = arrays
    lists = tuple(np.split(numbers, np.cumsum(lengths)[:-1]))
    return Dataset(folder, classes, image_path, image_class, class_list=lists, sample_list=lists)


def _serve(channel: Channel, loader: Loader, watch: PictureWatch) -> None:
    """Answer requests one after the other, until the connection ends.

    A batch goes into a numbered slot of memory, which is used again when the main process is done with what was in it:
    new memory costs a quarter of the time to load a batch.
    """
    slots: dict[int, mmap.mmap] = {}
    while True:
        message, _ = channel.receive()
        if "stream" in message:
            loader.stream.state = bytes.fromhex(message["stream"])
        elif "refused" in message:
            loader.refused[bytes.fromhex(message["refused"])] = message["reason"]
        else:
            _make_batch(channel, loader, slots, message)
            watch.end()


def _make_batch(channel: Channel, loader: Loader, slots: dict[int, mmap.mmap], message: dict[str, Any]) -> None:
    start = time.perf_counter()
    request, slot = BatchRequest(*message["request"]), message["slot"]
    layout = batch_layout(loader, request)
    descriptor = None
    try:
        if message["new"]:
            descriptor, slots[slot] = _allocate(layout, request)
        inputs, labels = arrays_in(slots[slot], layout)
        faults = loader.fill(request, inputs, labels)
        seconds = time.perf_counter() - start
        channel.send({"faults": faults, "seconds": seconds, "stream": loader.stream.state.hex()}, descriptor)
    except XnorNetError as error:
        channel.send({"error": str(error)})
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _allocate(layout: Layout, request: BatchRequest) -> tuple[int, mmap.mmap]:
    try:
        return allocate_memory(layout_size(layout))
    except OSError as error:
        raise XnorNetError(f"no memory for a batch of {request.size} pictures ({reason_of(error)})") from error


def _main(descriptor: int) -> None:
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        loader = _receive_work(channel)
        watch = PictureWatch(_receive_memory(channel)[1])
        loader.on_picture = watch.begin
        _serve(channel, loader, watch)
    except (EOFError, ConnectionError):
        return  # the main process has closed the connection, or is gone


if __name__ == "__main__":
    _main(int(sys.argv[1]))
