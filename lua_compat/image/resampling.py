"""Along one axis: which source rows make each row of the result, and the float32 arithmetic that makes it.

Plans depend on sizes only and cover a part of the result (start up to stop), so that a crop costs a crop.
Ports Main_scaleLinear_rowcol, Main_scaleCubic_rowcol and Main_scaleSimple of torch/image, generic/image.c.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Positions = NDArray[np.intp]

ZERO = np.float32(-0.0)  # the zero that changes nothing it is added to, not even another minus zero


@dataclass(frozen=True)
class LinearPlan:
    """Result row = (first_weight * rows[first] + the rows between + last_weight * rows[last]) / total.

    Positions count from source.start; weights and total have shape (n, 1). `between` are positions to add one after
    the other; where a result needs no more they point behind the last row, at a row of ZERO. Without `last` the rows
    are copied, without `total` nothing is divided.
    """

    source: slice
    first: Positions
    first_weight: Float32
    between: tuple[Positions, ...] = ()
    last: Positions | None = None
    last_weight: Float32 | None = None
    total: Float32 | None = None

    def reversed(self) -> "LinearPlan":
        """The same rows in opposite order."""
        return replace(
            self,
            first=self.first[::-1],
            first_weight=self.first_weight[::-1],
            between=tuple(positions[::-1] for positions in self.between),
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
    edges = np.arange(start, stop + 1).astype(np.float32)
    edges *= np.float32(source_size) / np.float32(size)
    whole = edges.astype(np.intp)
    share = edges - np.trunc(edges)
    if whole[-1] >= source_size:  # the source ends at this edge
        whole[-1], share[-1] = source_size, 0
    first, after = whole[:-1], whole[1:]
    source = slice(int(first[0]), min(int(after[-1]) + 1, source_size))

    first_weight, last_weight = 1 - share[:-1], share[1:]
    covered = after - first
    positions = first - source.start
    total = first_weight
    between = []
    for step in range(1, int(covered.max())):
        is_needed = covered > step
        between.append(np.where(is_needed, positions + step, source.stop - source.start))
        total = total + is_needed  # one more where needed, in the order of the C code's additions
    return LinearPlan(
        source=source,
        first=positions,
        first_weight=first_weight[:, None],
        between=tuple(between),
        last=after - source.start,  # behind the last row where the source ends: ZERO, of weight 0
        last_weight=last_weight[:, None],
        total=(total + last_weight)[:, None],
    )


def _growing_plan(source_size: int, size: int, start: int, stop: int) -> LinearPlan:
    """Each result lies between two source pixels; the corners of result and source coincide."""
    first, share = corner_positions(source_size, size, start, stop)
    source = slice(int(first[0]), min(int(first[-1]) + 2, source_size))
    positions = first - source.start
    return LinearPlan(
        source=source,
        first=positions,
        first_weight=(1 - share)[:, None],
        last=positions + 1,  # behind the last row where the source ends: ZERO, of weight 0
        last_weight=share[:, None],
    )


def corner_positions(source_size: int, size: int, start: int, stop: int) -> tuple[Positions, Float32]:
    """Where results start up to stop lie when corner pixels coincide: whole position and the share beyond."""
    places = np.arange(start, stop).astype(np.float32)
    places *= np.float32(source_size - 1) / np.float32(max(size - 1, 1))
    whole = np.minimum(places.astype(np.intp), source_size - 1)
    share = places - np.trunc(places)
    if stop == size:  # Torch7 copies the last pixel: rounding may have put its place a little before it
        whole[-1], share[-1] = source_size - 1, 0
    return whole, share


def mix_rows(rows: Float32, plan: LinearPlan, out: Float32, scratch: Float32) -> None:
    """Fill out (n, length) by the plan from rows (S + 1, length), the last all ZERO, operations ordered as in C.

    scratch is of out's shape: nothing is allocated here, where fresh memory would cost more than the arithmetic.
    """
    rows.take(plan.first, axis=0, out=out, mode="clip")  # "raise", the default, goes through a copy of out
    if plan.last is None or plan.last_weight is None:
        return
    out *= plan.first_weight
    for positions in plan.between:
        out += rows.take(positions, axis=0, out=scratch, mode="clip")
    rows.take(plan.last, axis=0, out=scratch, mode="clip")
    scratch *= plan.last_weight
    out += scratch
    if plan.total is not None:
        out /= plan.total


class ScalingMemory:
    """Room for a picture's pixels and for the steps to its scaled crop, kept from call to call.

    Fresh memory costs more than the arithmetic here, so a loop that scales many pictures passes the same one to all
    calls. Two threads need one each.
    """

    def __init__(self) -> None:
        self._pool = np.empty(0, dtype=np.float32)
        self._pixels = np.empty(0, dtype=np.uint8)

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """At least `size` bytes, of undefined content; the same ones at every call."""
        if size > self._pixels.size:
            self._pixels = np.empty(size, dtype=np.uint8)
        return self._pixels

    def arrays(self, *shapes: tuple[int, int]) -> list[Float32]:
        """Arrays of these shapes, of undefined content, side by side."""
        size = sum(rows * columns for rows, columns in shapes)
        if size > self._pool.size:
            self._pool = np.empty(size, dtype=np.float32)
        arrays, start = [], 0
        for rows, columns in shapes:
            end = start + rows * columns
            arrays.append(self._pool[start:end].reshape(rows, columns))
            start = end
        return arrays


class ChannelScaler:
    """Scales one channel after another by the same two plans, first across (Torch7's rows), then down.

    The channel goes, transposed, into `columns` (source width, source height); `scale_into` does the rest.
    """

    def __init__(self, across: LinearPlan, down: LinearPlan, memory: ScalingMemory) -> None:
        self._across, self._down = across, down
        source_width = across.source.stop - across.source.start
        source_height = down.source.stop - down.source.start
        width, height = len(across.first), len(down.first)
        self._columns, self._narrowed, self._scratch_across, self._rows, self._scratch_down = memory.arrays(
            (source_width + 1, source_height),
            (width, source_height),
            (width, source_height),
            (source_height + 1, width),
            (height, width),
        )
        self._columns[-1] = self._rows[-1] = ZERO
        self.columns = self._columns[:-1]

    def scale_into(self, out: Float32) -> None:
        """Scale the channel in `columns` to out (height, width)."""
        mix_rows(self._columns, self._across, self._narrowed, self._scratch_across)
        np.copyto(self._rows[:-1], self._narrowed.T)
        mix_rows(self._rows, self._down, out, self._scratch_down)


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
