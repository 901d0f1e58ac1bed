"""What is known before the first batch: the two data sets and the colour statistics (donkey.lua, sections 1 to 3).

Each comes from its cache file or is made and saved there. Making them draws from a random stream of its own, seeded
alike, so that a first run trains on the same batches as a second one (ledger row 16).
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lua_compat import Generator
from xnornet_port.channel_statistics import estimate_mean, estimate_std
from xnornet_port.dataset import Dataset, class_folders, scan_folder
from xnornet_port.dataset_cache import (
    read_dataset,
    read_statistics,
    write_dataset,
    write_statistics,
)
from xnornet_port.errors import XnorNetError, one_line
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing
from xnornet_port.progress import Progress, no_progress

__all__ = ["MEAN_STD_SAMPLES", "Metadata", "check_class_count", "check_data_folder", "open_metadata"]

MEAN_STD_SAMPLES = 10000
"""Training pictures the original draws for the mean, and again for the deviation."""

_NAMED_CLASSES = 10  # up to so many classes are named in an error

Say = Callable[[str], None]


@dataclass(frozen=True)
class Metadata:
    """Training pictures, validation pictures with the same classes, and the training pictures' colour statistics."""

    train: Dataset
    test: Dataset
    statistics: ChannelStatistics


def open_metadata(
    data: str,
    cache: str,
    settings: Preprocessing,
    manual_seed: int,
    say: Say,
    progress: Progress = no_progress,
    n_samples: int = MEAN_STD_SAMPLES,
    n_classes: int | None = None,
    training: bool = True,
    allow_outside: bool = False,
) -> Metadata:
    """Read, or make and save, what `cache` holds about the pictures in `data`/train and `data`/val.

    n_classes: how many classes there must be, if that is known. With training=False the folder `data`/train may be
    missing, as long as the caches are there. allow_outside: see `rebase`. A cache folder that cannot be written is said
    in a line and the run goes on. Raises XnorNetError, in one line, for everything else.
    """
    check_data_folder(data)
    data = data.rstrip("/") or data
    stream = Generator(manual_seed)
    cache_file = os.path.join(cache, "trainCache.t7")
    counted_in = cache_file if os.path.isfile(cache_file) else None
    train = _open_train(data, cache, settings, say, progress, allow_outside)
    if n_classes is not None:
        _check_count(train.classes, n_classes, train.folder, counted_in)
    if training:
        _check_pictures(train, cache_file)
    test = _open_test(data, cache, settings, train, stream, say, progress, allow_outside)
    _check_pictures(test, os.path.join(cache, "testCache.t7"))
    statistics = _open_statistics(cache, train, settings, stream, n_samples, say, progress)
    return Metadata(train, test, statistics)


def _open_train(
    data: str, cache: str, settings: Preprocessing, say: Say, progress: Progress, allow_outside: bool
) -> Dataset:
    folder, file = os.path.join(data, "train"), os.path.join(cache, "trainCache.t7")
    if os.path.isfile(file):
        say("Loading train metadata from cache")
        return rebase(read_dataset(file), folder, file, allow_outside)
    say("Creating train metadata")
    train = scan_folder(folder, progress=progress)
    say(f"{len(train)} samples found.")
    _try_to_save(cache, say, lambda: write_dataset(file, train, settings.image_size, settings.crop_size))
    return train


def _open_test(
    data: str,
    cache: str,
    settings: Preprocessing,
    train: Dataset,
    stream: Generator,
    say: Say,
    progress: Progress,
    allow_outside: bool,
) -> Dataset:
    folder, file = os.path.join(data, "val"), os.path.join(cache, "testCache.t7")
    if os.path.isfile(file):
        say("Loading test metadata from cache")
        test = rebase(read_dataset(file), folder, file, allow_outside)
        _check_classes(test, train, file)
        return test
    say("Creating test metadata")
    test = scan_folder(folder, force_classes=train.classes, progress=progress)
    # None of them to train with (split 0): the same data set as it is when read from its cache, which -resume looks at.
    test = replace(test, sample_list=(np.empty(0, dtype=np.int64),) * len(test.classes))
    say(f"{len(test)} samples found.")
    _check_classes(test, train, folder)

    def save() -> None:
        write_dataset(
            file, test, settings.image_size, settings.crop_size, split=0, force_classes=train.classes, stream=stream
        )

    _try_to_save(cache, say, save)
    return test


