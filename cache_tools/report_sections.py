"""The sections of a run's page, each as HTML."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from cache_tools.class_names import ClassNames
from cache_tools.page import definitions, details, figure, legend, png_source, section, table, text
from cache_tools.plot import PANELS
from cache_tools.report_gallery import Gallery, Judged, picture_source, worst_confusions
from cache_tools.svg_chart import Series, histogram, line_chart
from cache_tools.weight_pictures import Flips, filter_picture, layer_weights

__all__ = ["curves", "filters", "gallery_section", "header", "record_section", "weights_section"]

Columns = Mapping[str, Sequence[float]]
MOST_IN_TABLE = 20
"""Classes of a confusion matrix that is a table; a larger one is a picture."""
CONFUSION_COLOR = (60, 130, 215)


# ---- head and curves ----


def header(folder: Path, columns: Columns, record: Mapping[str, Any], options: Mapping[str, Any], first: int) -> str:
    """The run's name and the figures people look for first."""
    loss, top1, top5 = (columns.get(panel.test, []) for panel in PANELS)
    n_epochs = max((len(values) for values in columns.values()), default=0)
    numbers: list[tuple[str, str]] = []
    finite = [value for value in top1 if math.isfinite(value)]
    if finite:
        best = max(finite)
        numbers.append((f"{best:.2f} %", f"best test top-1, epoch {first + list(top1).index(best)}"))
    for values, name, unit in (
        (top1, "last test top-1", " %"),
        (top5, "last test top-5", " %"),
        (loss, "last test loss", ""),
    ):
        if values:
            numbers.append((f"{values[-1]:.{3 if not unit else 2}f}{unit}", name))
    numbers.append((str(n_epochs), "epochs" if n_epochs != 1 else "epoch"))
    took = duration(folder, record)
    if took:
        numbers.append((took, "from start to last line"))
    shown = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for value, name in numbers)
    place = folder.resolve()
    known = [str(options[name]) for name in ("netType", "optimType") if name in options]
    known += ["binary weights"] if options.get("binaryWeight") in (True, "t", "true") else []
    line = ", ".join([*known, place.name])
    return (
        f"<header><h1>{text(place.parent.name).replace(',', ',<wbr>')}</h1><p class=faint>{text(line)}</p>"
        f"<div class=numbers>{shown}</div></header>"
    )


def duration(folder: Path, record: Mapping[str, Any]) -> str | None:
    """From the record's start to the last change of a log; None where that is not known, or the run was resumed."""
    logs = [folder / name for name in ("train.log", "test.log") if (folder / name).is_file()]
    if not isinstance(record.get("started"), str) or record.get("resumed") or not logs:
        return None
    try:
        start = datetime.fromisoformat(record["started"]).timestamp()
    except ValueError:
        return None
    seconds = max(log.stat().st_mtime for log in logs) - start
    if seconds < 0:
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def curves(columns: Columns, first: int, rates: Callable[[int], list[float]]) -> str:
    """Loss, top-1 and top-5 of training and test, and the steps of the learning rate."""
    cards = []
    n_epochs = max((len(values) for values in columns.values()), default=0)
    epochs = list(range(first, first + n_epochs))
    for panel in PANELS:
        lines = [
            Series("test", columns.get(panel.test, []), 0),
            Series("training", columns.get(panel.train, []), 1, True),
        ]
        lines = [line for line in lines if len(line.values)]
        names = legend((line.name, line.color, line.dashed) for line in lines)
        cards.append(figure(panel.title, line_chart(epochs, lines, "epoch", panel.title), names))
    found = rates(n_epochs) if "avg loss (train set)" in columns else []
    if found:
        chart = line_chart(epochs, [Series("learning rate", found, 2)], "epoch", "learning rate", steps=True)
        cards.append(figure("learning rate", chart))
    return section("Curves", f"<div class=grid>{''.join(cards)}</div>")


# ---- weights ----


