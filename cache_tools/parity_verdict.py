"""What a parity run found, in numbers, and the verdict on it in one line."""

from __future__ import annotations

from dataclasses import dataclass, field

from scipy.stats import binomtest

__all__ = ["Accuracy", "Findings", "LayerCheck", "Verdict", "verdict_of"]

IMAGENET_CLASSES, IMAGENET_PICTURES = 1000, 50_000
PUBLISHED_TOP1 = {"XNOR": 43.3, "BWN": 56.8}  # per cent, README of allenai/XNOR-Net
ROUNDING = 0.05  # of the published figures, which have one decimal
# Of the pictures: a float convolution rounds its sum, so that a sign next to its threshold may take the other side.
ALLOWED_DISAGREEMENT = 0.001


@dataclass(frozen=True)
class Accuracy:
    """How many of `n` pictures were right."""

    hits: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (Wilson), in per cent."""
        found = binomtest(self.hits, self.n).proportion_ci(0.95, method="wilson")
        return 100 * found.low, 100 * found.high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.percent:.2f} % (95 %: {low:.2f} to {high:.2f})"


@dataclass
class LayerCheck:
    """One binary layer of the packed network against float convolutions of signs."""

    place: str
    n_dots: int = 0  # integer dot products compared
    wrong_filters: dict[int, int] = field(default_factory=dict)  # filter, from 1 -> how many of its dot products differ
    wrong_outputs: int = 0  # what the layer hands on: bits by threshold, or scaled numbers
    n_signs: int = 0  # of its input, compared with the float network's
    other_signs: int = 0

    @property
    def is_exact(self) -> bool:
        return not self.wrong_filters and not self.wrong_outputs


@dataclass(frozen=True)
class Findings:
    """A network tested. `xnor` figures are None where it has no binary inputs."""

    kind: str  # "XNOR", "BWN" or "real-valued"
    n_classes: int
    n_pictures: int  # tested
    n_available: int
    top1: Accuracy
    top5: Accuracy
    xnor_top1: Accuracy | None
    xnor_top5: Accuracy | None
    n_same: int  # pictures for which both paths predict the same class
    largest_difference: float  # of their log-probabilities
    n_checked: int  # pictures whose dot products were compared
    layers: tuple[LayerCheck, ...]
    other_numbers: tuple[str, ...] = ()  # names in a packed file that are not what packing the network gives


@dataclass(frozen=True)
class Verdict:
    """`word` is agrees, differs or not comparable."""

    word: str
    reason: str

    @property
    def exit_code(self) -> int:
        """1 where something differs; 0 where all agrees, or what could be compared does."""
        return int(self.word == "differs")

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"


def verdict_of(findings: Findings, published: float | None, other_network: bool = False) -> Verdict:
    """`published`: the top-1 to compare with, in per cent; None compares the two paths only.

    `other_network`: that figure is not of networks of this shape.
    """
    wrong = _what_is_wrong(findings)
    if wrong:
        return Verdict("differs", wrong)
    paths = _paths(findings)
    if published is None:
        return Verdict("agrees" if paths else "not comparable", paths or "one path only, and no published figure")
    obstacle = _obstacle(findings) or ("the published figure is AlexNet's (--published)" if other_network else "")
    if obstacle:
        return Verdict("not comparable", f"{obstacle}{'; ' if paths else ''}{paths}")
    measured = findings.xnor_top1 or findings.top1
    low, high = measured.interval
    is_inside = low - ROUNDING <= published <= high + ROUNDING
    relation = "within" if is_inside else "outside"
    reason = f"the published {published:g} % is {relation} the 95 % interval of {measured.percent:.2f} % top-1"
    return Verdict("agrees" if is_inside else "differs", f"{reason}{'; ' if paths else ''}{paths}")


def _what_is_wrong(findings: Findings) -> str:
    """Where the packed network does not compute what the float one does."""
    for layer in findings.layers:
        if layer.wrong_filters:
            names = ", ".join(str(number) for number in sorted(layer.wrong_filters)[:5])
            more = f" and {len(layer.wrong_filters) - 5} more" if len(layer.wrong_filters) > 5 else ""
            count = sum(layer.wrong_filters.values())
            return (
                f"layer {layer.place}, filter {names}{more} (counted from 1): {count:,} of {layer.n_dots:,} integer "
                "dot products are not those of the float network's signs"
            )
        if layer.wrong_outputs:
            return f"layer {layer.place}: {layer.wrong_outputs:,} outputs do not follow from its dot products"
    if findings.other_numbers:
        return f"{findings.other_numbers[0]} of the packed file is not what packing the network gives"
    disagreeing = findings.n_pictures - findings.n_same
    if findings.xnor_top1 is not None and disagreeing > ALLOWED_DISAGREEMENT * findings.n_pictures:
        return f"the XNOR path predicts another class for {disagreeing:,} of {findings.n_pictures:,} pictures"
    return ""


def _paths(findings: Findings) -> str:
    if findings.xnor_top1 is None:
        return ""
    same = "every picture" if findings.n_same == findings.n_pictures else (
        f"{findings.n_same:,} of {findings.n_pictures:,} pictures"
    )  # fmt: skip
    return f"float and XNOR paths predict the same for {same}"


def _obstacle(findings: Findings) -> str:
    """Why the accuracy cannot be held against the published one."""
    if findings.n_classes != IMAGENET_CLASSES:
        return f"other classes ({findings.n_classes} in place of ImageNet's {IMAGENET_CLASSES:,})"
    if findings.n_pictures < IMAGENET_PICTURES:
        return f"too few images ({findings.n_pictures:,} of {IMAGENET_PICTURES:,})"
    if findings.n_pictures > IMAGENET_PICTURES:
        return f"other images ({findings.n_pictures:,} in place of {IMAGENET_PICTURES:,})"
    return ""
