"""CIFAR-10 and CIFAR-100 as they are distributed (https://www.cs.toronto.edu/~kriz/cifar.html): python, binary, Torch7.

Which of them a folder holds is found out by the names of the files in it. All give pictures as bytes, red, green and
blue planes of 32 rows by 32 columns, and a class number from 1 for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import lua_compat
from lua_compat.errors import LuaCompatError
from lua_compat.values import LuaTable
from xnornet_port.cifar_names import CIFAR_CLASSES, CIFAR_SIDE
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.pickled_values import pickled_value

__all__ = ["CifarFiles", "CifarPart", "read_cifar"]

_BYTES = 3 * CIFAR_SIDE * CIFAR_SIDE
_LARGEST_FILE = 1 << 29  # CIFAR-100's largest has 155 MB
_NAMES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-batches-t7"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@dataclass(frozen=True, eq=False)
class CifarPart:
    """pixels: uint8 (N, 3, 32, 32). labels: int64 (N,), from 1."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CifarFiles:
    train: CifarPart
    test: CifarPart
    classes: tuple[str, ...]
    kind: str  # "python", "binary" or "Torch7", for a line to the user


def read_cifar(folder: str, dataset: str) -> CifarFiles:
    """The distribution of `dataset`, a key of CIFAR_CLASSES, in the folder or in the sub-folder it unpacks to.

    Raises XnorNetError, in one line, where there is none, a file of it is missing, or one is not what it should be.
    """
    for place in (Path(folder), *(Path(folder) / name for name in _FOLDERS[dataset])):
        for first_file, read in _READERS[dataset].items():
            if (place / first_file).is_file():
                return read(place, dataset)
    expected = ", ".join(_READERS[dataset])
    packed = next(iter(sorted(Path(folder).glob("cifar*.t*gz"))), None)
    hint = f"; unpack {packed.name} there" if packed else ""
    raise XnorNetError(f"{folder}: no {dataset} in it (-data; looked for one of the files {expected}){hint}")


# ---- the python distribution ----


def _read_python_10(folder: Path, dataset: str) -> CifarFiles:
    train = _joined([_pickled_part(folder / name, b"labels", 10) for name in _BATCHES])
    names = _pickled_names(folder / "batches.meta", b"label_names", 10)
    return CifarFiles(train, _pickled_part(folder / "test_batch", b"labels", 10), names, "python")


def _read_python_100(folder: Path, dataset: str) -> CifarFiles:
    train, test = (_pickled_part(folder / name, b"fine_labels", 100) for name in ("train", "test"))
    return CifarFiles(train, test, _pickled_names(folder / "meta", b"fine_label_names", 100), "python")