def _open_statistics(
    cache: str,
    train: Dataset,
    settings: Preprocessing,
    stream: Generator,
    n_samples: int,
    say: Say,
    progress: Progress,
) -> ChannelStatistics:
    file = os.path.join(cache, "meanstdCache.t7")
    if os.path.isfile(file):
        statistics = read_statistics(file)
        say("Loaded mean and std from cache.")
        return statistics
    start = time.perf_counter()
    of_what = f"(per-channel, shared for all pixels) over {n_samples} randomly sampled training images"
    say(f"Estimating the mean {of_what}")
    mean = estimate_mean(train, stream, settings, n_samples, progress)
    say(f"Estimating the std {of_what}")
    std = estimate_std(train, stream, settings, mean.channels, n_samples, progress)
    faults = mean.faults + std.faults
    if faults:
        first = one_line(faults[0])
        say(f"{len(faults)} of the {2 * n_samples} could not be read and were left out; the first: {first}")
    if min(std.channels) <= 0:
        raise XnorNetError(f"{train.folder}: the sampled training pictures are of one colour each; nothing to learn")
    statistics = ChannelStatistics(mean.channels, std.channels)
    _try_to_save(cache, say, lambda: write_statistics(file, statistics))
    say(f"Time to estimate:\t{time.perf_counter() - start:.14g}")
    return statistics


def _try_to_save(cache: str, say: Say, save: Callable[[], None]) -> None:
    """A cache saves time and is not needed: where it cannot be written, the run goes on without."""
    with contextlib.suppress(OSError):  # what is wrong with the folder, saving the file says
        os.makedirs(cache, exist_ok=True)
    try:
        save()
    except XnorNetError as error:
        say(f"{error}; going on without this cache")


def _check_classes(test: Dataset, train: Dataset, source: str) -> None:
    """The original trusts that both caches have the same classes in the same order; labels are wrong otherwise."""
    if test.classes == train.classes:
        return
    if test.classes[: len(train.classes)] == train.classes:
        extra = test.classes[len(train.classes)]
        raise XnorNetError(f"{source}: class {extra!r} is not among the {len(train.classes)} training classes")
    raise XnorNetError(
        f"{source}: its {len(test.classes)} classes are not the {len(train.classes)} training classes in their order; "
        "delete the cache files of this data set, they are then made anew"
    )


def check_data_folder(data: str, parts: Sequence[str] = (), expected: str = "the folders train and val") -> None:
    """Raises XnorNetError where there is no such folder, or one of its `parts` (train, val) is not in it."""
    if not os.path.isdir(data):
        raise XnorNetError(f"{data}: no such data folder (-data; expected one with {expected})")
    for part in parts:
        if not os.path.isdir(os.path.join(data, part)):
            raise XnorNetError(f"{data}: there is no folder {part} in it (-data; expected one with train and val)")


def check_class_count(data: str, cache: str, n_classes: int) -> None:
    """Refuse at once what `open_metadata` would: no class folders, another number of classes than -nClasses.

    Counts in the cache where there is one, else folders. Raises XnorNetError.
    """
    cache_file = os.path.join(cache, "trainCache.t7")
    folder = os.path.join(data.rstrip("/") or data, "train")
    if os.path.isfile(cache_file):
        _check_count(read_dataset(cache_file).classes, n_classes, folder, cache_file)
    else:
        _check_count(class_folders(folder), n_classes, folder, None)


def _check_count(classes: Sequence[str], n_classes: int, folder: str, cache_file: str | None) -> None:
    """`cache_file`: where the classes were counted, if not in the folder. A few are named: one may be a mistake."""
    found = len(classes)
    if found == n_classes:
        return
    counted, way_out = f"{folder} has", ""
    if cache_file is not None:
        counted, way_out = f"{cache_file} lists", ", or delete the cache if it is of other pictures"
    names = f" ({one_line(', '.join(sorted(classes)))})" if found <= _NAMED_CLASSES else ""
    counted += f" {found} classes{names}"
    raise XnorNetError(f"-nClasses is {n_classes}, but {counted}; use -nClasses {found}{way_out}")


def _check_pictures(dataset: Dataset, source: str) -> None:
    """One picture of each class is looked for: a run on none of its pictures would train on nothing and not say so."""
    if not os.path.isdir(dataset.folder):
        raise XnorNetError(f"{dataset.folder}: no such data folder (-data names the one with train and val in it)")
    firsts = [dataset.path(int(numbers[0])) for numbers in dataset.class_list if len(numbers)]
    if not any(os.path.exists(path) for path in firsts):
        example = os.fsdecode(firsts[0]) if firsts else "none"
        raise XnorNetError(
            f"{dataset.folder}: not one of the pictures that {source} lists is there (such as {example}); "
            "give the folder they are in with -data, or delete the cache"
        )
