"""Charts as SVG: ticks by hand, places of points, what is escaped and left out."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from cache_tools.svg_chart import HEIGHT, LEFT, RIGHT, WIDTH, Series, histogram, line_chart, nice_ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (12.5, 53.3, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
        (1.22, 1.62, [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (0.0, 1e-14, [0.0, 2e-15, 4e-15, 6e-15, 8e-15, 1e-14]),
        (0.0, 1e300, [0.0, 2e299, 4e299, 6e299, 8e299, 1e300]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize(
    "values", [[1e308, -1e308, 1.0], [1e308, 1e-308, 1.0], [0.0, 1e-320, 5e-324], [1e300, 1.0, 2.0]]
)
def test_no_number_is_too_large_or_small_to_draw_the_others(values: list[float], steps: bool) -> None:
    svg = line_chart([1, 2, 3], [Series("a", values, 0)], "epoch", "loss", steps)
    ElementTree.fromstring(re.sub(r"=([^\s'\">]+)", r'="\1"', svg))
    assert "nan" not in svg
    assert len(re.findall("[ML][0-9]|H[0-9]", svg)) == sum(value <= 1e300 and value >= -1e300 for value in values)


def points(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"cx=([\d.]+) cy=([\d.]+)", svg)]


def test_points_stand_where_they_should() -> None:
    """From 0 to 1 over epochs 1 to 3: left, middle and right; bottom, middle and top of the axes."""
    svg = line_chart([1, 2, 3], [Series("a", [0.0, 0.5, 1.0], 0)], "epoch", "loss")
    (x1, y1), (x2, y2), (x3, y3) = points(svg)
    assert (x1, x3) == (LEFT + 6, WIDTH - RIGHT - 6)
    assert x2 == pytest.approx((x1 + x3) / 2)
    assert (y1, y3) == (HEIGHT - 36, 10)
    assert y2 == pytest.approx((y1 + y3) / 2)


def test_epochs_far_apart_have_a_few_ticks_all_the_same() -> None:
    svg = line_chart([1, 10**12], [Series("a", [0.0, 1.0], 0)], "epoch", "loss")
    assert [f">{n * 2 * 10**11}<" in svg for n in range(1, 6)] == [True] * 5


def test_what_is_no_number_leaves_a_gap() -> None:
    svg = line_chart([1, 2, 3, 4], [Series("a", [0.0, math.nan, 1.0, math.inf], 0)], "epoch", "loss")
    assert len(points(svg)) == 2
    assert svg.count("M") == 2
    assert "nan" not in svg
    assert "no figures" in line_chart([1], [Series("a", [math.nan], 0)], "epoch", "loss")


def test_steps_hold_their_value_on_a_logarithmic_scale() -> None:
    svg = line_chart([1, 2, 3], [Series("rate", [1e-2, 1e-2, 1e-3], 0)], "epoch", "rate", steps=True)
    assert ">1e-2</text>" in svg
    assert ">1e-3</text>" in svg
    assert re.search(r'd="M52\.0,10\.0H\d+\.\dV10\.0H\d+\.\dV184\.0"', svg)


def test_one_epoch_and_one_value() -> None:
    ((x, y),) = points(line_chart([30], [Series("a", [100.0], 0)], "epoch", "top-5"))
    assert LEFT < x < WIDTH - RIGHT
    assert y == 10  # the axis ends at 100
    assert 10 <= points(line_chart([1], [Series("a", [0.0], 0)], "epoch", "x"))[0][1] <= HEIGHT - 36


def test_names_are_escaped() -> None:
    svg = line_chart([1], [Series('<b> & "x"', [1.0], 0)], "<i>", '"><script>')
    assert "<script" not in svg
    assert "<b>" not in svg
    assert "&lt;i&gt;" in svg


def test_a_histogram() -> None:
    svg = histogram([0, 5, 10], -1, 2, "weights")
    tree = ElementTree.fromstring(re.sub(r"=([\w.-]+)", r'="\1"', svg.replace('="0 0 160 94"', "=x")))
    heights = [float(rect.attrib["height"]) for rect in tree.iter("rect")]
    assert heights == [0.0, 38.0, 76.0]
    assert [rect[0].text for rect in tree.iter("rect")] == ["-1 to 0: 0", "0 to 1: 5", "1 to 2: 10"]
