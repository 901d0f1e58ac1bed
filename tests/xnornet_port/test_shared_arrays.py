"""Arrays in nameless shared memory."""

import os
from pathlib import Path

import numpy as np
import pytest

from xnornet_port import shared_arrays
from xnornet_port.shared_arrays import allocate_memory, arrays_in, attach_memory, layout_size

LAYOUT = [("<f4", (2, 3)), ("|i1", (5,)), ("<i8", (0,)), ("<i8", (4,))]


def test_both_sides_see_the_same_memory() -> None:
    descriptor, memory = allocate_memory(layout_size(LAYOUT))
    arrays, others = arrays_in(memory, LAYOUT), arrays_in(attach_memory(descriptor), LAYOUT)
    os.close(descriptor)
    assert [(array.dtype.str, array.shape) for array in others] == LAYOUT
    assert not any(array.any() for array in others)
    for number, array in enumerate(arrays, start=1):
        array[...] = number
    assert [np.unique(array).tolist() for array in others] == [[1], [2], [], [4]]
    del arrays, memory
    others[0] += 1  # the memory lives as long as an array on it
    assert (others[0] == 2).all()


def test_arrays_are_aligned() -> None:
    descriptor, memory = allocate_memory(layout_size(LAYOUT))
    os.close(descriptor)
    assert [array.ctypes.data % 64 for array in arrays_in(memory, LAYOUT)] == [0, 0, 0, 0]
    assert layout_size(LAYOUT) == 64 + 64 + 0 + 64


def test_without_memory_files_a_nameless_file_takes_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS."""
    monkeypatch.delattr(shared_arrays.os, "memfd_create")
    monkeypatch.setattr(shared_arrays.tempfile, "tempdir", str(tmp_path))
    test_both_sides_see_the_same_memory()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("count", [1 << 60, 1 << 62])  # 2**62 and 2**64 bytes
def test_more_than_there_is(count: int) -> None:
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(OSError, match=r".") as caught:
        allocate_memory(layout_size([("<f4", (count,))]))
    assert caught.value.strerror
    if open_files is not None:
        assert len(os.listdir("/proc/self/fd")) == open_files  # the descriptor is closed again
