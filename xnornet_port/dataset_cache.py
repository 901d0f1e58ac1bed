"""trainCache.t7, testCache.t7, meanstdCache.t7 and classes.t7, as the original reads and writes them.

A data cache is the original's `dataLoader` object with all its fields, each of Torch7's type. Its two hook fields are
not there: the original saves it before it sets them (they would be functions) and sets them anew after reading.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import lua_compat
from lua_compat import LuaTable, TorchObject
from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.preprocessing import ChannelStatistics

__all__ = [
    "read_dataset",
    "read_statistics",
    "split_classes",
    "write_classes",
    "write_dataset",
    "write_statistics",
]

CLASS_NAME = "dataLoader"
REMEDY = "delete it (it is made anew from the pictures) or put the right file in its place"

Indices = npt.NDArray[np.int64]


class RandomStream(Protocol):
    """The draw that a split makes; `lua_compat.Generator` has it."""

    def randperm(self, n: int) -> Indices: ...


# ---- data caches: reading ----


def read_dataset(path: str) -> Dataset:
    """The data set in a trainCache.t7 or testCache.t7, with the paths it was saved with.

    Every field that is used is checked; raises XnorNetError naming the file and the field.
    """
    fields = _load(path)
    if not isinstance(fields, TorchObject) or fields.typename != CLASS_NAME:
        found = fields.typename if isinstance(fields, TorchObject) else type(fields).__name__
        raise XnorNetError(f"{path}: expected a {CLASS_NAME} object (a data cache), found {found}; {REMEDY}")
    image_path = _image_path(path, fields)
    classes = _names(path, fields, "classes")
    image_class = _indices(path, "imageClass", fields.get("imageClass"), highest=len(classes))
    if len(image_class) != len(image_path):
        raise _damaged(path, f"imageClass has {len(image_class)} entries for {len(image_path)} pictures")
    class_list = _index_lists(path, fields, "classList", image_class, len(classes))
    return Dataset(
        folder=_names(path, fields, "paths")[0],
        classes=classes,
        image_path=image_path,
        image_class=image_class,
        class_list=class_list,
        sample_list=_index_lists(path, fields, "classListSample", image_class, len(classes)),
    )


def _load(path: str) -> Any:
    try:
        with open(path, "rb"):
            pass
        return lua_compat.load(path)
    except OSError as error:  # not there, or not ours to read
        raise XnorNetError(f"{path}: cannot be read ({reason_of(error)})") from error
    except lua_compat.LuaCompatError as error:
        raise XnorNetError(f"{error}; {REMEDY}") from error


def _damaged(path: str, problem: str) -> XnorNetError:
    return XnorNetError(f"{path}: not a usable data cache: {problem}; {REMEDY}")


def _image_path(path: str, fields: TorchObject) -> npt.NDArray[np.int8]:
    """imagePath: a row of characters per picture, each ended by NUL."""
    value = fields.get("imagePath")
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype != np.int8 or not value.size:
        raise _damaged(path, "imagePath is not a matrix of characters (torch.CharTensor)")
    if value[:, -1].any():
        raise _damaged(path, "imagePath has a path without an end")
    return value.view(np.ndarray)


def _names(path: str, fields: TorchObject, field: str) -> tuple[str, ...]:
    """A list of strings: `classes` or `paths`."""
    value = fields.get(field)
    names = value.to_list() if isinstance(value, LuaTable) and len(value.to_list()) == len(value) else []
    if not names or not all(isinstance(name, str | bytes) for name in names):
        raise _damaged(path, f"{field} is not a list of names")
    if len(set(names)) != len(names):
        raise _damaged(path, f"{field} has a name twice")
    return tuple(os.fsdecode(name) for name in names)


def _indices(path: str, field: str, value: Any, highest: int) -> Indices:
    """A vector of whole numbers from 1 to `highest`."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise _damaged(path, f"{field} is not a vector of whole numbers (torch.LongTensor)")
    indices = value.view(np.ndarray).astype(np.int64, copy=False)
    if indices.size and not (indices.min() >= 1 and indices.max() <= highest):
        raise _damaged(path, f"{field} goes from {indices.min()} to {indices.max()}, expected 1 to {highest}")
    return indices


def _index_lists(
    path: str, fields: TorchObject, field: str, image_class: Indices, n_classes: int
) -> tuple[Indices, ...]:
    """Per class the numbers of its pictures: `classList` or `classListSample`."""
    value = fields.get(field)
    if not isinstance(value, LuaTable) or len(value.to_list()) != n_classes:
        raise _damaged(path, f"{field} is not a list with an entry for each of the {n_classes} classes")
    lists = []
    for number, entry in enumerate(value.to_list(), start=1):
        indices = _indices(path, f"{field}[{number}]", entry, highest=len(image_class))
        if (image_class[indices - 1] != number).any():
            raise _damaged(path, f"{field}[{number}] has pictures that imageClass puts in another class")
        lists.append(indices)
    return tuple(lists)


