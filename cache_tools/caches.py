"""caches: look after the cache files of a run, trainCache.t7, testCache.t7 and meanstdCache.t7.

    python -m cache_tools caches check CACHE                      # are they whole, are their pictures there?
    python -m cache_tools caches check CACHE --data DATA --read   # ... below DATA, and can each be read?
    python -m cache_tools caches relocate CACHE DATA              # write DATA into the paths they hold
    python -m cache_tools caches build DATA CACHE                 # make those that are missing

main.py needs none of this: it makes missing caches, and finds the pictures below -data wherever a cache was made.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lua_compat
from lua_compat import LuaTable, image
from xnornet_port.dataset import Dataset
from xnornet_port.dataset_cache import read_dataset, read_statistics
from xnornet_port.errors import XnorNetError
from xnornet_port.metadata import MEAN_STD_SAMPLES, open_metadata
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing

__all__ = ["add_arguments", "run"]

DATA_CACHES = {"train": "trainCache.t7", "val": "testCache.t7"}
STATISTICS_CACHE = "meanstdCache.t7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|relocate|build")

    check = actions.add_parser("check", help="are the caches whole and their pictures there? Exit code 1 if not")
    check.add_argument("cache", metavar="CACHE", help="folder of the cache files")
    check.add_argument("--data", metavar="DATA", help="look for the pictures below DATA/train and DATA/val")
    check.add_argument("--read", action="store_true", help="read every picture, and name those that cannot be")

    relocate = actions.add_parser("relocate", help="write another data folder into the paths the caches hold")
    relocate.add_argument("cache", metavar="CACHE", help="folder of the cache files")
    relocate.add_argument("data", metavar="DATA", help="data folder with train/ and val/ in it")
    relocate.add_argument("--output", metavar="FOLDER", help="leave the caches as they are, write new ones here")

    build = actions.add_parser("build", help="make the caches that are missing, as main.py would")
    build.add_argument("data", metavar="DATA", help="data folder with train/ and val/ in it")
    build.add_argument("cache", metavar="CACHE", help="folder for the cache files")
    build.add_argument("--image-size", type=int, default=256, help="main.py's -imageSize (default 256)")
    build.add_argument("--crop-size", type=int, default=224, help="main.py's -cropSize (default 224)")
    build.add_argument("--scaling-factor", type=float, default=0.0, help="main.py's -scalingFactor (default 0)")
    build.add_argument("--seed", type=int, default=2, help="main.py's -manualSeed (default 2)")
    build.add_argument(
        *("--samples", "--n-samples"),
        type=int,
        default=MEAN_STD_SAMPLES,
        help=f"pictures to estimate the mean on, and again for the deviation (default {MEAN_STD_SAMPLES})",
    )


def run(arguments: argparse.Namespace) -> int:
    """The command: 0, or 1 when `check` finds something wrong. Raises XnorNetError, which the caller prints."""
    actions = {"check": _check, "relocate": _relocate, "build": _build}
    return actions[arguments.action](arguments)


# ---- check ----


def _check(arguments: argparse.Namespace) -> int:
    problems = 0
    classes = []
    for part, name in DATA_CACHES.items():
        file = os.path.join(arguments.cache, name)
        try:
            dataset = read_dataset(file)
            if arguments.data is not None:
                dataset = rebase(dataset, os.path.join(arguments.data, part), file)
        except XnorNetError as error:
            print(error)
            problems += 1
            continue
        print(f"{file}: {len(dataset.classes)} classes, {len(dataset)} pictures in {dataset.folder}")
        classes.append(dataset.classes)
        problems += _check_pictures(dataset, arguments.read)
    if len(classes) == 2 and classes[0] != classes[1]:
        print("the two data caches differ in their classes or the order of these: labels would be wrong")
        problems += 1
    problems += _check_statistics(os.path.join(arguments.cache, STATISTICS_CACHE))
    print("all is well" if problems == 0 else f"{problems} problem{'s' if problems > 1 else ''}")
    return 1 if problems else 0


def _check_pictures(dataset: Dataset, read: bool) -> int:
    """Look for every picture, or read it; returns how many kinds of trouble there are, 0 or 1."""
    troubles = []
    with progress_bar("reading pictures" if read else "looking for pictures", len(dataset)) as done:
        for number in range(1, len(dataset) + 1):
            trouble = _picture_trouble(os.fsdecode(dataset.path(number)), read)
            if trouble:
                troubles.append(trouble)
            done(number)
    verb = "readable" if read else "there"
    print(f"  {len(dataset) - len(troubles)} of {len(dataset)} are {verb}")
    shown = troubles if read else troubles[:3]
    for trouble in shown:
        print(f"  {trouble}")
    if len(shown) < len(troubles):
        print(f"  ... and {len(troubles) - len(shown)} more")
    return 1 if troubles else 0


def _picture_trouble(path: str, read: bool) -> str | None:
    if not read:
        return None if os.path.isfile(path) else f"{path}: not there"
    try:
        image.decode(path)
    except lua_compat.ImageError as error:
        return str(error)
    return None


def _check_statistics(file: str) -> int:
    try:
        statistics = read_statistics(file)
    except XnorNetError as error:
        print(error)
        return 1
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (statistics.mean, statistics.std))
    print(f"{file}: mean {mean}, std {std}")
    return 0


# ---- relocate ----


def _relocate(arguments: argparse.Namespace) -> int:
    output = arguments.output if arguments.output is not None else arguments.cache
    os.makedirs(output, exist_ok=True)
    for part, name in DATA_CACHES.items():
        source = os.path.join(arguments.cache, name)
        folder = os.path.join(arguments.data.rstrip("/") or "/", part)
        moved = rebase(read_dataset(source), folder, source)
        _rewrite(source, os.path.join(output, name), moved)
        there = os.path.isfile(moved.path(1))
        print(f"{os.path.join(output, name)}: {len(moved)} pictures in {folder}{'' if there else ' (not there yet)'}")
    statistics = os.path.join(arguments.cache, STATISTICS_CACHE)
    if os.path.isfile(statistics) and not os.path.samefile(arguments.cache, output):
        shutil.copyfile(statistics, os.path.join(output, STATISTICS_CACHE))
    return 0


def _rewrite(source: str, target: str, moved: Dataset) -> None:
    """The object in `source` with other paths and every other field as it is."""
    fields = lua_compat.load(source)
    fields["paths"] = LuaTable([os.fsencode(moved.folder)])
    fields["imagePath"] = lua_compat.tensor(moved.image_path, "torch.CharTensor")
    lua_compat.save(target, fields)


# ---- build ----


def _build(arguments: argparse.Namespace) -> int:
    settings = Preprocessing(arguments.image_size, arguments.crop_size, arguments.scaling_factor, statistics=None)
    if arguments.samples < 1:
        raise XnorNetError(f"--samples is {arguments.samples}, expected at least 1")
    open_metadata(
        arguments.data,
        arguments.cache,
        settings,
        arguments.seed,
        say=print,
        progress=progress_bar,
        n_samples=arguments.samples,
    )
    names = (*DATA_CACHES.values(), STATISTICS_CACHE)
    return 0 if all(os.path.isfile(os.path.join(arguments.cache, name)) for name in names) else 1


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)
