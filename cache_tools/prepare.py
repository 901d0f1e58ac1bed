"""prepare: ImageNet as main.py wants it, from the files as they are downloaded.

SOURCE holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or what comes of
unpacking them. DEST gets train/CLASS/ and val/CLASS/. Pictures whose shorter side is above 256 are shrunk to it, as the
published accuracies ask; the others are copied byte for byte. What is there already is left as it is, and a file is
there whole or not at all: a command that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cache_tools.console import add_quiet
from cache_tools.imagenet_devkit import Labels, read_devkit, read_list
from cache_tools.imagenet_sources import Job, Picture, train_jobs, validation_jobs
from cache_tools.shrinking import METHODS, Shrinker, open_shrinker
from lua_compat.atomic_file import replace_file
from lua_compat.errors import ImageError
from xnornet_port.errors import XnorNetError

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools prepare ~/Downloads ImageNet        # from the three files of image-net.org in ~/Downloads
  python -m cache_tools prepare ILSVRC ImageNet --labels LOC_val_solution.csv -j 16
  python -m cache_tools prepare ~/Downloads ImageNet --only val
  python main.py -data ImageNet -retrain alexnet_XNOR.t7 -testOnly

exit codes: 0 done, all of ImageNet is there, 1 an error, told in one line, 2 wrong usage, 3 done, but not all of
ImageNet was in SOURCE or pictures in it are damaged, 130 stopped by Ctrl-C (the same command goes on)
"""

INCOMPLETE = 3
INTERRUPTED = 130
COMPLETE = {"train": 1_281_167, "val": 50_000}
"""Pictures of ILSVRC2012, in 1000 classes each."""
TAR_NAMES = {"train": ("ILSVRC2012_img_train.tar", "train"), "val": ("ILSVRC2012_img_val.tar", "val")}
DEVKIT_NAMES = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar", "ILSVRC2012_devkit_t12")
OUTCOMES = {"shrunk": "shrunk", "copied": "copied", "skipped": "there before"}
"""What becomes of a picture, and the words for it."""
RECORD = "prepare.json"
LARGEST_PICTURE = 64 << 20  # bytes; ImageNet's largest has 15 MB
SAMPLE = 24  # pictures of each part that are shrunk to tell the space needed
SPARE = 1.1  # times the space estimated
LINE_EVERY = 50_000  # pictures, where there is no progress bar


@dataclass
class Tally:
    """What became of the pictures of one part; threads add to it one at a time."""

    outcomes: Counter[str] = field(default_factory=Counter)  # of OUTCOMES
    faults: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)

    @property
    def there(self) -> int:
        """Pictures that are in DEST now."""
        return self.outcomes.total()


class Plan(NamedTuple):
    """One part, "train" or "val", and its jobs."""

    part: str
    jobs: list[Job]


Done = Callable[[int], None]
"""Told the bytes of each picture that is done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with the downloaded files")
    parser.add_argument("destination", type=Path, metavar="DEST", help="data folder to make, for main.py's -data")
    parser.add_argument("--train", type=Path, help="the training pictures, where not in SOURCE under their usual name")
    parser.add_argument("--val", type=Path, help="the validation pictures, likewise")
    parser.add_argument("--devkit", type=Path, help="the development kit, likewise: a tar.gz or a folder")
    parser.add_argument("--labels", type=Path, help="classes of the validation pictures: a list, in place of the kit")
    parser.add_argument("--only", choices=("train", "val"), help="leave the other part out")
    parser.add_argument("--size", type=int, default=256, help="shorter side in pixels to shrink to (default 256)")
    parser.add_argument("--shrinker", choices=METHODS, default="auto", help="auto: ImageMagick where it is installed")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="threads (default: one per core)")
    parser.add_argument("--no-space-check", action="store_true", help="do not refuse a disk that looks too small")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command: 0, 3 or 130. Raises XnorNetError or OSError, which the caller prints."""
    say = (lambda line: None) if arguments.quiet else print
    if arguments.size < 1 or arguments.jobs < 1:
        raise XnorNetError(f"--size {arguments.size}, --jobs {arguments.jobs}: expected at least 1")
    shrinker = open_shrinker(arguments.shrinker, arguments.size)
    say(f"shrinking with {shrinker.name} to a shorter side of {shrinker.size}")
    labels = find_labels(arguments)
    plans = make_plans(arguments, labels)
    write_record(arguments.destination, shrinker)
    needed = space_needed(plans, shrinker)
    say_space(arguments.destination, needed, arguments.no_space_check, say)
    write_words(arguments.destination, labels)
    tallies = {plan.part: Tally() for plan in plans}
    try:
        with progress(sum(job.n_bytes for plan in plans for job in plan.jobs), arguments.quiet) as done:
            for plan in plans:
                work(plan, arguments.destination, shrinker, tallies[plan.part], arguments.jobs, done)
    except KeyboardInterrupt:
        there = sum(tally.there for tally in tallies.values())
        print(f"stopped with {there:,} pictures in {arguments.destination}: run it again to go on", file=sys.stderr)
        return INTERRUPTED
    return conclude(tallies, arguments.destination, say)


