"""options.json in the folder of a run: with what it was started and resumed, and the options to resume it with."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lua_compat.atomic_file import replace_file
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.options import Options, recorded_options, snake_case, typed_options

if TYPE_CHECKING:
    import torch  # reading needs no PyTorch: mistakes in a command line answer at once

__all__ = ["add_resumption", "resumed_options", "write_record"]

NAME = "options.json"

# Options that may be typed beside -resume: they do not change what is trained, or only for how long.
MAY_CHANGE = (
    "resume",
    "data",
    "cache",
    "GPU",
    "nGPU",
    "device",
    "nEpochs",
    "checkpointEvery",
    "pictureTimeout",
    "quiet",
    "tensorboard",
)


def write_record(folder: Path, options: Options, device: torch.device, n_processes: int) -> None:
    """What is run, with what, so that it can be run again. OSError where the folder cannot be written to."""
    _write(folder, {"options": options.as_table(), **_circumstances(device, n_processes)})


def add_resumption(folder: Path, options: Options, device: torch.device, n_processes: int) -> list[str]:
    """Add when and on what the run goes on; returns what differs from before and may change the last bits of sums."""
    record = _read(folder)
    now = _circumstances(device, n_processes)
    before = [record, *record.get("resumed", [])][-1]
    places = [("device",), ("processes",), *(("versions", name) for name in now["versions"]), ("machine", "threads")]
    found = [(_at(before, place), _at(now, place), place[-1]) for place in places]
    record["options"] = {name: value for name, value in options.as_table().items() if name != "resume"}
    record["resumed"] = [*record.get("resumed", []), now]
    _write(folder, record)
    return [f"{name} was {old}, is {new}" for old, new, name in found if old != new]


def resumed_options(folder: str, argv: Sequence[str]) -> Options:
    """The options of the run in `folder`, with those in `argv` that may change.

    Raises XnorNetError where there is no such run, its record is damaged, or an option in `argv` contradicts it.
    """
    path = Path(folder) / NAME
    try:
        recorded = recorded_options(_read(Path(folder))["options"], save=str(Path(folder)))
    except XnorNetError as error:
        raise XnorNetError(f"{path}: {error}") from error
    if recorded.test_only:
        raise XnorNetError(f"-resume {folder}: that run only tested; there is nothing to go on with")
    typed = typed_options(argv)
    for name, value in typed.items():
        was = getattr(recorded, snake_case(name))
        if name not in MAY_CHANGE and value != was:
            raise XnorNetError(
                f"-{name} {value} contradicts the run in {folder}, which has {was}: leave it out, or start a new run "
                f"with -retrain (only {', '.join(f'-{name}' for name in MAY_CHANGE[1:])} may change)"
            )
    changes: dict[str, Any] = {snake_case(name): value for name, value in typed.items() if name in MAY_CHANGE}
    return replace(recorded, **changes)


def _circumstances(device: torch.device, n_processes: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from xnornet_port.machine import describe_machine

    return {
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": str(device),
        "processes": n_processes,
        "machine": describe_machine(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _at(record: Mapping[str, Any], place: Sequence[str]) -> Any:
    value: Any = record
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    with replace_file(folder / NAME) as file:
        file.write((json.dumps(record, indent=2, default=str) + "\n").encode())


def _read(folder: Path) -> dict[str, Any]:
    """Raises XnorNetError for what is no record; the message is without the path."""
    try:
        record = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise XnorNetError(f"{reason_of(error)}; -resume needs the folder of a run, with its {NAME}") from error
    except ValueError as error:
        raise XnorNetError(f"damaged ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
        raise XnorNetError("damaged (no options in it)")
    return record