def _pickled_part(path: Path, labels_key: bytes, n_classes: int) -> CifarPart:
    table = _pickled_table(path)
    pixels, labels = table.get(b"data"), table.get(labels_key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise _damaged(path, f"expected an array data and a list {labels_key.decode()}")
    if not all(type(label) is int for label in labels):
        raise _damaged(path, "its labels are not whole numbers")
    return _part(path, pixels, np.array(labels, dtype=np.int64) + 1, n_classes)


def _pickled_names(path: Path, key: bytes, n_classes: int) -> tuple[str, ...]:
    names = _pickled_table(path).get(key)
    if not isinstance(names, list) or len(names) != n_classes or not all(isinstance(n, str | bytes) for n in names):
        raise _damaged(path, f"expected a list {key.decode()} of {n_classes} names")
    return tuple(name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names)


def _pickled_table(path: Path) -> dict[Any, Any]:
    """A pickled dictionary, its keys as bytes whichever Python wrote it."""
    try:
        table = pickled_value(_content(path))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(table, dict):
        raise _damaged(path, "expected a dictionary")
    return {key.encode() if isinstance(key, str) else key: value for key, value in table.items()}


# ---- the binary distribution ----


def _read_binary_10(folder: Path, dataset: str) -> CifarFiles:
    train = _joined([_binary_part(folder / f"{name}.bin", 1, 10) for name in _BATCHES])
    names = _listed_names(folder / "batches.meta.txt", 10)
    return CifarFiles(train, _binary_part(folder / "test_batch.bin", 1, 10), names, "binary")


def _read_binary_100(folder: Path, dataset: str) -> CifarFiles:
    train, test = (_binary_part(folder / name, 2, 100) for name in ("train.bin", "test.bin"))
    return CifarFiles(train, test, _listed_names(folder / "fine_label_names.txt", 100), "binary")


def _binary_part(path: Path, n_labels: int, n_classes: int) -> CifarPart:
    """Records of `n_labels` bytes, the last of them the class from 0, and the picture."""
    content = np.frombuffer(_content(path), np.uint8)
    record = n_labels + _BYTES
    if content.size % record:
        raise _damaged(path, f"{content.size} bytes are not records of {record}")
    records = content.reshape(-1, record)
    return _part(path, records[:, n_labels:], records[:, n_labels - 1].astype(np.int64) + 1, n_classes)


def _listed_names(path: Path, n_classes: int) -> tuple[str, ...]:
    names = tuple(_content(path).decode("utf-8", "replace").split())
    if len(names) != n_classes:
        raise _damaged(path, f"{len(names)} names for {n_classes} classes")
    return names


# ---- Torch7's ----


def _read_batches_t7(folder: Path, dataset: str) -> CifarFiles:
    """cifar10.t7.tgz: each file a table of data (3072, N) and labels (1, N) from 0."""
    train = _joined([_t7_part(folder / f"{name}.t7", "labels", is_across=True) for name in _BATCHES])
    return CifarFiles(train, _t7_part(folder / "test_batch.t7", "labels", is_across=True), _NAMES_10, "Torch7")


def _read_two_t7(folder: Path, dataset: str) -> CifarFiles:
    """cifar10torchsmall: cifar10-train.t7 and cifar10-test.t7, data (N, 3, 32, 32) and label (N) from 1."""
    train, test = (_t7_part(folder / f"cifar10-{name}.t7", "label") for name in ("train", "test"))
    return CifarFiles(train, test, _NAMES_10, "Torch7")


def _read_one_t7(folder: Path, dataset: str) -> CifarFiles:
    """fb.resnet.torch's gen/cifar10.t7 and gen/cifar100.t7: tables train and val, pictures and labels from 1."""
    n_classes = CIFAR_CLASSES[dataset]
    path = folder / f"{dataset}.t7"
    table = _t7_table(path)
    train, test = (_t7_fields(path, table.get(name), "labels", n_classes) for name in ("train", "val"))
    names = _NAMES_10 if n_classes == 10 else tuple(f"class_{number}" for number in range(1, n_classes + 1))
    return CifarFiles(train, test, names, "Torch7")


def _t7_part(path: Path, labels_key: str, is_across: bool = False) -> CifarPart:
    return _t7_fields(path, _t7_table(path), labels_key, 10, is_across)


def _t7_fields(path: Path, table: object, labels_key: str, n_classes: int, is_across: bool = False) -> CifarPart:
    """`is_across`: a picture is a column, and labels count from 0."""
    pixels, labels = (table.get("data"), table.get(labels_key)) if isinstance(table, LuaTable) else (None, None)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, np.ndarray) or pixels.dtype != np.uint8:
        raise _damaged(path, f"expected tensors data (of bytes) and {labels_key}")
    pixels, numbers = np.asarray(pixels), np.asarray(labels).reshape(-1)
    if not np.array_equal(numbers, numbers.astype(np.int64)):
        raise _damaged(path, "its labels are not whole numbers")
    return _part(path, pixels.T if is_across else pixels, numbers.astype(np.int64) + is_across, n_classes)


def _t7_table(path: Path) -> LuaTable:
    _check_size(path)
    try:
        table = lua_compat.load(path)
    except LuaCompatError as error:
        raise XnorNetError(str(error)) from error
    except OSError as error:
        raise XnorNetError(f"{path}: cannot be read ({reason_of(error)})") from error
    if not isinstance(table, LuaTable):
        raise _damaged(path, "expected a table")
    return table


# ---- all of them ----

_READERS: dict[str, dict[str, Callable[[Path, str], CifarFiles]]] = {
    "cifar10": {
        "data_batch_1": _read_python_10,
        "data_batch_1.bin": _read_binary_10,
        "data_batch_1.t7": _read_batches_t7,
        "cifar10-train.t7": _read_two_t7,
        "cifar10.t7": _read_one_t7,
    },
    "cifar100": {"fine_label_names.txt": _read_binary_100, "meta": _read_python_100, "cifar100.t7": _read_one_t7},
}


def _part(path: Path, pixels: np.ndarray, labels: npt.NDArray[np.int64], n_classes: int) -> CifarPart:
    """Checked: as many pictures as labels, each of 3072 bytes, labels from 1 to n_classes."""
    shapes = ((len(labels), _BYTES), (len(labels), 3, CIFAR_SIDE, CIFAR_SIDE))
    if pixels.dtype != np.uint8 or pixels.shape not in shapes or len(labels) == 0:
        found = f"{pixels.dtype} {pixels.shape}"
        raise _damaged(path, f"{len(labels)} labels, and pictures {found} in place of bytes ({len(labels)}, {_BYTES})")
    if labels.min() < 1 or labels.max() > n_classes:
        wrong = labels.max() if labels.max() > n_classes else labels.min()
        raise _damaged(path, f"class {wrong} (counted from 1) of {n_classes}")
    return CifarPart(np.ascontiguousarray(pixels).reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE), labels)


def _joined(parts: Sequence[CifarPart]) -> CifarPart:
    return CifarPart(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))


def _content(path: Path) -> bytes:
    _check_size(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise XnorNetError(f"{path}: cannot be read ({reason_of(error)})") from error


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise XnorNetError(f"{path}: cannot be read ({reason_of(error)})") from error
    if size > _LARGEST_FILE:
        raise _damaged(path, f"{size} bytes, several times what CIFAR's largest file has")


def _damaged(path: Path, problem: str) -> XnorNetError:
    return XnorNetError(f"{path}: not a file of CIFAR as distributed: {problem}")
