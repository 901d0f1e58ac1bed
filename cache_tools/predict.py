"""predict: what a network sees in pictures, with its likeliest classes.

Pictures come to the network as in `main.py -testOnly`, and as there an XNOR network's latent weights are binarised.
Mean and deviation, and the classes' names, come from the folder of the caches, or from that of the run MODEL is in; of
a network trained on CIFAR mean and deviation are those of CIFAR's files.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache_tools.class_names import ClassNames, find_class_names
from cache_tools.console import add_quiet, positive, progress_bar
from cache_tools.contact_sheet import Tile, check_sheet, write_sheet
from cache_tools.imagenet_sources import is_picture
from cache_tools.network_input import input_channels
from cache_tools.network_source import add_weight_options, newest_model, wants_binary_weights
from cache_tools.prediction import Answer, Fault, Predictor, count_classes
from cache_tools.run_folder import recorded_options, recorded_size
from xnornet_port.binarization import Binarizer
from xnornet_port.cifar import is_cifar, pixel_statistics
from xnornet_port.cifar_files import read_cifar
from xnornet_port.cifar_names import CIFAR_CLASSES, CIFAR_SIDE
from xnornet_port.dataset_cache import read_statistics
from xnornet_port.errors import XnorNetError, one_line
from xnornet_port.model import load_model, usual_crop_size
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools predict cache/RUN/DATE/model_55.t7 cat.jpg dog.jpg
  python -m cache_tools predict alexnet_XNOR.t7 photos --cache cache --names synset_words.txt --sheet photos.png
  python -m cache_tools predict vggsmall.xnor.safetensors cat.png --dataset cifar10 --data cifar --names names.txt
  python -m cache_tools predict alexnet_BWN.t7 'val/n0144*/*.JPEG' --cache cache --binary-weight --json

exit codes: 0 done, 1 an error, told in one line, or a picture that cannot be read, 2 wrong usage, 130 stopped by Ctrl-C
"""

