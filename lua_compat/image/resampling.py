"""Along one axis: which source rows make each row of the result, and the float32 arithmetic that makes it.

Plans depend on sizes only and cover a part of the result (start up to stop), so that a crop costs a crop.
Ports Main_scaleLinear_rowcol, Main_scaleCubic_rowcol and Main_scaleSimple of torch/image, generic/image.c.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class LinearPlan:
    """Result row = (first_weight * rows[first] + the rows between + last_weight * rows[last]) / total.

    Positions count from source.start; weights and total have shape (n, 1). Without `last` the rows are
    copied, without `total` nothing is divided. `between` pairs rows of the result with the rows to add to
    them, in order.
    """

    source: slice
    first: Positions
    first_weight: Float32
    between: tuple[tuple[Positions, Positions], ...] = ()
    last: Positions | None = None
    last_weight: Float32 | None = None
    total: Float32 | None = None

    def reversed(self) -> "LinearPlan":
        """The same rows in opposite order."""
        end = len(self.first) - 1
        return replace(
            self,
            first=self.first[::-1],
            first_weight=self.first_weight[::-1],
            between=tuple((end - results, sources) for results, sources in self.between),
            last=None if self.last is None else self.last[::-1],
            last_weight=None if self.last_weight is None else self.last_weight[::-1],
            total=None if self.total is None else self.total[::-1],
        )


def linear_plan(source_size: int, size: int, start: int, stop: int) -> LinearPlan:
    """The plan for results start up to stop when source_size pixels become `size` pixels."""
    if size < source_size:
        return _shrinking_plan(source_size, size, start, stop)
    if size > source_size:
        return _growing_plan(source_size, size, start, stop)
    positions = np.arange(stop - start)
    return LinearPlan(slice(start, stop), positions, np.ones((len(positions), 1), dtype=np.float32))


def _shrinking_plan(source_size: int, size: int, start: int, stop: int) -> LinearPlan:
    """Each result is the mean of the source pixels it covers; those at its borders count by the share."""
    edges = np.arange(start, stop + 1).astype(np.float32) * (np.float32(source_size) / np.float32(size))
    whole = np.minimum(edges.astype(np.intp), source_size)
    share = edges - whole.astype(np.float32)
    first, after = whole[:-1], whole[1:]

    first_weight = 1 - share[:-1]
    total = first_weight.copy()
    inner_count = after - first - 1
    between = []
    for step in range(int(inner_count.max())):
        results = np.flatnonzero(inner_count > step)
        between.append((results, first[results] + (1 + step - first[0])))
        total[results] += np.float32(1)
    last_weight = np.where(after < source_size, share[1:], np.float32(0))  # the source ends at the last edge
    total += last_weight
    last = np.minimum(after, source_size - 1)
    return LinearPlan(
        source=slice(int(first[0]), int(last[-1]) + 1),
        first=first - first[0],
        first_weight=first_weight[:, None],
        between=tuple(between),
        last=last - first[0],
        last_weight=last_weight[:, None],
        total=total[:, None],
    )


def _growing_plan(source_size: int, size: int, start: int, stop: int) -> LinearPlan:
    """Each result lies between two source pixels; the corners of result and source coincide."""
    first, share = corner_positions(source_size, size, start, stop)
    last = np.minimum(first + 1, source_size - 1)
    return LinearPlan(
        source=slice(int(first[0]), int(last[-1]) + 1),
        first=first - first[0],
        first_weight=(1 - share)[:, None],
        last=last - first[0],
        last_weight=share[:, None],
    )


def corner_positions(source_size: int, size: int, start: int, stop: int) -> tuple[Positions, Float32]:
    """Where results start up to stop lie when corner pixels coincide: whole position and the share beyond."""
    step = np.float32(source_size - 1) / np.float32(max(size - 1, 1))
    places = np.arange(start, stop).astype(np.float32) * step
    whole = np.minimum(places.astype(np.intp), source_size - 1)
    share = places - whole.astype(np.float32)
    if stop == size:  # Torch7 copies the last pixel: rounding may have put its place a little before it
        whole[-1], share[-1] = source_size - 1, 0
    return whole, share


def mix_rows(rows: Float32, plan: LinearPlan, out: Float32 | None = None) -> Float32:
    """Rows (S, n) of the source to rows (R, n) of the result, in the C code's order of operations."""
    result = rows.take(plan.first, axis=0, out=out, mode="clip")  # "raise" would go through a copy of out
    if plan.last is None or plan.last_weight is None:
        return result
    result *= plan.first_weight
    for results, sources in plan.between:
        result[results] += rows[sources]
    last = rows.take(plan.last, axis=0)
    last *= plan.last_weight
    result += last
    if plan.total is not None:
        result /= plan.total
    return result


def cubic_rows(rows: Float32, size: int) -> Float32:
    """Rows (S, n) to rows (size, n) by cubic interpolation, corners coinciding; linear beyond the border."""
    source_size = len(rows)
    if size == source_size or source_size == 1:
        return rows.take(np.minimum(np.arange(size), source_size - 1), axis=0)
    whole, share = corner_positions(source_size, size, 0, size)
    whole, x = whole[:-1], share[:-1, None]
    p1, p2 = rows[whole], rows[np.minimum(whole + 1, source_size - 1)]
    p0 = np.where(whole[:, None] > 0, rows[np.maximum(whole - 1, 0)], 2 * p1 - p2)
    p3 = np.where(whole[:, None] + 2 < source_size, rows[np.minimum(whole + 2, source_size - 1)], 2 * p2 - p1)
    a1 = p2 - p0
    a2 = 2 * p0 - 5 * p1 + 4 * p2 - p3
    a3 = 3 * (p1 - p2) + p3 - p0
    inner = a1 + x * (a2 + x * a3)  # float32 as in C, where 0.5 then makes the rest double
    value = p1.astype(np.float64) + 0.5 * x.astype(np.float64) * inner.astype(np.float64)
    return np.concatenate([value.astype(np.float32), rows[-1:]])


def nearest_positions(source_size: int, size: int) -> Positions:
    """Position of the source pixel of each of `size` results: the truncated place, no rounding."""
    step = np.float32(source_size) / np.float32(size)
    places = np.arange(size).astype(np.float32) * step
    return np.minimum(places.astype(np.intp), source_size - 1)