# ---- data caches: writing ----


def write_dataset(
    path: str,
    dataset: Dataset,
    image_size: int,
    crop_size: int,
    split: int = 100,
    force_classes: Sequence[str] = (),
    stream: RandomStream | None = None,
) -> None:
    """Save a data set as the original's dataLoader{split=..., verbose=true} would be (dataset.lua __init).

    split: how many of 100 pictures per class are for training. The original makes trainCache with 100 and testCache
    with 0 and with the training classes as `force_classes`. Below 100 the pictures are split at random, with one
    `randperm` of `stream` per class. Raises XnorNetError when the file cannot be written.
    """
    fields = {
        "paths": [os.fsencode(dataset.folder)],
        "sampleSize": [3, crop_size, crop_size],
        "loadSize": [3, image_size, image_size],
        "split": split,
        "samplingMode": "balanced",
        "verbose": True,
        "classes": _lua_names(dataset.classes),
        "classIndices": {os.fsencode(name): number for name, number in dataset.class_indices.items()},
        "imagePath": lua_compat.tensor(dataset.image_path, "torch.CharTensor"),
        "imageClass": lua_compat.tensor(dataset.image_class, "torch.LongTensor"),
        "numSamples": len(dataset),
        "classList": _lua_lists(dataset.class_list),
    }
    if force_classes:
        fields["forceClasses"] = _lua_names(force_classes)
    if split == 100:
        fields["classListSample"] = fields["classList"]  # the same table, as the original's
        fields["testIndicesSize"] = 0
    elif stream is not None:
        fields.update(_split_fields(dataset, split, stream))
    else:
        raise ValueError("a split below 100 needs a random stream")
    _save(path, TorchObject(CLASS_NAME, fields))


def split_classes(
    class_list: Sequence[Indices], split: int, stream: RandomStream
) -> tuple[list[Indices], list[Indices]]:
    """Per class the pictures for training and those for testing, at random (the end of dataset.lua __init)."""
    training, testing = [], []
    for pictures in class_list:
        n_training = math.floor(len(pictures) * split / 100 + 0.5)
        shuffled = pictures[stream.randperm(len(pictures)) - 1]
        training.append(shuffled[:n_training].copy())  # copies: each tensor is saved with a storage of its own
        testing.append(shuffled[n_training:].copy())
    return training, testing


def _split_fields(dataset: Dataset, split: int, stream: RandomStream) -> dict[str, Any]:
    training, testing = split_classes(dataset.class_list, split, stream)
    training_table = _lua_lists(training)
    test_indices = np.concatenate(testing)
    return {
        "classListTrain": training_table,
        "classListTest": _lua_lists(testing),
        "classListSample": training_table,  # the same table, as the original's
        "testIndices": lua_compat.tensor(test_indices, "torch.LongTensor"),
        "testIndicesSize": len(test_indices),
    }


def _lua_names(names: Sequence[str]) -> LuaTable:
    return LuaTable([os.fsencode(name) for name in names])


def _lua_lists(lists: Sequence[Indices]) -> LuaTable:
    return LuaTable([lua_compat.tensor(indices, "torch.LongTensor") for indices in lists])


def _save(path: str, value: Any) -> None:
    try:
        lua_compat.save(path, value)
    except OSError as error:
        raise XnorNetError(f"{path}: cannot be written ({error.strerror or error})") from error
    except lua_compat.LuaCompatError as error:  # its message begins with the path
        raise XnorNetError(str(error)) from error


# ---- the other two ----


def read_statistics(path: str) -> ChannelStatistics:
    """meanstdCache.t7: {mean = {r, g, b}, std = {r, g, b}}. Raises XnorNetError naming the file."""
    table = _load(path)
    if not isinstance(table, LuaTable):
        raise XnorNetError(f"{path}: expected a table with mean and std, found {type(table).__name__}; {REMEDY}")
    statistics = ChannelStatistics(_channels(path, table, "mean"), _channels(path, table, "std"))
    if min(statistics.std) <= 0:
        raise XnorNetError(f"{path}: std is {statistics.std}, expected three numbers above 0; {REMEDY}")
    return statistics


def _channels(path: str, table: LuaTable, field: str) -> tuple[float, float, float]:
    value = table.get(field)
    numbers = value.to_list() if isinstance(value, LuaTable) else []
    if len(numbers) != 3 or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise XnorNetError(f"{path}: {field} is not three numbers; {REMEDY}")
    red, green, blue = map(float, numbers)
    return red, green, blue


def write_statistics(path: str, statistics: ChannelStatistics) -> None:
    """Save meanstdCache.t7. Raises XnorNetError when the file cannot be written."""
    _save(path, {"mean": list(statistics.mean), "std": list(statistics.std)})


def write_classes(path: str, classes: Sequence[str]) -> None:
    """Save classes.t7, the list of class names in a run's folder (data.lua). Raises XnorNetError."""
    _save(path, _lua_names(classes))