def filters(network: nn.Module, epoch: int) -> str:
    """The first layer, as a picture."""
    found = filter_picture(network)
    if found is None:
        return section("First layer", "<p class=none>Not shown: the first layer is no convolution of pixels.</p>")
    data, caption = found
    picture = f'<img class=filters alt="filters" src="{png_source(data)}">'
    note = f"{caption}; after epoch {epoch}, each from its least (dark) to its largest weight"
    return section("First layer", f"<div class=card>{picture}<p class=faint>{text(note)}</p></div>")


def weights_section(network: nn.Module, epoch: int, flips: Flips) -> str:
    """Latent weights, factors, and signs that change, of the layers between the first and the last."""
    layers = layer_weights(network)
    if not layers:
        return section("Binary layers", "<p class=none>The network has no convolutions but the first and the last.</p>")
    parts = []
    if len(flips.epochs) > 1:
        lines = [Series(name, values, number) for number, (name, values) in enumerate(flips.layers.items())]
        chart = line_chart(flips.epochs, lines, "epoch", "signs changed")
        names = legend((f"layer {line.name}", line.color, False) for line in lines)
        parts.append(
            "<div class=grid>" + figure("signs that an epoch changed, %", chart, names) + "</div>"
            "<p class=faint>Of each layer's weights, against the network saved before.</p>"
        )
    else:
        parts.append("<p class=none>Signs that change from epoch to epoch take two saved networks; there is one.</p>")
    weights, alphas = [], []
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        note = f"mean |w| {layer.mean_magnitude:.3g}" + (f", {layer.at_limit:.1%} at ±1" if layer.at_limit else "")
        note += f", {layer.not_finite:,} nan or infinite: training has diverged" if layer.not_finite else ""
        bars = histogram(layer.counts, -layer.limit, layer.limit, f"weights of layer {layer.name}")
        weights.append(figure(f"layer {layer.name}", bars, f"<p class=faint>{text(shape)}; {text(note)}</p>"))
        bars = histogram(layer.alpha_counts, 0, layer.alpha_limit, f"alphas of layer {layer.name}")
        alphas.append(figure(f"layer {layer.name}", bars))
    parts += [f"<h3>latent weights, after epoch {epoch}</h3><div class='grid small'>{''.join(weights)}</div>"]
    parts += [f"<h3>alpha of each filter (mean |w|)</h3><div class='grid small'>{''.join(alphas)}</div>"]
    return section("Binary layers", *parts)


# ---- pictures ----


def gallery_section(gallery: Gallery | None, epoch: int, names: ClassNames, why_not: str) -> str:
    """Right and wrong answers, and which classes are taken for which."""
    if gallery is None:
        return section("Pictures", f"<p class=none>Not shown: {text(why_not)}.</p>")
    n = gallery.n_tested
    of_all = f"all {n:,}" if n == gallery.n_pictures else f"{n:,} of {gallery.n_pictures:,}, evenly spread"
    share = f"{gallery.n_right / n:.2%}" if n else "none"
    unreadable = f", {gallery.n_unreadable} unreadable" if gallery.n_unreadable else ""
    parts = [f"<p>Network of epoch {epoch} on the test pictures ({of_all}{unreadable}): {share} right.</p>"]
    for title, some, is_right in (
        (f"right ({gallery.n_right:,})", gallery.right, True),
        (f"wrong ({n - gallery.n_right:,}), the surest first", gallery.wrong, False),
    ):
        shown = "".join(_picture(one, names, is_right) for one in some) or "<p class=none>none</p>"
        parts.append(f"<h3>{text(title)}</h3><div class=pictures>{shown}</div>")
    parts += _confusion(gallery, names)
    return section("Pictures", *parts)


