"""Tensors and storages: type names follow the dtype, nothing is copied."""

import numpy as np
import pytest

import lua_compat
from lua_compat import CudaTensor, Storage, Tensor

NAMES = {
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
    "f2": "Half",
    "f4": "Float",
    "f8": "Double",
}


@pytest.mark.parametrize(("code", "name"), NAMES.items())
def test_type_names_follow_the_dtype(code: str, name: str) -> None:
    array = np.arange(6, dtype=code).reshape(2, 3)
    tensor = lua_compat.tensor(array)
    assert tensor.typename == f"torch.{name}Tensor"
    assert np.shares_memory(tensor, array)
    cuda_name = "torch.CudaTensor" if name == "Float" else f"torch.Cuda{name}Tensor"
    cuda = lua_compat.tensor(array, cuda_name)
    assert (type(cuda), cuda.typename) == (CudaTensor, cuda_name)
    assert lua_compat.storage(array.ravel()).typename == f"torch.{name}Storage"
    assert tensor[0, 1:].typename == tensor.typename


def test_results_of_arithmetic_have_their_own_type() -> None:
    tensor = lua_compat.tensor(np.ones(3, "f4"))
    assert (tensor > 0).typename == "torch.ByteTensor"
    assert tensor.astype("f8").typename == "torch.DoubleTensor"
    assert type(tensor.sum()) is np.float32
    assert type(tensor.reshape(3, 1).sum(axis=0)) is Tensor
    assert type(lua_compat.storage(np.ones(3)).sum()) is np.float64


def test_booleans_become_bytes() -> None:
    flags = np.array([True, False])
    assert lua_compat.tensor(flags).tolist() == [1, 0]
    assert lua_compat.tensor(flags).typename == "torch.ByteTensor"


def test_arrays_that_torch7_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="0-dimensional"):
        lua_compat.tensor(3.0)
    with pytest.raises(TypeError, match="no tensor of complex128"):
        lua_compat.tensor(np.ones(2, "c16"))
    with pytest.raises(TypeError, match=r"torch\.LongTensor holds int64, this array float32"):
        lua_compat.tensor(np.ones(2, "f4"), "torch.LongTensor")
    with pytest.raises(TypeError, match=r"unknown type 'torch\.CudaFloatTensor'"):
        lua_compat.tensor(np.ones(2, "f4"), "torch.CudaFloatTensor")
    with pytest.raises(ValueError, match="1-d and contiguous"):
        lua_compat.storage(np.ones((2, 2)))
    with pytest.raises(ValueError, match="1-d and contiguous"):
        lua_compat.storage(np.ones(4)[::2])
    assert isinstance(lua_compat.storage(np.ones(2)), Storage)