# ---- what there is to do ----


def find_labels(arguments: argparse.Namespace) -> Labels:
    """From --labels, --devkit or the kit in SOURCE; without any, no class is known."""
    if arguments.labels is not None:
        return read_list(arguments.labels)
    found = [arguments.source / name for name in DEVKIT_NAMES if (arguments.source / name).exists()]
    kit = arguments.devkit or next(iter(found), None)
    return read_devkit(kit) if kit is not None else Labels({}, {})


def make_plans(arguments: argparse.Namespace, labels: Labels) -> list[Plan]:
    """The parts that are there. Raises XnorNetError where there is none, or DEST lies in SOURCE's folders."""
    plans = []
    for part in ("train", "val"):
        named: Path | None = getattr(arguments, part)
        found = [arguments.source / name for name in TAR_NAMES[part] if (arguments.source / name).exists()]
        source = named or next(iter(found), None)
        if source is None or arguments.only not in (None, part):
            continue
        if os.path.realpath(source) == os.path.realpath(arguments.destination / part):
            raise XnorNetError(f"{source}: SOURCE and DEST are the same folder; name another DEST")
        jobs = train_jobs(source) if part == "train" else validation_jobs(source, labels.class_of)
        plans.append(Plan(part, jobs))
    if not plans:
        names = ", ".join(name for pair in TAR_NAMES.values() for name in pair)
        raise XnorNetError(f"{arguments.source}: none of {names} is there (name them with --train and --val)")
    return plans


def write_record(destination: Path, shrinker: Shrinker) -> None:
    """How the pictures in DEST were made; another way on top of it would leave a mixture, which is refused."""
    record = {"size": shrinker.size, "shrinker": shrinker.name}
    destination.mkdir(parents=True, exist_ok=True)
    path = destination / RECORD
    if path.is_file():
        earlier = path.read_text(encoding="utf-8", errors="backslashreplace")
        if earlier != json.dumps(record) + "\n":
            raise XnorNetError(
                f"{path}: the pictures there were made otherwise ({earlier.strip()[:200]}); choose the same --size and "
                "--shrinker, or another DEST"
            )
    else:
        with replace_file(path) as file:
            file.write(json.dumps(record).encode() + b"\n")


def write_words(destination: Path, labels: Labels) -> None:
    """synset_words.txt, for `predict --names`, where the kit told what the classes are called."""
    if labels.words:
        lines = [f"{name} {words}\n" for name, words in sorted(labels.words.items())]
        with replace_file(destination / "synset_words.txt") as file:
            file.write("".join(lines).encode())


# ---- space ----


