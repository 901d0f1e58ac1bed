"""`cache_tools plot`: the curves of one or more runs, from their train.log and test.log, as a PNG picture."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

from cache_tools.console import add_quiet
from cache_tools.run_folder import first_epoch, learning_rates, read_curves
from cache_tools.svg_chart import is_drawable
from lua_compat.atomic_file import replace_file
from xnornet_port.errors import XnorNetError, one_line

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools plot cache/alexnetxnor,batchSize=8/SatNov2120:06:012026
  python -m cache_tools plot run1 run2 --output compare.png

exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 130 stopped by Ctrl-C
"""


class Panel(NamedTuple):
    """One set of axes: its title, and the columns of train.log and test.log (as the original names them)."""

    title: str
    train: str
    test: str


PANELS = (
    Panel("loss", "avg loss (train set)", "avg loss (test set)"),
    Panel("top-1, %", "% top1 accuracy (train set)", "% top1 accuracy (test set) "),
    Panel("top-5, %", "% top5 accuracy (train set)", "% top5 accuracy (test set) "),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNDIR", help="folder of a run, with train.log or test.log"
    )
    parser.add_argument("--output", type=Path, help="the picture (default: curves.png, of one run in its folder)")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw, say where the picture is, return 0. Raises XnorNetError for a folder without logs."""
    folder = arguments.runs[0] if len(arguments.runs) == 1 else Path()
    output: Path = arguments.output or folder / "curves.png"
    curves = [read_curves(folder) for folder in arguments.runs]
    figure = draw(arguments.runs, curves)
    known = figure.canvas.get_supported_filetypes()
    kind = output.suffix.lstrip(".").lower()
    if kind not in known:
        raise XnorNetError(f"{output}: the name should end in one of {', '.join('.' + name for name in sorted(known))}")
    with replace_file(output, sync=False) as file:
        figure.savefig(file, format=kind, dpi=120)
    if not arguments.quiet:
        print(output)
    return 0


def draw(folders: list[Path], curves: list[dict[str, list[float]]]) -> Any:
    """A matplotlib figure: a panel each for loss, top-1 and top-5, test full with dots, training dashed with squares.

    A last panel has the steps of the learning rate, where a run's options are known.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise XnorNetError("plot needs matplotlib: pip install matplotlib==3.11.2") from error
    rates = [learning_rates(folder, n_epochs(columns)) for folder, columns in zip(folders, curves, strict=True)]
    n_panels = len(PANELS) + any(rates)
    figure = Figure(figsize=(4 * n_panels, 3.6 + 0.2 * len(folders)), layout="constrained")
    axes = list(figure.subplots(1, n_panels))
    for one, panel in zip(axes, PANELS, strict=False):
        for color, (folder, columns) in enumerate(zip(folders, curves, strict=True)):
            label = run_label(folder) + " " if len(folders) > 1 else ""
            for column, style, part in ((panel.test, "o-", "test"), (panel.train, "s--", "training")):
                draw_line(one, folder, columns.get(column, []), f"C{color}{style}", label + part)
        finish(one, panel.title)
    if any(rates):
        for color, (folder, values) in enumerate(zip(folders, rates, strict=True)):
            draw_line(axes[-1], folder, values, f"C{color}-", run_label(folder), is_rate=True)
        axes[-1].set_yscale("log")
        finish(axes[-1], "learning rate")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def n_epochs(columns: dict[str, list[float]]) -> int:
    """Lines of the training log; a run that was only tested has no learning rate."""
    return len(columns.get(PANELS[0].train, []))


def run_label(folder: Path) -> str:
    """The end of its path, with nothing in it that matplotlib would take for a formula or for "not in the legend"."""
    place = folder.resolve()
    return one_line(f"{place.parent.name}/{place.name}"[-40:]).replace("$", r"\$").lstrip("_")


def draw_line(axes: Any, folder: Path, values: list[float], style: str, label: str, is_rate: bool = False) -> None:
    """Of one epoch training's square is around test's dot where the two coincide, and the rate is a dot: no step."""
    start = first_epoch(folder)
    values = [value if is_drawable(value) else math.nan for value in values]
    shape: dict[str, Any] = {"markersize": 4}
    if is_rate:
        shape |= {"drawstyle": "steps-post", "marker": "o" if len(values) == 1 else ""}
    elif style.endswith("--"):
        shape |= {"markersize": 7 if len(values) == 1 else 4, "markerfacecolor": "none"}
    axes.plot(range(start, start + len(values)), values, style, label=label, **shape)


def finish(axes: Any, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # with the usual 2 one epoch gets 0.96
    axes.grid(alpha=0.3)
