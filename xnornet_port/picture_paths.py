"""The pictures of a cache file, found again in the data folder of this run (ledger row 19).

A cache holds paths as they were where it was made; the published ones begin with /mnt/raid00/data/imagenet2012. The
original rewrites that prefix only; here every path is moved from the cache's own folder to the given one.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError

__all__ = ["PUBLISHED_DATA", "rebase"]

PUBLISHED_DATA = b"/mnt/raid00/data/imagenet2012"
"""The data folder of the authors, which donkey.lua looks for in every path."""

UPWARDS = re.compile(rb"/\.\.[/\0]")

CharMatrix = npt.NDArray[np.int8]


def rebase(dataset: Dataset, folder: str, source: str, allow_outside: bool = False) -> Dataset:
    """`dataset` with every picture below `folder`, such as DATA/train.

    The pictures must lie below the data set's own folder, or below PUBLISHED_DATA, or already below `folder`; none may
    lead out of it by "..". Otherwise raises XnorNetError, which calls the cache `source`; with `allow_outside` paths
    that lie elsewhere are taken as they are.
    """
    target = os.fsencode(folder)
    moves = (
        (target, target),
        (os.fsencode(dataset.folder), target),
        (PUBLISHED_DATA, os.path.dirname(target)),
    )
    for old, new in moves:
        if not _outside(dataset.image_path, old).size:
            if not allow_outside:
                _refuse_upwards(dataset, old, source)
            return replace(dataset, folder=folder, image_path=_moved(dataset.image_path, old, new))
    if allow_outside:
        return replace(dataset, folder=folder, image_path=_moved_one_by_one(dataset.image_path, moves))
    stray = _outside(dataset.image_path, os.fsencode(dataset.folder))
    raise XnorNetError(
        f"{source}: its picture {_shown(dataset, stray[0])} lies outside its own folder {dataset.folder!r} "
        f"({len(stray)} of {len(dataset)} pictures do); delete the cache, it is then made anew from {folder}, "
        "or trust it with -allowOutside"
    )


def _prefix(root: bytes) -> npt.NDArray[np.int8]:
    return np.frombuffer(root.rstrip(b"/") + b"/", dtype=np.int8)


def _outside(image_path: CharMatrix, root: bytes) -> npt.NDArray[np.intp]:
    """Rows (from 0) of the pictures that are not below `root`."""
    prefix = _prefix(root)
    if image_path.shape[1] <= len(prefix):
        return np.arange(len(image_path))
    return np.flatnonzero((image_path[:, : len(prefix)] != prefix).any(axis=1))


def _refuse_upwards(dataset: Dataset, root: bytes, source: str) -> None:
    below = np.ascontiguousarray(dataset.image_path[:, len(_prefix(root)) - 1 :])
    found = UPWARDS.search(below.data.cast("B"))
    if found:
        row = found.start() // below.shape[1]
        raise XnorNetError(
            f"{source}: its picture {_shown(dataset, row)} leads out of the data folder; refused "
            "(-allowOutside takes it)"
        )


def _moved(image_path: CharMatrix, old: bytes, new: bytes) -> CharMatrix:
    """The first characters of every row replaced; rows become as much longer or shorter as the prefix."""
    if old == new:
        return image_path
    before, after = _prefix(old), _prefix(new)
    moved = np.empty((len(image_path), image_path.shape[1] - len(before) + len(after)), dtype=np.int8)
    moved[:, : len(after)] = after
    moved[:, len(after) :] = image_path[:, len(before) :]
    return moved


def _moved_one_by_one(image_path: CharMatrix, moves: Sequence[tuple[bytes, bytes]]) -> CharMatrix:
    """Each row by the first of the moves that fits it, or as it is."""
    longer = max(0, *(len(_prefix(new)) - len(_prefix(old)) for old, new in moves))
    moved = np.zeros((len(image_path), image_path.shape[1] + longer), dtype=np.int8)
    moved[:, : image_path.shape[1]] = image_path
    waiting = np.ones(len(image_path), dtype=bool)
    for old, new in moves:
        fits = waiting.copy()
        fits[_outside(image_path, old)] = False
        rows = _moved(image_path[fits], old, new)
        moved[fits] = 0
        moved[fits, : rows.shape[1]] = rows
        waiting &= ~fits
    return moved


def _shown(dataset: Dataset, row: int) -> str:
    return repr(os.fsdecode(dataset.path(row + 1)))
