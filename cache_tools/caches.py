"""caches: look after the cache files of a run, trainCache.t7, testCache.t7 and meanstdCache.t7.

main.py needs none of this: it makes missing caches, and finds the pictures below -data wherever a cache was made.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lua_compat
from cache_tools.console import add_quiet, progress_bar
from cache_tools.safe_tar import is_tar_name, open_tar, regular_members
from lua_compat import LuaTable, image
from xnornet_port.dataset import Dataset
from xnornet_port.dataset_cache import read_dataset, read_statistics
from xnornet_port.errors import XnorNetError
from xnornet_port.metadata import MEAN_STD_SAMPLES, open_metadata
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools caches unpack cache.tar                    # the published file: gives cache/ and checks it
  python -m cache_tools caches check cache                         # are they whole, are their pictures there?
  python -m cache_tools caches check cache --data ImageNet --read  # ... below ImageNet, and can each be read?
  python -m cache_tools caches relocate cache ImageNet             # write ImageNet into the paths they hold
  python -m cache_tools caches build ImageNet cache                # make those that are missing

exit codes: 0 done, 1 an error, told in one line, or `check` found something wrong, 2 wrong usage, 130 stopped by Ctrl-C
"""

DATA_CACHES = {"train": "trainCache.t7", "val": "testCache.t7"}
STATISTICS_CACHE = "meanstdCache.t7"
LARGEST_CACHE = 4 << 30
"""Bytes of a cache file in a tar; ImageNet's trainCache.t7 has about 0.3 GB."""

Say = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the four actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|unpack|relocate|build")

    check = actions.add_parser("check", help="are the caches whole and their pictures there? Exit code 1 if not")
    check.add_argument("cache", metavar="CACHE", help="folder of the cache files, or cache.tar")
    check.add_argument("--data", metavar="DATA", help="look for the pictures below DATA/train and DATA/val")
    check.add_argument("--read", action="store_true", help="read every picture, and name those that cannot be")

    unpack = actions.add_parser("unpack", help="the cache files out of cache.tar, whole ones only")
    unpack.add_argument("tar", type=Path, metavar="CACHE.TAR", help="the published cache.tar")
    unpack.add_argument("cache", nargs="?", default="cache", metavar="CACHE", help="folder to make (default: cache)")

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
    for action in (check, unpack, relocate, build):
        add_quiet(action)


def run(arguments: argparse.Namespace) -> int:
    """The command: 0, or 1 when `check` finds something wrong. Raises XnorNetError, which the caller prints."""
    actions = {"check": _check, "unpack": _unpack, "relocate": _relocate, "build": _build}
    return actions[arguments.action](arguments, _silence if arguments.quiet else print)


def _silence(line: str) -> None:
    """In place of print with --quiet."""


# ---- check ----


def _check(arguments: argparse.Namespace, say: Say) -> int:
    if not is_tar_name(Path(arguments.cache)):
        return _check_folder(arguments.cache, arguments.data, arguments.read, say, arguments.quiet)
    with tempfile.TemporaryDirectory(prefix="cache_tools-") as folder:
        for line in unpack_caches(Path(arguments.cache), Path(folder)):
            say(line)
        return _check_folder(folder, arguments.data, arguments.read, say, arguments.quiet)


def _check_folder(cache: str, data: str | None, read: bool, say: Say, quiet: bool) -> int:
    problems = 0
    classes = []
    for part, name in DATA_CACHES.items():
        file = os.path.join(cache, name)
        try:
            dataset = read_dataset(file)
            if data is not None:
                dataset = rebase(dataset, os.path.join(data, part), file)
        except XnorNetError as error:
            print(error)
            problems += 1
            continue
        say(f"{file}: {len(dataset.classes)} classes, {len(dataset)} pictures in {dataset.folder}")
        classes.append(dataset.classes)
        problems += _check_pictures(dataset, read, say, quiet)
    if len(classes) == 2 and classes[0] != classes[1]:
        print("the two data caches differ in their classes or the order of these: labels would be wrong")
        problems += 1
    problems += _check_statistics(os.path.join(cache, STATISTICS_CACHE), say)
    say("all is well" if problems == 0 else f"{problems} problem{'s' if problems > 1 else ''}")
    return 1 if problems else 0


