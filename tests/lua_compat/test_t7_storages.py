"""Which arrays share a storage when written: Torch7's own tensors and plain NumPy arrays."""

import numpy as np
import pytest

import lua_compat
from lua_compat import LuaTable


def written(*arrays: np.ndarray) -> list[np.ndarray]:
    return lua_compat.loads(lua_compat.dumps(list(arrays))).to_list()


def test_overlapping_arrays_still_overlap() -> None:
    whole = np.arange(10.0)
    first, last, step = written(whole[:6], whole[4:], whole[1:9:2])
    assert (first.tolist(), last.tolist(), step.tolist()) == (
        [0, 1, 2, 3, 4, 5],
        [4, 5, 6, 7, 8, 9],
        [1, 3, 5, 7],
    )
    assert first.base is last.base is step.base
    first[5] = 50
    assert (last[1], step[2]) == (50, 50)


def test_only_the_memory_that_is_used_is_written() -> None:
    large = np.arange(100_000.0)
    (part,) = written(large[10:13])
    assert part.base.tolist() == [10, 11, 12]


def test_a_tensor_of_a_file_keeps_its_whole_storage() -> None:
    storage = lua_compat.storage(np.arange(8.0))
    (part,) = written(storage[2:4].view(lua_compat.Tensor))
    assert part.tolist() == [2, 3]
    assert part.base.tolist() == list(range(8))
    again = lua_compat.loads(lua_compat.dumps(LuaTable([part, part[1:]])))
    assert again[1].base is again[2].base


def test_equal_memory_seen_twice_is_one_storage() -> None:
    array = np.arange(3.0)
    storage, tensor = written(lua_compat.storage(array), lua_compat.tensor(lua_compat.storage(array)))
    assert tensor.base is storage


@pytest.mark.parametrize("order", ["C", "F"])
def test_strides_are_kept(order: str) -> None:
    array = np.array(np.arange(6.0).reshape(2, 3), order=order)
    (found,) = written(array)
    assert found.strides == array.strides
    assert np.array_equal(found, array)


def test_repeated_elements_stay_one_element() -> None:
    data = lua_compat.dumps(np.broadcast_to(np.float32(2), (1000, 1000)))
    assert len(data) < 200
    assert lua_compat.loads(data).shape == (1000, 1000)


def test_what_torch7_cannot_stride_is_copied() -> None:
    record = np.zeros(3, [("a", "i1"), ("b", "f8")])
    record["b"] = [1, 2, 3]
    backwards, odd = written(np.arange(4.0)[::-1], record["b"])
    assert (backwards.tolist(), backwards.strides) == ([3, 2, 1, 0], (8,))
    assert (odd.tolist(), odd.strides) == ([1, 2, 3], (8,))


def test_one_memory_as_two_types_is_two_storages() -> None:
    array = np.arange(4, dtype="i4")
    ints, floats = written(array, array.view("f4"))
    assert (ints.typename, floats.typename) == ("torch.IntTensor", "torch.FloatTensor")


def test_foreign_byte_order_is_turned() -> None:
    (found,) = written(np.arange(3, dtype=">f4"))
    assert (found.dtype, found.tolist()) == (np.dtype("f4"), [0, 1, 2])


def test_booleans_are_bytes_and_the_same_ones_stay_the_same() -> None:
    flags = np.array([True, False])
    one, other = written(flags, flags)
    assert one is other
    assert (one.typename, one.tolist()) == ("torch.ByteTensor", [1, 0])


def test_empty_tensors() -> None:
    bare, emptied = written(np.zeros(0), lua_compat.storage(np.arange(3.0))[3:].view(lua_compat.Tensor))
    assert (bare.shape, bare.base) == ((0,), None)
    assert emptied.shape == (0,)
    assert emptied.base.tolist() == [0, 1, 2]


def test_a_tensor_without_elements_keeps_its_shape() -> None:
    (found,) = written(np.zeros((3, 0)))
    assert found.shape == (3, 0)


def test_cuda_and_cpu_do_not_share() -> None:
    array = np.arange(3, dtype="f4")
    cpu, cuda = written(lua_compat.tensor(array), lua_compat.tensor(array, "torch.CudaTensor"))
    assert (cpu.typename, cuda.typename, cuda.base.typename) == (
        "torch.FloatTensor",
        "torch.CudaTensor",
        "torch.CudaStorage",
    )
