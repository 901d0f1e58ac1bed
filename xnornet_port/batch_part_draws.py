"""Random numbers of one part of a batch as one process would draw them for the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lua_compat.generator import Array, Generator

__all__ = ["BatchPartGenerator"]


class BatchPartGenerator(Generator):
    """Fills an array whose first dimension is the pictures of a part with the numbers that part has of the whole.

    So several processes with the same seed have one process's dropout masks, and their streams stay at the same place.
    Arrays of another first dimension, and single draws, are as of any `Generator`.
    """

    def __init__(self, seed: int, batch_size: int, part: tuple[int, int]) -> None:
        """`part`: (first from 0, end) of the batch's pictures."""
        super().__init__(seed)
        self._batch_size = batch_size
        self._start, self._end = part

    def fill_bernoulli(self, array: Array, p: float | Array = 0.5) -> Array:
        return self._of_the_whole(array, lambda whole: super(BatchPartGenerator, self).fill_bernoulli(whole, p))

    def fill_uniform(self, array: Array, low: float = 0.0, high: float = 1.0) -> Array:
        return self._of_the_whole(array, lambda whole: super(BatchPartGenerator, self).fill_uniform(whole, low, high))

    def fill_normal(self, array: Array, mean: float = 0.0, std: float = 1.0) -> Array:
        return self._of_the_whole(array, lambda whole: super(BatchPartGenerator, self).fill_normal(whole, mean, std))

    def _of_the_whole(self, array: Array, fill: Callable[[Array], Array]) -> Array:
        if array.ndim == 0 or array.shape[0] != self._end - self._start:
            return fill(array)
        array[...] = fill(np.empty((self._batch_size, *array.shape[1:]), array.dtype))[self._start : self._end]
        return array
