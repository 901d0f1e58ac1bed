"""parity: is this the published network, and do the XNOR kernels compute what float convolutions compute?

Validates each network once with float convolutions and, where it has binary inputs, once with the XNOR kernels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cache_tools.console import add_quiet, positive, progress_bar
from cache_tools.parity_page import page
from cache_tools.parity_run import Subject, findings_of, is_alexnet, open_subject, run_pictures
from cache_tools.parity_state import Progress, key_of
from cache_tools.parity_verdict import PUBLISHED_TOP1, Findings, Verdict, verdict_of
from lua_compat.atomic_file import replace_file
from xnornet_port.data import DataSource, open_data
from xnornet_port.errors import XnorNetError
from xnornet_port.metadata import check_data_folder

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools parity --data ImageNet --cache cache --model alexnet_XNOR.t7 --model alexnet_BWN.t7
  python -m cache_tools parity --data ImageNet --cache cache --model alexnet_XNOR.t7 --pictures 1000 --html parity.html
  python -m cache_tools parity --data digits --cache cache --model model_3.t7 --published none --json
  python -m cache_tools parity --data ImageNet --cache cache --model model.t7 --packed model.xnor.safetensors

A run that was stopped (Ctrl-C) goes on where it was when it is started again: it is kept in a file until it has ended.
exit codes: 0 every verdict is "agrees" or "not comparable", 1 one is "differs", or an error, told in one line,
2 wrong usage, 130 stopped by Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--data", required=True, type=Path, help="folder with val/CLASS/PICTURE")
    parser.add_argument(
        "--model", required=True, type=Path, action="append", dest="models", metavar="FILE", help=".t7 or packed file"
    )
    parser.add_argument("--packed", type=Path, metavar="FILE", help="packed form of --model to test, as it is")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of the caches (default: cache)")
    parser.add_argument("--pictures", type=positive, metavar="N", help="test the first N pictures only")
    parser.add_argument(
        "--dots", type=positive_or_all, default=256, metavar="N",
        help="pictures whose integer dot products are compared, or all, which takes twice the time (default: 256)",
    )  # fmt: skip
    parser.add_argument(
        "--published", type=percent_or_none, default="by kind", metavar="PERCENT",
        help="top-1 to compare with, or none (default: AlexNet's, 43.3 with binary inputs, 56.8 with binary weights)",
    )  # fmt: skip
    parser.add_argument("--binary-weight", action="store_true", help="binarise a network that bears no mark of it")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures at a time (default: 32)")
    parser.add_argument("--donkeys", type=int, default=2, metavar="N", help="processes that read pictures (default: 2)")
    parser.add_argument("--image-size", type=positive, default=256, help="shorter side after scaling (default: 256)")
    parser.add_argument("--crop-size", type=positive, default=224, help="side of the network's input (default: 224)")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="where the run is kept (default: in --cache, until it has ended)"
    )
    parser.add_argument("--restart", action="store_true", help="do not go on with a run that was stopped")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs nothing else")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Validate every model; 0, or 1 where a verdict is "differs". Raises XnorNetError, which the caller prints."""
    if len(arguments.models) > 1 and (arguments.packed or arguments.state):
        raise XnorNetError("--packed and --state go with one --model")
    check_data_folder(str(arguments.data), ["val"])
    if arguments.html and not arguments.html.parent.is_dir():
        raise XnorNetError(f"{arguments.html}: the folder {arguments.html.parent} does not exist")
    states: list[Path] = []
    reports = [validated(path, arguments, states) for path in arguments.models]
    if arguments.json:
        print(json.dumps(reports, indent=2))
    if arguments.html:
        with replace_file(arguments.html) as file:
            file.write(page(reports).encode())
    if arguments.state is None:  # only now: had the last model or the page failed, nothing need be tested again
        for state in states:
            state.unlink(missing_ok=True)
    return max(int(report["exit_code"]) for report in reports)


def validated(path: Path, arguments: argparse.Namespace, states: list[Path]) -> dict[str, Any]:
    """One model: test it, print what was found (unless JSON is asked for), and give it back.

    The file of its state is added to `states`.
    """
    subject = open_subject(path, arguments.packed, arguments.binary_weight)
    with opened(subject, arguments) as data:
        n_pictures = min(arguments.pictures or data.n_test, data.n_test)
        progress, state = tested(path, subject, data, n_pictures, arguments)
        states.append(state)
        findings = findings_of(subject, progress, data.n_test)
    by_kind = arguments.published == "by kind"
    published = PUBLISHED_TOP1.get(subject.kind) if by_kind else arguments.published
    verdict = verdict_of(findings, published, other_network=by_kind and not is_alexnet(subject.network))
    report = as_report(path, subject, findings, published, verdict, progress.n_unreadable)
    if not arguments.json:
        print("\n".join(lines(report) if not arguments.quiet else lines(report)[-1:]))
    return report