def _picture(one: Judged, names: ClassNames, is_right: bool) -> str:
    caption = f"{text(names.title(one.guess))} {one.guess_probability:.0%}"
    if not is_right:
        caption += f"<br>is {text(names.title(one.label))} {one.label_probability:.0%}"
    return (
        f'<figure{"" if is_right else " class=bad"}><div class=frame><img alt="" title="{text(Path(one.path).name)}" '
        f'src="{picture_source(one.path)}"></div><figcaption>{caption}</figcaption></figure>'
    )


def _confusion(gallery: Gallery, names: ClassNames) -> list[str]:
    if gallery.confusion is None:
        return [f"<p class=none>No confusion matrix: {len(gallery.classes):,} classes are more than 100.</p>"]
    parts = ["<h3>confusions: rows are classes, columns the answers</h3>"]
    if len(gallery.classes) <= MOST_IN_TABLE:
        parts.append(_confusion_table(gallery, names))
    else:
        source = png_source(_confusion_picture(gallery))
        parts.append(f'<img class=confusion alt="confusion matrix" src="{source}">')
    mistakes = [(count, names.title(label), names.title(guess)) for count, label, guess in worst_confusions(gallery)]
    if mistakes:
        parts.append(details("most frequent mistakes", table(("times", "is", "was taken for"), mistakes), is_open=True))
    return parts


def _shares(gallery: Gallery) -> Any:
    """Each row's counts as shares of its pictures."""
    counts = np.asarray(gallery.confusion, dtype=float)
    return counts / np.maximum(1, counts.sum(axis=1, keepdims=True))


def _confusion_table(gallery: Gallery, names: ClassNames) -> str:
    titles = [names.title(number) for number in range(1, len(gallery.classes) + 1)]
    head = "<tr><th></th>" + "".join(f"<th class=down>{text(title)}</th>" for title in titles) + "</tr>"
    rows = []
    for title, counts, shares in zip(titles, np.asarray(gallery.confusion), _shares(gallery), strict=True):
        cells = "".join(
            f"<td class=cell style='--share:{share * 70:.0f}%'>{count or ''}</td>"
            for count, share in zip(counts, shares, strict=True)
        )
        rows.append(f"<tr><th class=n>{text(title)}</th>{cells}</tr>")
    return f"<div class=scroll><table>{head}{''.join(rows)}</table></div>"


def _confusion_picture(gallery: Gallery) -> bytes:
    """A dot per pair of classes, the fuller the larger its share of the row; transparent, for any background."""
    shares = _shares(gallery)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = CONFUSION_COLOR
    pixels[..., 3] = np.round(255 * np.sqrt(shares)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((shares.shape[1] * 6, shares.shape[0] * 6), Image.Resampling.NEAREST)
    output = io.BytesIO()
    picture.save(output, "PNG", optimize=True)
    return output.getvalue()


# ---- record ----


def record_section(folder: Path, record: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """With what the run was made."""
    if not record:
        why = "it is the original's, or an old one" + ("; what follows is in its folder's name" if options else "")
        known = definitions((name, value) for name, value in options.items())
        return section("Record", f"<p class=none>The run has no options.json: {text(why)}.</p>", known)
    machine = record.get("machine") if isinstance(record.get("machine"), dict) else {}
    versions = record.get("versions") if isinstance(record.get("versions"), dict) else {}
    command = record.get("command")
    pairs: list[tuple[str, object]] = [
        ("started", record.get("started", "not recorded")),
        ("seed", options.get("manualSeed", "not recorded")),
        ("device", record.get("device", "not recorded")),
        *(machine or {}).items(),
        *((f"{name} version", value) for name, value in (versions or {}).items()),
        ("command", shlex.join(map(str, command)) if isinstance(command, list) else "not recorded"),
        ("folder", folder.resolve()),
    ]
    pairs += [("resumed", again.get("started", "")) for again in record.get("resumed", []) if isinstance(again, dict)]
    rows = [(name, _shown(value)) for name, value in sorted(options.items(), key=lambda pair: pair[0].lower())]
    return section("Record", definitions(pairs), details("all options", table(("option", "value"), rows)))


def _shown(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
