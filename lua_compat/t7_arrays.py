"""Tensors and storages, from a file to arrays.

Ports torch7 generic/Tensor.c and generic/Storage.c (read), and cutorch's, which write the same from a GPU.
Torch7 does not check that a tensor lies within its storage; here one that does not is refused.
"""

from typing import Any, NamedTuple

import numpy as np

from lua_compat.errors import T7Error
from lua_compat.t7_format import CPU_TYPES, CUDA_TYPES, ElementType, Tag
from lua_compat.t7_source import MISSING, Source
from lua_compat.values import CudaStorage, CudaTensor, LuaValue, Storage, Tensor

__all__ = ["ARRAY_CLASSES", "ArrayClass", "read_array"]

MOST_DIMENSIONS = 64  # NumPy's own limit; Torch7 has none, and nobody came near it
NIL = int(Tag.NIL)  # members of an IntEnum are slow to look up
TORCH = int(Tag.TORCH)


class ArrayClass(NamedTuple):
    """A Torch7 class of tensors or storages and what it is here."""

    typename: str
    element: ElementType
    kind: type[Any]
    storage: "ArrayClass | None"  # the class of a tensor's storage; None for storages


def array_classes() -> dict[str, ArrayClass]:
    """All of them by name."""
    classes = {}
    for types, tensor_kind, storage_kind in ((CPU_TYPES, Tensor, Storage), (CUDA_TYPES, CudaTensor, CudaStorage)):
        for stem, element in types.items():
            storage = ArrayClass(f"{stem}Storage", element, storage_kind, None)
            tensor = ArrayClass(f"{stem}Tensor", element, tensor_kind, storage)
            classes[storage.typename] = storage
            classes[tensor.typename] = tensor
    return classes


ARRAY_CLASSES = array_classes()


def read_array(source: Source, memo: dict[int, LuaValue], index: int, array_class: ArrayClass) -> Any:
    """The tensor or storage whose class name was just read; `index` is its number in the memo."""
    if array_class.storage is None:
        return read_storage(source, array_class)
    start = source.position
    sizes, strides, offset, tag, storage_index = read_geometry(source)
    storage = None
    if tag != NIL:
        storage = read_tensor_storage(source, memo, index, array_class.storage, tag, storage_index)
    problem = geometry_problem(sizes, strides, offset, storage)
    if source.layout.is_guess and 0 in sizes:
        # Torch7 has no such tensors: they are longs of 8 bytes, read as two of 4.
        problem = f"expected sizes of 1 or more, found {sizes}; if this is right, give long_size"
    if problem:
        raise T7Error(f"{array_class.typename}: {problem}", position=start)
    try:
        return view_on(storage, array_class, sizes, strides, offset)
    except (ValueError, OverflowError) as error:  # more elements, or longer strides, than NumPy has numbers for
        raise T7Error(f"{array_class.typename} of sizes {sizes}, strides {strides}: {error}", position=start) from None


def view_on(
    storage: Storage | None, array_class: ArrayClass, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Tensor:
    """A tensor on its storage; one without dimensions is an array of shape (0,)."""
    shape = sizes or (0,)
    tensor: Tensor
    if storage is None:
        tensor = np.ndarray.__new__(array_class.kind, shape, array_class.element.dtype)
        return tensor
    size = storage.itemsize
    byte_strides = None if strides in ((), (1,)) else [stride * size for stride in strides]
    tensor = np.ndarray.__new__(array_class.kind, shape, storage.dtype, storage, offset * size, byte_strides)
    return tensor


def read_geometry(source: Source) -> tuple[tuple[int, ...], tuple[int, ...], int, int, int]:
    """A tensor up to its storage: sizes, strides, offset (from 0), type id and number of the storage (0 for
    nil).
    """
    start = source.position
    ndim = source.read_int()
    if not 0 <= ndim <= MOST_DIMENSIONS:
        raise T7Error(f"expected 0 to {MOST_DIMENSIONS} dimensions, found {ndim}", position=start)
    numbers = source.read_longs(2 * ndim + 1)
    tag = source.read_int()
    index = source.read_int() if tag != 0 else 0
    return numbers[:ndim], numbers[ndim:-1], numbers[-1] - 1, tag, index


def read_storage(source: Source, array_class: ArrayClass) -> Storage:
    start = source.position
    (count,) = source.read_longs(1)
    if count < 0:
        raise T7Error(f"expected the size of a {array_class.typename}, found {count}", position=start)
    return source.read_elements(array_class.element, count, array_class.kind)


def read_tensor_storage(
    source: Source, memo: dict[int, LuaValue], tensor_index: int, expected: ArrayClass, tag: int, index: int
) -> Storage:
    """The storage of a tensor: one seen before, or a new one; of the tensor's own type."""
    start = source.position
    if tag != TORCH:
        raise T7Error(f"expected a {expected.typename}, found an object of type id {tag}", position=start)
    value = memo.get(index, MISSING)
    if value is MISSING and index != tensor_index:
        typename, _ = source.read_class()
        if typename != expected.typename:
            raise T7Error(f"expected a {expected.typename}, found a {typename}", position=start)
        value = memo[index] = read_storage(source, expected)
    elif type(value) is not expected.kind or value.typename != expected.typename:
        raise T7Error(f"expected a {expected.typename}, found another object under number {index}", position=start)
    storage: Storage = value
    return storage


def geometry_problem(sizes: tuple[int, ...], strides: tuple[int, ...], offset: int, storage: Storage | None) -> str:
    """Why a tensor does not fit its storage ("" where it does). `offset` counts elements from 0."""
    is_empty = not sizes
    last = offset
    for size, stride in zip(sizes, strides, strict=True):
        if size < 0 or stride < 0:
            return f"expected sizes and strides of 0 or more, found sizes {sizes}, strides {strides}"
        is_empty = is_empty or size == 0
        last += (size - 1) * stride
    if storage is None:
        return "" if is_empty else f"expected a storage for sizes {sizes}, found nil"
    count = storage.size
    if offset >= 0 and (offset <= count if is_empty else last < count):
        return ""
    return f"expected elements within a storage of {count}, found sizes {sizes}, strides {strides}, offset {offset + 1}"