def tested(
    path: Path, subject: Subject, data: DataSource, n_pictures: int, arguments: argparse.Namespace
) -> tuple[Progress, Path]:
    """All pictures, going on from the state of a run that was stopped; and the file of that state."""
    names = ("data", "batch_size", "image_size", "crop_size", "dots", "binary_weight")
    settings = {name: getattr(arguments, name) for name in names} | {"n_pictures": n_pictures, "n_test": data.n_test}
    key = key_of([path, arguments.packed], settings)
    file = arguments.state or arguments.cache / f"parity-{path.stem}-{key[:8]}.safetensors"
    progress = Progress(n_pictures, subject.model is not None)
    if not arguments.restart and progress.read(file, key) and not arguments.quiet and not arguments.json:
        print(f"{file}: {progress.n_done:,} of {n_pictures:,} pictures were tested before")
    n_dots = n_pictures if arguments.dots == "all" else arguments.dots
    with progress_bar(path.name, n_pictures, arguments.quiet) as done:
        done(progress.n_done)
        if progress.n_done < n_pictures:
            save = partial(progress.write, file, key)
            save()  # where it cannot be written, better now than in a minute
            run_pictures(subject, data, arguments.batch_size, n_pictures, n_dots, progress, save, done)
    return progress, file


def opened(subject: Subject, arguments: argparse.Namespace) -> DataSource:
    return open_data(
        str(arguments.data),
        str(arguments.cache),
        image_size=arguments.image_size,
        crop_size=arguments.crop_size,
        n_classes=subject.n_classes,
        scaling_factor=0,
        n_donkeys=arguments.donkeys,
        manual_seed=2,
        say=lambda line: None,
        training=False,
    )


def as_report(
    path: Path, subject: Subject, findings: Findings, published: float | None, verdict: Verdict, n_unreadable: int
) -> dict[str, Any]:
    """Everything about one model, as JSON has it."""
    figures = asdict(findings)
    for name in ("top1", "top5", "xnor_top1", "xnor_top5"):
        accuracy = getattr(findings, name)
        figures[name] = accuracy and {
            "hits": accuracy.hits, "percent": accuracy.percent, "interval_95": list(accuracy.interval)
        }  # fmt: skip
    return {
        "model": str(path),
        "weights": subject.weights,
        **figures,
        "n_unreadable": n_unreadable,
        "published_top1": published,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
    }


def lines(report: dict[str, Any]) -> list[str]:
    """What is printed about one model; the verdict comes last."""
    found = [
        f"{report['model']}: {report['kind']}, {report['n_classes']:,} classes; weights {report['weights']}",
        f"  {report['n_pictures']:,} of {report['n_available']:,} pictures"
        + (f", {report['n_unreadable']} unreadable (mean colour)" if report["n_unreadable"] else ""),
        f"  float convolutions  top-1 {accuracy_text(report['top1'])}  top-5 {accuracy_text(report['top5'])}",
    ]
    if report["xnor_top1"]:
        found += [
            f"  XNOR kernels        top-1 {accuracy_text(report['xnor_top1'])}  top-5 "
            f"{accuracy_text(report['xnor_top5'])}",
            f"  same top-1 for {report['n_same']:,} of {report['n_pictures']:,} pictures; largest difference of "
            f"log-probabilities {report['largest_difference']:.1e}",
            f"  integer dot products of {report['n_checked']:,} pictures against float convolutions of signs:",
            *(f"    {layer_text(layer)}" for layer in report["layers"]),
        ]
    return [*found, f"{report['model']}: {report['verdict']}: {report['reason']}"]


def accuracy_text(accuracy: dict[str, Any]) -> str:
    """43.31 % (95 %: 42.88 to 43.75)"""
    low, high = accuracy["interval_95"]
    return f"{accuracy['percent']:.2f} % (95 %: {low:.2f} to {high:.2f})"


def layer_text(layer: dict[str, Any]) -> str:
    """One binary layer's line."""
    n_wrong = sum(layer["wrong_filters"].values())
    if n_wrong:
        result = f"{n_wrong:,} of {layer['n_dots']:,} differ, in {len(layer['wrong_filters'])} filters"
    else:
        result = f"all {layer['n_dots']:,} equal"
    if layer["wrong_outputs"]:
        result += f"; {layer['wrong_outputs']:,} outputs do not follow from them"
    if layer["n_signs"]:
        result += f"; {layer['other_signs']:,} of {layer['n_signs']:,} input signs other than on the float path"
    return f"layer {layer['place']}: {result}"


def positive_or_all(text: str) -> int | str:
    """A whole number from 1 on, or all."""
    return text if text == "all" else positive(text)


def percent_or_none(text: str) -> float | str | None:
    """A percentage, or none."""
    if text in ("none", "by kind"):
        return None if text == "none" else text
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage or none, found {text!r}")
    return percent
