"""What only the CPU backend has: code paths, threads, forks, and NumPy where nothing was built."""

import ctypes
import multiprocessing
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch

from xnornet_port import XnorNetError
from xnornet_port.kernels import (
    PackedWeights,
    Thresholds,
    cpu,
    cpu_numpy,
    load_backend,
    pack_input,
    pack_weights,
    xnor_conv2d,
    xnor_sign,
)
from xnornet_port.kernels.cpu import CpuBackend, available_paths
from xnornet_port.kernels.native_library import Call, Layer, Windows, load_library

needs_library = pytest.mark.skipif(not available_paths(), reason="the C library was not built (no compiler)")


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def signs(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_without_a_library_numpy_does_the_work_and_says_so() -> None:
    said: list[str] = []
    assert cpu.choose_backend(None, said.append) is cpu_numpy
    assert len(said) == 1
    assert "no C compiler" in said[0]
    assert "NumPy does the work" in said[0]


@needs_library
def test_with_a_library_nothing_is_said() -> None:
    said: list[str] = []
    chosen = cpu.choose_backend(load_library(), said.append)
    assert chosen == CpuBackend(available_paths()[0])
    assert not said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backend("cpu").pack_input(torch.ones(1, 1, 1, 1))


def test_an_unknown_code_path_is_refused() -> None:
    with pytest.raises(XnorNetError, match="'sse9' does not run here; those that do: "):
        CpuBackend("sse9")


@needs_library
def test_plain_c_is_always_there() -> None:
    assert available_paths()[-1] == "plain"


@needs_library
@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("path", available_paths())
@pytest.mark.parametrize("shape", [(1, 70, 21, 30), (5, 70, 21, 30), (40, 70, 1, 1)])
def test_threads_give_the_same(path: str, shape: tuple[int, ...]) -> None:
    """Pieces of pictures, pictures and panels of filters are shared out; the result is NumPy's."""
    backend, kernel = CpuBackend(path), 1 if shape[2] == 1 else 3
    packed = pack_weights(signs(150, 70, kernel, kernel, seed=2))
    x = signs(*shape)
    if len(x) == 5:
        x[3, 69, 20, 29] = 0
    for picture in (x, pack_input(x, backend)):
        result = xnor_conv2d(picture, packed, padding=kernel // 2, backend=backend)
        assert torch.equal(result, xnor_conv2d(picture, packed, padding=kernel // 2, backend=cpu_numpy))


@needs_library
@pytest.mark.usefixtures("four_threads")
def test_calls_from_several_threads_of_python() -> None:
    packed, x = pack_weights(signs(130, 64, 3, 3)), signs(4, 64, 20, 20)
    expected = xnor_conv2d(x, packed, padding=1, backend=cpu_numpy)
    equal: list[bool] = []

    def run() -> None:
        equal.extend(torch.equal(xnor_conv2d(x, packed, padding=1), expected) for _ in range(20))

    started = [threading.Thread(target=run) for _ in range(3)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert equal == [True] * 60


def run_in_child(x: torch.Tensor, packed: PackedWeights, answer: "multiprocessing.Queue[int]") -> None:
    """Nothing but the kernel: torch's own operations do wait for OpenMP's threads."""
    answer.put(int(xnor_conv2d(x, packed, padding=1).numpy().sum()))


@needs_library
@pytest.mark.usefixtures("four_threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_worker_does_not_hang() -> None:
    """OpenMP's threads are gone in a forked process; waiting for them would take for ever."""
    x, packed = torch.ones(2, 64, 20, 20), pack_weights(torch.ones(130, 64, 3, 3))
    in_parent = int(xnor_conv2d(x, packed, padding=1).numpy().sum())
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[int] = context.Queue()
    child = context.Process(target=run_in_child, args=(x, packed, answer))
    child.start()
    try:
        assert answer.get(timeout=30) == in_parent
    finally:
        child.kill()
        child.join()


@needs_library
def test_structures_have_the_sizes_of_c() -> None:
    """All fields are 8 bytes, in C too, so that their number is the size."""
    assert ctypes.sizeof(Layer) == 8 * len(Layer._fields_) == 8 * 21
    assert ctypes.sizeof(Windows) == 8 * len(Windows._fields_) == 8 * 8
    assert ctypes.sizeof(Call) == 8 * (len(Call._fields_) - 1) + ctypes.sizeof(Windows) == 8 * 21


@needs_library
def test_new_thresholds_are_not_mistaken_for_old_ones() -> None:
    packed, x = pack_weights(torch.ones(1, 1, 1, 1)), torch.ones(1, 1, 1, 1)
    for positive_from, bit in ((1, 0), (2, 1), (1, 0)):
        levels = (torch.tensor([n], dtype=torch.int32) for n in (positive_from, positive_from - 1))
        assert xnor_sign(x, packed, Thresholds(*levels, torch.tensor([False]))).signs.item() == bit


@needs_library
def test_threads_are_those_of_the_moment() -> None:
    packed, x, before = pack_weights(signs(130, 64, 3, 3)), signs(4, 64, 20, 20), torch.get_num_threads()
    expected = xnor_conv2d(x, packed, padding=1, backend=cpu_numpy)
    for threads in (1, 3, 1, 2):
        torch.set_num_threads(threads)
        found = xnor_conv2d(x, packed, padding=1)
        torch.set_num_threads(before)
        assert torch.equal(found, expected)


@needs_library
def test_results_lie_on_the_cpu_whatever_the_default_device() -> None:
    packed, x = pack_weights(torch.ones(1, 1, 1, 1)), torch.ones(1, 1, 1, 1)
    levels = Thresholds(torch.ones(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32), torch.tensor([False]))
    with torch.device("meta"):
        assert xnor_conv2d(x, packed).item() == 1
        assert pack_input(x).signs.item() == 0
        assert xnor_sign(x, packed, levels).signs.item() == 0


@needs_library
def test_many_sizes_do_not_pile_up() -> None:
    packed = pack_weights(signs(8, 8, 1, 1))
    for size in range(1, 80):
        xnor_conv2d(signs(1, 8, 1, size), packed)
    assert len(packed.prepared) < 40
