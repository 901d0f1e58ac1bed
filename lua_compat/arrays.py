"""Tensors and storages: NumPy arrays that know their Torch7 type names.

A type name follows from the element type and from whether the array came from a GPU, so that it is always
right, whatever NumPy makes of the array.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat.t7_format import ELEMENT_NAMES, STORAGE_TYPES, TENSOR_TYPES

__all__ = ["CudaStorage", "CudaTensor", "Storage", "Tensor", "storage", "tensor", "torch_typename"]


class Tensor(np.ndarray[Any, np.dtype[Any]]):
    """A tensor: a NumPy array that knows its Torch7 type name.

    Read from a file it is a view of its `Storage` (`.base`), shared with the other tensors on that storage.
    An empty tensor (no dimensions in Torch7) has shape (0,). The type name follows the dtype, so
    `t.astype("f8")` is a torch.DoubleTensor.
    """

    __slots__ = ()

    @property
    def typename(self) -> str:
        """Torch7's class name, such as "torch.FloatTensor". TypeError where Torch7 has no such element
        type.
        """
        return torch_typename(self.dtype, is_cuda=False, suffix="Tensor")

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Give plain numbers, not 0-dimensional tensors, out of sums and the like."""
        return array[()] if return_scalar else array.view(type(self))


class CudaTensor(Tensor):
    """A tensor that was saved from a GPU. Same data; torch.CudaTensor holds float32."""

    __slots__ = ()

    @property
    def typename(self) -> str:
        return torch_typename(self.dtype, is_cuda=True, suffix="Tensor")


class Storage(np.ndarray[Any, np.dtype[Any]]):
    """A storage: the 1-d memory that tensors are views of."""

    __slots__ = ()

    @property
    def typename(self) -> str:
        """Torch7's class name, such as "torch.FloatStorage". TypeError where Torch7 has no such element
        type.
        """
        return torch_typename(self.dtype, is_cuda=False, suffix="Storage")

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else array.view(type(self))


class CudaStorage(Storage):
    """A storage that was saved from a GPU."""

    __slots__ = ()

    @property
    def typename(self) -> str:
        return torch_typename(self.dtype, is_cuda=True, suffix="Storage")


def torch_typename(dtype: np.dtype[Any], is_cuda: bool, suffix: str) -> str:
    """Torch7's class name for an element type; TypeError where it has none (complex, uint16, ...)."""
    name = ELEMENT_NAMES.get(dtype.str[1:])
    if name is None:
        raise TypeError(f"Torch7 has no {suffix.lower()} of {dtype}; convert it, e.g. .astype('float64')")
    if is_cuda:
        name = "Cuda" if name == "Float" else f"Cuda{name}"
    return f"torch.{name}{suffix}"


def tensor(array: npt.ArrayLike, typename: str | None = None) -> Tensor:
    """`array` as a `Tensor` on the same memory (a NumPy array is not copied).

    `typename`, such as "torch.CudaTensor", must fit the array's dtype. TypeError where it does not, or
    where Torch7 has no such element type; ValueError for a 0-dimensional array, which Torch7 does not have.
    """
    values = np.asarray(array)
    if values.ndim == 0:
        raise ValueError("Torch7 has no 0-dimensional tensors: use a number, or an array of shape (1,)")
    kind = array_class(values.dtype, typename, TENSOR_TYPES, (Tensor, CudaTensor))
    wrapped: Tensor = view_as(values, kind)
    return wrapped


def storage(array: npt.ArrayLike, typename: str | None = None) -> Storage:
    """`array`, which must be 1-d and contiguous, as a `Storage` on the same memory. Errors as `tensor`."""
    values = np.asarray(array)
    if values.ndim != 1 or not values.flags.c_contiguous:
        raise ValueError(f"a storage is 1-d and contiguous, not {values.shape} with strides {values.strides}")
    kind = array_class(values.dtype, typename, STORAGE_TYPES, (Storage, CudaStorage))
    wrapped: Storage = view_as(values, kind)
    return wrapped


def view_as(values: npt.NDArray[Any], kind: type[Any]) -> Any:
    """View as a Torch class; booleans become the bytes that Torch7 has for them."""
    return (values.view(np.uint8) if values.dtype == np.bool_ else values).view(kind)


def array_class(
    dtype: np.dtype[Any], typename: str | None, known: Mapping[str, Any], classes: tuple[type[Any], type[Any]]
) -> type[Any]:
    """The CPU or the CUDA class, having checked that `typename` is known and fits `dtype`."""
    plain, cuda = classes
    own_name = torch_typename(dtype, is_cuda=False, suffix=plain.__name__)
    if typename is None or typename == own_name:
        return plain
    if typename not in known:
        raise TypeError(f"unknown type {typename!r}; known: {', '.join(known)}")
    if torch_typename(dtype, is_cuda=True, suffix=plain.__name__) != typename:
        raise TypeError(f"{typename} holds {known[typename].dtype}, this array {dtype}: use .astype() first")
    return cuda