def space_needed(plans: Sequence[Plan], shrinker: Shrinker) -> int:
    """Bytes on the disk, estimated from a few pictures spread over each part."""
    total = 0.0
    for plan in plans:
        step = max(1, len(plan.jobs) // SAMPLE)
        before = after = n = 0
        for job in plan.jobs[::step]:
            with closing(job.pictures()) as pictures:
                picture = next(pictures, None)
                if picture is None or picture.size > LARGEST_PICTURE:
                    continue
                try:
                    stored, _ = shrinker.file_bytes(picture.read(), picture.target.name)
                except ImageError:
                    continue
            before, after, n = before + picture.size, after + len(stored), n + 1
        part_bytes = sum(job.n_bytes for job in plan.jobs)
        blocks = 2048 * part_bytes * n / before if before else 0  # half a block of the file system per picture
        total += (part_bytes * after / before if before else part_bytes) + blocks
    return int(total * SPARE)


def say_space(destination: Path, needed: int, goes_on: bool, say: Callable[[str], None]) -> None:
    """Raises XnorNetError where the disk is too small, counting what is in DEST already."""
    there = sum(
        entry.stat().st_size for part in TAR_NAMES for entry in (destination / part).rglob("*") if entry.is_file()
    )
    free = shutil.disk_usage(destination).free
    missing = max(0, needed - there)
    line = f"about {readable(missing)} needed in {destination}, {readable(free)} free"
    if missing > free and not goes_on:
        raise XnorNetError(f"{line}: the disk is too small (--no-space-check tries all the same)")
    say(line)


def readable(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


# ---- the work ----


def work(plan: Plan, destination: Path, shrinker: Shrinker, tally: Tally, n_threads: int, done: Done) -> None:
    """All jobs of a part; the first error or Ctrl-C ends them after the picture each thread is at."""
    stop, lock = threading.Event(), threading.Lock()

    def do(job: Job) -> None:
        seen: set[Path] = set()
        with closing(job.pictures()) as pictures:
            for picture in pictures:
                if stop.is_set():
                    return
                is_second = picture.target in seen
                seen.add(picture.target)
                outcome = second_of(picture) if is_second else store(picture, destination, shrinker)
                with lock:
                    count(tally, picture, outcome)
                    done(picture.size)

    with ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(do, job) for job in plan.jobs]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def store(picture: Picture, destination: Path, shrinker: Shrinker) -> str | ImageError:
    """Write one picture, unless it is there: "copied", "shrunk", "skipped", or what is wrong with it."""
    target = destination / picture.target
    if target.is_file():
        return "skipped"
    try:
        if picture.size > LARGEST_PICTURE:
            raise ImageError(f"{target.name}: {picture.size} bytes are no picture of ImageNet's")
        stored, is_shrunk = shrinker.file_bytes(picture.read(), target.name)
    except ImageError as error:
        return error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(target, sync=False) as file:
            file.write(stored)
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise XnorNetError(f"{target}: cannot be written ({why}); the same command goes on from here") from problem
    return "shrunk" if is_shrunk else "copied"


def second_of(picture: Picture) -> ImageError:
    """Two of one name, from folders within a class, cannot both be in DEST."""
    return ImageError(f"{picture.target}: a second picture of that name; the first one is kept")


def count(tally: Tally, picture: Picture, outcome: str | ImageError) -> None:
    if isinstance(outcome, ImageError):
        tally.faults.append(str(outcome))
        return
    tally.classes.add(picture.target.parent.name)
    tally.outcomes[outcome] += 1


def conclude(tallies: dict[str, Tally], destination: Path, say: Callable[[str], None]) -> int:
    """Say what is in DEST, and what of ImageNet is not; 0 where it is all there."""
    is_complete = True
    for part, tally in tallies.items():
        n_classes = f"{len(tally.classes):,} class{'es' * (len(tally.classes) != 1)}"
        how = ", ".join(f"{tally.outcomes[outcome]:,} {words}" for outcome, words in OUTCOMES.items())
        say(f"{destination / part}: {tally.there:,} pictures in {n_classes} ({how})")
        for fault in tally.faults:
            print(f"  left out: {fault}", file=sys.stderr)
        if tally.there != COMPLETE[part] or len(tally.classes) != 1000:
            is_complete = False
            print(
                f"warning: {part} is not the whole of ImageNet, which has {COMPLETE[part]:,} pictures in 1,000 classes",
                file=sys.stderr,
            )
    return 0 if is_complete else INCOMPLETE


@contextmanager
def progress(n_bytes: int, quiet: bool) -> Iterator[Done]:
    """Told each picture's bytes: a bar on a terminal, elsewhere a line now and then."""
    if quiet:
        yield lambda size: None
        return
    if not sys.stderr.isatty():
        yield _lines(n_bytes)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("preparing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=n_bytes)
        yield lambda size: bar.advance(task, size)


def _lines(n_bytes: int) -> Done:
    seen = {"pictures": 0, "bytes": 0}

    def done(size: int) -> None:
        seen["pictures"] += 1
        seen["bytes"] += size
        if seen["pictures"] % LINE_EVERY == 0:
            share = seen["bytes"] / max(1, n_bytes)
            print(f"{seen['pictures']:,} pictures, {share:.0%} of the source", file=sys.stderr)

    return done
