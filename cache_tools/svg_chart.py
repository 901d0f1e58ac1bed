"""Charts as inline SVG, without a library: their colours come from the page's style sheet, light or dark.

A chart is text for an HTML page. Everything that is a name in it is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Series", "histogram", "is_drawable", "line_chart", "nice_ticks"]

WIDTH, HEIGHT = 330, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 36
N_COLORS = 8
MANY = 25
"""Points of a line that would cover it, were they as large as others."""
BAR_WIDTH, BAR_HEIGHT = 160, 76


LARGEST = 1e300
"""Of a value that is drawn; the sums and scales of larger ones overflow."""


class Series(NamedTuple):
    """One line: its name, a value per x (nan where there is none), its colour's number, dashed or full."""

    name: str
    values: Sequence[float]
    color: int
    dashed: bool = False


def is_drawable(value: float) -> bool:
    """Not nan, not infinite, nor so large that an axis would be."""
    return abs(value) <= LARGEST


def line_chart(x: Sequence[int], series: Sequence[Series], x_label: str, y_label: str, steps: bool = False) -> str:
    """Lines over whole numbers `x`; `steps` holds each value until the next, on a logarithmic scale."""
    finite = [value for line in series for value in line.values if is_drawable(value)]
    if not finite or not x:
        return "<p class=none>no figures</p>"
    low, high = min(finite), max(finite)
    low -= 0.1 * (abs(low) or 1.0) if low == high and not steps else 0.0
    logarithmic = steps and low > 0
    ticks = _decades(low, high) if logarithmic else nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    place = _Place(x, low, high, logarithmic)
    parts = [f'<svg class=chart viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(y_label, quote=True)}">']
    for tick in ticks:
        y = place.y(tick)
        parts.append(f"<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} />")
        label = f"1e{round(math.log10(tick))}" if logarithmic else f"{tick:g}"
        parts.append(f"<text class=tick x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{label}</text>")
    for tick in _whole_ticks(x[0], x[-1]):
        parts.append(
            f"<text class=tick x={place.x(tick):.1f} y={HEIGHT - BOTTOM + 16} text-anchor=middle>{tick}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f"<text class=tick x={middle:.0f} y={HEIGHT - 4} text-anchor=middle>{escape(x_label)}</text>")
    for line in series:
        parts += _line(x, line, place, steps)
    parts.append("</svg>")
    return "".join(parts)


def _line(x: Sequence[int], line: Series, place: _Place, steps: bool) -> list[str]:
    color = f"c{line.color % N_COLORS}"
    radius = 2.5 if len(x) <= MANY else 1.2
    path, pen_is_down = [], False
    points = []
    for epoch, value in zip(x, line.values, strict=False):
        if not is_drawable(value):
            pen_is_down = False
            continue
        left, top = place.x(epoch), place.y(value)
        if pen_is_down and steps:
            path.append(f"H{left:.1f}V{top:.1f}")
        else:
            path.append(f"{'L' if pen_is_down else 'M'}{left:.1f},{top:.1f}")
        pen_is_down = True
        title = f"{escape(line.name)}, {epoch}: {value:.5g}"
        points.append(f"<circle class={color} cx={left:.1f} cy={top:.1f} r={radius}><title>{title}</title></circle>")
    dashed = " stroke-dasharray='5 4'" if line.dashed else ""
    points = [] if steps else points
    return [f'<path class="line {color}"{dashed} d="{"".join(path)}" />', *points]


class _Place:
    """Where a value stands in the picture."""

    def __init__(self, x: Sequence[int], low: float, high: float, logarithmic: bool):
        self._first, self._span = x[0], max(1, x[-1] - x[0])
        self._scale = math.log10 if logarithmic else float
        self._low, self._high = self._scale(low), self._scale(high)
        self._single = x[-1] == x[0]

    def x(self, value: float) -> float:
        share = 0.5 if self._single else (value - self._first) / self._span
        return LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12)

    def y(self, value: float) -> float:
        span = self._high - self._low
        share = (self._scale(value) - self._low) / span if span else 0.5
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers from at most `low` to at least `high`."""
    span = max(high - low or abs(high), 1 / LARGEST)
    raw = span / wanted
    exponent = math.floor(math.log10(raw))
    unit = 10.0**exponent
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - exponent  # two behind the step's first
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**exponent for exponent in range(first, max(last, first + 1) + 1)]


def _whole_ticks(first: int, last: int) -> list[int]:
    step = max(1, round(nice_ticks(first, last)[1] - nice_ticks(first, last)[0])) if last > first else 1
    return list(range(-(-first // step) * step, last + 1, step)) or [first]


def histogram(counts: Sequence[int], low: float, high: float, label: str) -> str:
    """Bars of `counts` over equal shares of low..high."""
    most = max(counts, default=0) or 1
    bar = BAR_WIDTH / max(1, len(counts))
    bars = "".join(
        f"<rect x={number * bar:.2f} y={BAR_HEIGHT * (1 - count / most):.2f} width={bar * 0.92:.2f} "
        f"height={BAR_HEIGHT * count / most:.2f}><title>{low + (high - low) * number / len(counts):.4g} to "
        f"{low + (high - low) * (number + 1) / len(counts):.4g}: {count:,}</title></rect>"
        for number, count in enumerate(counts)
    )
    return (
        f'<svg class=bars viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT + 18}" role=img '
        f'aria-label="{escape(label, quote=True)}">{bars}'
        f"<text class=tick x=0 y={BAR_HEIGHT + 14}>{low:.3g}</text>"
        f"<text class=tick x={BAR_WIDTH} y={BAR_HEIGHT + 14} text-anchor=end>{high:.3g}</text></svg>"
    )