def _check_pictures(dataset: Dataset, read: bool, say: Say, quiet: bool) -> int:
    """Look for every picture, or read it; returns how many kinds of trouble there are, 0 or 1."""
    troubles = []
    with progress_bar("reading pictures" if read else "looking for pictures", len(dataset), quiet) as done:
        for number in range(1, len(dataset) + 1):
            trouble = _picture_trouble(os.fsdecode(dataset.path(number)), read)
            if trouble:
                troubles.append(trouble)
            done(number)
    verb = "readable" if read else "there"
    say(f"  {len(dataset) - len(troubles)} of {len(dataset)} are {verb}")
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


def _check_statistics(file: str, say: Say) -> int:
    try:
        statistics = read_statistics(file)
    except XnorNetError as error:
        print(error)
        return 1
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (statistics.mean, statistics.std))
    say(f"{file}: mean {mean}, std {std}")
    return 0


# ---- unpack ----


def _unpack(arguments: argparse.Namespace, say: Say) -> int:
    for line in unpack_caches(arguments.tar, Path(arguments.cache)):
        say(line)
    for name in DATA_CACHES.values():
        dataset = read_dataset(os.path.join(arguments.cache, name))
        say(f"{name}: {len(dataset.classes)} classes, {len(dataset)} pictures, made for {dataset.folder}")
    _check_statistics(os.path.join(arguments.cache, STATISTICS_CACHE), say)
    say(f"check them against the pictures: python -m cache_tools caches check {arguments.cache} --data IMAGENET")
    return 0


def unpack_caches(path: Path, folder: Path) -> list[str]:
    """Write the three cache files of a tar into `folder`, whatever folder they lie in there; returns what was done.

    Other files are left out and named. Raises XnorNetError, before anything is written, for a tar that lacks one of
    them, has one twice, or holds anything hostile, and for a file that is there already and differs.
    """
    wanted = {*DATA_CACHES.values(), STATISTICS_CACHE}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished, open_tar(path) as tar:
        found, others = set(), []
        for name, member in regular_members(tar, path):
            if name not in wanted:
                others.append(member.name)
                continue
            stream = tar.extractfile(member)
            if name in found or stream is None or member.size > LARGEST_CACHE:
                raise XnorNetError(f"{path}: {name} is in it twice, or of {member.size} bytes; not a cache.tar")
            found.add(name)
            with open(os.path.join(unfinished, name), "wb") as file:
                shutil.copyfileobj(stream, file)
        if found != wanted:
            raise XnorNetError(f"{path}: not a cache.tar, it lacks {', '.join(sorted(wanted - found))}")
        for name in sorted(wanted):
            _move_unless_other(Path(unfinished) / name, folder / name)
    done = [f"{path}: {', '.join(sorted(wanted))} are in {folder}"]
    return done + ([f"left out: {', '.join(others)}"] if others else [])


def _move_unless_other(source: Path, target: Path) -> None:
    if target.exists() and target.read_bytes() != source.read_bytes():
        raise XnorNetError(f"{target}: there already, and other than the one in the tar; name another folder")
    os.replace(source, target)


# ---- relocate ----


def _relocate(arguments: argparse.Namespace, say: Say) -> int:
    output = arguments.output if arguments.output is not None else arguments.cache
    os.makedirs(output, exist_ok=True)
    for part, name in DATA_CACHES.items():
        source = os.path.join(arguments.cache, name)
        folder = os.path.join(arguments.data.rstrip("/") or "/", part)
        moved = rebase(read_dataset(source), folder, source)
        _rewrite(source, os.path.join(output, name), moved)
        there = os.path.isfile(moved.path(1))
        say(f"{os.path.join(output, name)}: {len(moved)} pictures in {folder}{'' if there else ' (not there yet)'}")
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


def _build(arguments: argparse.Namespace, say: Say) -> int:
    settings = Preprocessing(arguments.image_size, arguments.crop_size, arguments.scaling_factor, statistics=None)
    if arguments.samples < 1:
        raise XnorNetError(f"--samples is {arguments.samples}, expected at least 1")
    open_metadata(
        arguments.data,
        arguments.cache,
        settings,
        arguments.seed,
        say=say,
        progress=partial(progress_bar, quiet=arguments.quiet),
        n_samples=arguments.samples,
    )
    names = (*DATA_CACHES.values(), STATISTICS_CACHE)
    return 0 if all(os.path.isfile(os.path.join(arguments.cache, name)) for name in names) else 1
