"""report: a run as one HTML page that needs nothing else: record, curves, weights, what it gets right and wrong.

Runs of the original's main.lua have no record; their page has what their logs and models tell. Pictures are tested with
the last saved network where the data of the run are at hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cache_tools.class_names import ClassNames, read_words
from cache_tools.console import add_quiet, progress_bar
from cache_tools.page import page, section
from cache_tools.report_gallery import Gallery, look_at_pictures
from cache_tools.report_sections import curves, filters, gallery_section, header, record_section, weights_section
from cache_tools.run_folder import first_epoch, learning_rates, model_files, read_curves, read_record, recorded_options
from cache_tools.weight_pictures import Flips, sign_flips
from lua_compat.atomic_file import replace_file
from xnornet_port.cifar import is_cifar
from xnornet_port.errors import XnorNetError
from xnornet_port.model import load_model

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools report cache/alexnetxnor,batchSize=800/SatNov2120:06:012026
  python -m cache_tools report RUNDIR --data ImageNet --names synset_words.txt --output run.html
  python -m cache_tools report RUNDIR --pictures 0 --no-models    # the logs and the record only

exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 130 stopped by Ctrl-C
"""

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUNDIR", help="folder of a run, with train.log or test.log")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in RUNDIR)")
    parser.add_argument("--data", type=Path, help="folder with val/ in it (default: the run's -data)")
    parser.add_argument("--cache", type=Path, help="folder of the caches (default: the run's)")
    parser.add_argument("--names", type=Path, help="what classes are called: synset_words.txt, or a classes.t7")
    parser.add_argument(
        "--pictures", type=int, default=1000, metavar="N", help="test at most N pictures (default 1000)"
    )
    parser.add_argument("--no-models", action="store_true", help="do not read the saved networks")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, say where it is. Raises XnorNetError for a folder without logs and for damaged files."""
    folder: Path = arguments.run
    output: Path = arguments.output or folder / "report.html"
    columns = read_curves(folder)
    if not output.parent.is_dir():  # told before the networks are read, as the next
        raise XnorNetError(f"{output}: the folder {output.parent} does not exist")
    if arguments.names is not None and not arguments.names.is_file():
        raise XnorNetError(f"{arguments.names}: no such file (--names)")
    progress = partial(progress_bar, quiet=arguments.quiet)
    record, options = read_record(folder), recorded_options(folder)
    body = [header(folder, columns, record, options, first_epoch(folder))]
    body.append(curves(columns, first_epoch(folder), partial(learning_rates, folder)))
    body += model_sections(arguments, options, progress)
    body.append(record_section(folder, record, options))
    with replace_file(output, sync=False) as file:
        file.write(page(f"{folder.resolve().parent.name}/{folder.resolve().name}", body).encode("utf-8"))
    if not arguments.quiet:
        print(output)
    return 0


def model_sections(arguments: argparse.Namespace, options: dict[str, Any], progress: Progress) -> Iterator[str]:
    """What the saved networks show; a line says why where there is nothing."""
    files = {} if arguments.no_models else model_files(arguments.run)
    if not files:
        why = "they were left out (--no-models)" if arguments.no_models else "no model_N.t7 is in the folder"
        yield section("Weights", f"<p class=none>Not shown: {why}.</p>")
        return
    loaded: list[nn.Module] = []  # the one last read
    flips = _flips(files, loaded, progress)
    epoch, network = max(files), loaded[0]
    yield filters(network, epoch)
    yield weights_section(network, epoch, flips)
    yield _pictures(arguments, options, network, epoch, progress)


def _flips(files: dict[int, Path], loaded: list[nn.Module], progress: Progress) -> Flips:
    """Read the networks of all epochs, one at a time; the last one stays in `loaded`."""
    with progress("reading networks", len(files)) as done:

        def networks() -> Iterator[tuple[int, nn.Module]]:
            for number, (epoch, path) in enumerate(files.items(), start=1):
                loaded[:] = [load_model(path)]
                yield epoch, loaded[0]
                done(number)

        return sign_flips(networks())


def _pictures(
    arguments: argparse.Namespace, options: dict[str, Any], network: nn.Module, epoch: int, progress: Progress
) -> str:
    data = arguments.data or (Path(str(options["data"])) if "data" in options else None)
    parents = arguments.run.resolve().parents
    cache = arguments.cache or (parents[1] if len(parents) > 1 else parents[0])
    nothing = ClassNames((), {})
    if arguments.pictures < 1:
        return gallery_section(None, epoch, nothing, "no pictures were asked for (--pictures)")
    if is_cifar(str(options.get("dataset"))):
        why = f"the pictures of {options['dataset']} are not files that could be opened one by one"
        return gallery_section(None, epoch, nothing, why)
    if data is None or not (data / "val").is_dir():
        why = (
            f"the test pictures are not at hand ({data or 'the run does not say where'}); name their folder with --data"
        )
        return gallery_section(None, epoch, nothing, why)
    try:
        gallery: Gallery = look_at_pictures(network, options, data, cache, arguments.pictures, progress)
    except XnorNetError as error:
        return gallery_section(None, epoch, nothing, str(error))
    words = {} if arguments.names is None else read_words(arguments.names, len(gallery.classes))
    return gallery_section(gallery, epoch, ClassNames(gallery.classes, words), "")
