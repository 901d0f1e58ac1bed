"""caches: look after the cache files of a run, trainCache.t7, testCache.t7 and meanstdCache.t7.

main.py needs none of this: it makes missing caches, and finds the pictures below -data wherever a cache was made.
"""

import argparse
import filecmp
import io
import os
import shutil
import sys
import tarfile
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
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing

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
CACHES = (*DATA_CACHES.values(), STATISTICS_CACHE)
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
        return _check_folder(arguments.cache, arguments, say, print)
    with tempfile.TemporaryDirectory(prefix="cache_tools-") as folder:

        def renamed(out: Say) -> Say:
            return lambda line: out(line.replace(f"{folder}/", f"{arguments.cache}, "))

        unpack_caches(Path(arguments.cache), Path(folder))
        return _check_folder(folder, arguments, renamed(say), renamed(print))


def _check_folder(cache: str, arguments: argparse.Namespace, say: Say, tell: Say) -> int:
    """`say` is for remarks, `tell` for what is wrong."""
    problems = 0
    classes = []
    for part, name in DATA_CACHES.items():
        file = os.path.join(cache, name)
        try:
            dataset = read_dataset(file)
            if arguments.data is not None:
                dataset = rebase(dataset, os.path.join(arguments.data, part), file)
        except XnorNetError as error:
            tell(str(error))
            problems += 1
            continue
        say(f"{file}: {len(dataset.classes)} classes, {len(dataset)} pictures in {dataset.folder}")
        classes.append(dataset.classes)
        problems += _check_pictures(dataset, arguments.read, say, arguments.quiet)
    if len(classes) == 2 and classes[0] != classes[1]:
        tell("the two data caches differ in their classes or the order of these: labels would be wrong")
        problems += 1
    try:
        file = os.path.join(cache, STATISTICS_CACHE)
        say(f"{file}: {_statistics_text(read_statistics(file))}")
    except XnorNetError as error:
        tell(str(error))
        problems += 1
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


def _statistics_text(statistics: ChannelStatistics) -> str:
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (statistics.mean, statistics.std))
    return f"mean {mean}, std {std}"


# ---- unpack ----


def _unpack(arguments: argparse.Namespace, say: Say) -> int:
    for line in unpack_caches(arguments.tar, Path(arguments.cache)):
        say(line)
    say(f"check them against the pictures: python -m cache_tools caches check {arguments.cache} --data IMAGENET")
    return 0


def unpack_caches(path: Path, folder: Path) -> list[str]:
    """Write the three cache files of a tar into `folder`, whatever folder they lie in there; returns what was done.

    Other files are left out and named. Raises XnorNetError, and nothing is written, for a tar that lacks one of them,
    has one twice, or holds anything hostile, for a cache that cannot be read, and for a file that is there already and
    differs.
    """
    with open_tar(path) as tar:
        members, others = _cache_members(tar, path)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder) as unfinished:
            for name, member in members.items():
                with open(os.path.join(unfinished, name), "wb") as file:
                    shutil.copyfileobj(tar.extractfile(member) or io.BytesIO(), file)
            contents = [f"{name}: {_contents(os.path.join(unfinished, name), f'{path}, {name}')}" for name in CACHES]
            for name in members:
                _require_absent_or_same(folder / name, Path(unfinished, name))
            for name in members:
                os.replace(os.path.join(unfinished, name), folder / name)
    done = [f"{path}: {', '.join(sorted(members))} are in {folder}"]
    return done + ([f"left out: {', '.join(others)}"] if others else []) + contents


def _cache_members(tar: tarfile.TarFile, path: Path) -> tuple[dict[str, tarfile.TarInfo], list[str]]:
    """The three caches by name, and the names of what else is in the tar."""
    members: dict[str, tarfile.TarInfo] = {}
    others = []
    for name, member in regular_members(tar, path):
        if name not in CACHES:
            others.append(member.name)
        elif name in members or member.size > LARGEST_CACHE:
            raise XnorNetError(f"{path}: {name} is in it twice, or of {member.size} bytes; not a cache.tar")
        else:
            members[name] = member
    if len(members) < len(CACHES):
        raise XnorNetError(f"{path}: not a cache.tar, it lacks {', '.join(sorted(set(CACHES) - set(members)))}")
    return members, others


def _contents(file: str, place: str) -> str:
    """What a cache holds, in words. XnorNetError, which names `place` instead of the file, for one that is damaged."""
    try:
        if file.endswith(STATISTICS_CACHE):
            return _statistics_text(read_statistics(file))
        dataset = read_dataset(file)
        return f"{len(dataset.classes)} classes, {len(dataset)} pictures, made for {dataset.folder}"
    except XnorNetError as error:
        raise XnorNetError(str(error).replace(file, place)) from error


def _require_absent_or_same(target: Path, source: Path) -> None:
    if target.exists() and not filecmp.cmp(target, source, shallow=False):
        raise XnorNetError(f"{target}: there already, and other than the one in the tar; name another folder")


# ---- relocate ----


def _relocate(arguments: argparse.Namespace, say: Say) -> int:
    output = arguments.output if arguments.output is not None else arguments.cache
    data = arguments.data.rstrip("/") or "/"
    moved = {}
    for part, name in DATA_CACHES.items():  # both before the first is written
        source = os.path.join(arguments.cache, name)
        moved[name] = rebase(read_dataset(source), os.path.join(data, part), source)
    os.makedirs(output, exist_ok=True)
    for name, dataset in moved.items():
        _rewrite(os.path.join(arguments.cache, name), os.path.join(output, name), dataset)
        hint = "" if os.path.isfile(dataset.path(1)) else " (not there yet)"
        say(f"{os.path.join(output, name)}: {len(dataset)} pictures in {dataset.folder}{hint}")
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
    missing = [name for name in CACHES if not os.path.isfile(os.path.join(arguments.cache, name))]
    if missing:
        print(f"{arguments.cache}: {', '.join(missing)} could not be written there", file=sys.stderr)
    return 1 if missing else 0