STATISTICS = "meanstdCache.t7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a .t7 file, a packed .safetensors that `convert` wrote, or a run's folder"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures, folders of pictures, or patterns")
    parser.add_argument("--cache", type=Path, help="folder with meanstdCache.t7 (default: that of MODEL's run)")
    parser.add_argument("--names", type=Path, help="what classes are called: synset_words.txt, or a classes.t7")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="classes shown (default 5)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a picture of the pictures and their classes")
    parser.add_argument("--image-size", type=positive, help="main.py's -imageSize (default: the run's, or 256)")
    parser.add_argument("--crop-size", type=positive, help="main.py's -cropSize (default: the run's, or 224)")
    parser.add_argument(
        "--dataset", choices=("imagenet", *CIFAR_CLASSES), help="main.py's -dataset (default: the run's)"
    )
    parser.add_argument(
        "--data", type=Path, help="folder of CIFAR's files, for a network of CIFAR (default: the run's)"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_weight_options(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the classes of each picture; 1 where one cannot be read. Raises XnorNetError, which the caller prints."""
    paths = find_pictures(arguments.images)
    if arguments.sheet is not None:
        check_sheet(arguments.sheet, len(paths))
    arguments.model = chosen_model(arguments)
    predictor = open_predictor(arguments)
    n_classes = count_classes(predictor.network, predictor.settings.crop_size)
    names = find_class_names(places(arguments), arguments.names, n_classes, partial(why_others, predictor))
    answers: list[Answer | Fault] = []
    with progress_bar("looking at pictures", len(paths), arguments.quiet) as done:
        for answer in predictor.answers(paths):
            answers.append(answer)
            done(len(answers))
    if arguments.json:
        print(json.dumps([as_json(answer, names, arguments.top) for answer in answers], indent=1))
    for answer in answers:
        if isinstance(answer, Fault):
            print(answer.reason, file=sys.stderr)
        elif not arguments.json:
            print(*lines(answer, names, arguments.top), sep="\n")
    if arguments.sheet is not None:
        tiles = [Tile(a.path, tile_lines(a, names)) for a in answers if isinstance(a, Answer)]
        write_sheet(arguments.sheet, tiles)
        if not arguments.quiet and not arguments.json:
            print(arguments.sheet)
    return 1 if any(isinstance(answer, Fault) for answer in answers) else 0


def chosen_model(arguments: argparse.Namespace) -> str:
    """MODEL; of a run's folder the newest, which a line on standard error names."""
    model = newest_model(arguments.model)
    if model != arguments.model and not arguments.quiet:
        print(f"{one_line(model)}: the newest model of the run", file=sys.stderr)
    return model


def find_pictures(words: Sequence[str]) -> list[str]:
    """The files that words typed name: a file itself, what is in a folder, what fits a pattern; sorted within each."""
    found = []
    for word in words:
        if os.path.isdir(word):
            some = [
                os.path.join(parent, name) for parent, _, names in os.walk(word) for name in names if is_picture(name)
            ]
        elif os.path.lexists(word) or not glob.has_magic(word):
            some = [word]  # if it is not there, reading it says so
        else:
            some = [path for path in glob.glob(word, recursive=True) if not os.path.isdir(path)]
        if not some:
            raise XnorNetError(f"{word}: no pictures there")
        found += sorted(some)
    return found


def places(arguments: argparse.Namespace) -> list[Path]:
    """Folders that may hold caches: the one named, that of the model, and the one its run belongs to."""
    if arguments.cache is not None:
        return [arguments.cache]
    model = Path(os.path.realpath(arguments.model))
    return [model.parent, *model.parents[2:3]]


def why_others(predictor: Predictor, n_listed: int) -> str:
    """Why the network gives another number of scores than classes are listed: may be the size of its pictures."""
    size = usual_crop_size(predictor.network, n_listed)
    if size is None:
        return "it is another network's"
    return f"it takes --crop-size {size}, and not {predictor.settings.crop_size} (--image-size as in its run)"


def open_predictor(arguments: argparse.Namespace) -> Predictor:
    """The network and how pictures are brought to it, as its run had it."""
    network = load_model(arguments.model)
    options = recorded_options(Path(os.path.realpath(arguments.model)).parent)
    if input_channels(network) != 3:  # before it is asked for a mean and deviation that will not help
        count_classes(network, picture_sizes(arguments, options)[1])
    settings = picture_settings(arguments, options)
    binarizer = Binarizer(network) if wants_binary_weights(network, arguments) else None
    return Predictor(network, settings, binarizer)


def picture_settings(arguments: argparse.Namespace, options: dict[str, Any]) -> Preprocessing:
    """Sizes, mean and deviation of the data that the network was trained on."""
    dataset = dataset_of(arguments, options)
    if arguments.data is not None and not is_cifar(dataset):
        raise XnorNetError(f"--data {arguments.data}: for a network of CIFAR, and this one is of {dataset} (--dataset)")
    image_size, crop_size = picture_sizes(arguments, options)
    return Preprocessing(
        image_size=image_size,
        crop_size=crop_size,
        scaling_factor=0.0,
        statistics=cifar_statistics(dataset, arguments.data or options.get("data"))
        if is_cifar(dataset)
        else cached_statistics(places(arguments)),
    )


def dataset_of(arguments: argparse.Namespace, options: dict[str, Any]) -> str:
    return arguments.dataset or str(options.get("dataset", "imagenet"))


def picture_sizes(arguments: argparse.Namespace, options: dict[str, Any]) -> tuple[int, int]:
    """Shorter side of a whole picture, and side of the crop that the network is given."""
    whole, crop = (CIFAR_SIDE, CIFAR_SIDE) if is_cifar(dataset_of(arguments, options)) else (256, 224)
    return (
        arguments.image_size or recorded_size(options, "imageSize", whole),
        arguments.crop_size or recorded_size(options, "cropSize", crop),
    )


def cifar_statistics(dataset: str, data: object) -> ChannelStatistics:
    """Of CIFAR's own training pictures, which main.py keeps in no cache."""
    if data is None:
        raise XnorNetError(f"mean and deviation of {dataset} are found from its files: name their folder with --data")
    try:
        return pixel_statistics(read_cifar(str(data), dataset).train.pixels)
    except XnorNetError as error:
        raise XnorNetError(f"mean and deviation of {dataset} are found from its files (--data): {error}") from error


def cached_statistics(folders: Sequence[Path]) -> ChannelStatistics:
    """From the first of the folders that has them."""
    files = [folder / STATISTICS for folder in folders if (folder / STATISTICS).is_file()]
    if not files:
        where = " and ".join(map(str, folders))
        raise XnorNetError(f"no {STATISTICS} in {where}: name the folder of the caches with --cache")
    return read_statistics(str(files[0]))


def lines(answer: Answer, names: ClassNames, top: int) -> list[str]:
    """For people; control characters of names shown as such."""
    shown = [one_line(answer.path)]
    for number, probability in answer.best(top):
        title, folder = names.title(number), names.folder(number)
        beside = f"  ({one_line(folder)})" if folder != title else ""
        shown.append(f"  {probability:7.2%}  {one_line(title)}{beside}")
    return shown


def tile_lines(answer: Answer, names: ClassNames) -> list[str]:
    """Below a picture of the sheet."""
    return [f"{probability:.0%} {one_line(names.title(number))}" for number, probability in answer.best(3)]


def as_json(answer: Answer | Fault, names: ClassNames, top: int) -> dict[str, Any]:
    path = os.fsencode(answer.path).decode("utf-8", errors="backslashreplace")
    if isinstance(answer, Fault):
        return {"file": path, "error": answer.reason}
    classes = [
        {"number": number, "class": names.folder(number), "name": names.title(number), "probability": probability}
        for number, probability in answer.best(top)
    ]
    return {"file": path, "classes": classes}
