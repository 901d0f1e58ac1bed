"""Verdicts on made-up result sets."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest

from cache_tools.parity_verdict import Accuracy, Findings, LayerCheck, verdict_of

CLEAN = LayerCheck("4.2", n_dots=1000)


def findings(
    hits: int, n: int = 50_000, kind: str = "XNOR", n_classes: int = 1000, n_same: int | None = None
) -> Findings:
    """An XNOR network's by both paths, a BWN's by one."""
    top1, top5 = Accuracy(hits, n), Accuracy(min(n, 2 * hits), n)
    both = (top1, top5) if kind == "XNOR" else (None, None)
    same = n if n_same is None else n_same
    return Findings(kind, n_classes, n, n, top1, top5, *both, same, 1e-7, 256, (CLEAN,) if kind == "XNOR" else ())


def test_the_interval_is_wilsons() -> None:
    """(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.95996..."""
    n, p, z = 50_000, 0.433, 1.959963984540054
    middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = Accuracy(21_650, n).interval
    assert low == pytest.approx(100 * (middle - half) / (1 + z * z / n))
    assert high == pytest.approx(100 * (middle + half) / (1 + z * z / n))
    assert (round(low, 2), round(high, 2)) == (42.87, 43.73)
    assert str(Accuracy(21_650, n)) == "43.30 % (95 %: 42.87 to 43.73)"


PATHS = "float and XNOR paths predict the same for"
INSIDE, OUTSIDE = "is within the 95 % interval of", "is outside the 95 % interval of"


@pytest.mark.parametrize(
    ("found", "published", "verdict", "code"),
    [
        (findings(21_650), 43.3, f"agrees: the published 43.3 % {INSIDE} 43.30 % top-1; {PATHS} every picture", 0),
        (findings(28_400, kind="BWN"), 56.8, f"agrees: the published 56.8 % {INSIDE} 56.80 % top-1", 0),
        (findings(21_000), 43.3, f"differs: the published 43.3 % {OUTSIDE} 42.00 % top-1; {PATHS} every picture", 1),
        (findings(22_500), 43.3, f"differs: the published 43.3 % {OUTSIDE} 45.00 % top-1; {PATHS} every picture", 1),
        (findings(433, n=1000), 43.3, f"not comparable: too few images (1,000 of 50,000); {PATHS} every picture", 0),
        (
            findings(6, n=30, n_classes=5),
            43.3,
            f"not comparable: other classes (5 in place of ImageNet's 1,000); {PATHS} every picture",
            0,
        ),
        (
            findings(21_650, n=60_000),
            43.3,
            f"not comparable: other images (60,000 in place of 50,000); {PATHS} every picture",
            0,
        ),
        (findings(6, n=30, n_classes=5), None, f"agrees: {PATHS} every picture", 0),
        (findings(6, n=30, kind="BWN"), None, "not comparable: one path only, and no published figure", 0),
        (
            findings(21_650, n_same=49_950),  # one in a thousand may be another sum's rounding
            43.3,
            f"agrees: the published 43.3 % {INSIDE} 43.30 % top-1; {PATHS} 49,950 of 50,000 pictures",
            0,
        ),
        (
            findings(21_650, n_same=49_949),
            43.3,
            "differs: the XNOR path predicts another class for 51 of 50,000 pictures",
            1,
        ),
        (findings(6, n=30, n_same=29), 43.3, "differs: the XNOR path predicts another class for 1 of 30 pictures", 1),
    ],
)
def test_verdicts(found: Findings, published: float | None, verdict: str, code: int) -> None:
    reached = verdict_of(found, published)
    assert str(reached) == verdict
    assert reached.exit_code == code


def test_a_flipped_filter_is_named_whatever_the_accuracy() -> None:
    wrong = LayerCheck("6.2", n_dots=1000, wrong_filters={7: 40, 9: 2})
    verdict = verdict_of(replace(findings(21_650), layers=(CLEAN, wrong)), 43.3)
    assert verdict.exit_code == 1
    assert str(verdict) == (
        "differs: layer 6.2, filter 7, 9 (counted from 1): 42 of 1,000 integer dot products are not those of the float "
        "network's signs"
    )


def test_outputs_and_numbers_of_a_packed_file() -> None:
    outputs = verdict_of(replace(findings(21_650), layers=(LayerCheck("6.2", wrong_outputs=3),)), 43.3)
    assert str(outputs) == "differs: layer 6.2: 3 outputs do not follow from its dot products"
    numbers = verdict_of(replace(findings(21_650), other_numbers=("6.alpha",)), 43.3)
    assert str(numbers) == "differs: 6.alpha of the packed file is not what packing the network gives"


def test_another_network_is_not_held_against_alexnet() -> None:
    """43.3 % is AlexNet's; the paper's ResNet-18 reaches 51.2."""
    verdict = verdict_of(findings(25_600), 43.3, other_network=True)
    assert (verdict.word, verdict.exit_code) == ("not comparable", 0)
    assert verdict.reason.startswith("the published figure is AlexNet's (--published); float and XNOR paths predict")
    assert verdict_of(findings(25_600), 43.3).word == "differs"
