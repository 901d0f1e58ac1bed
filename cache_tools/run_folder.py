"""The folder of a run, of main.py or of the original's main.lua: logs, options, models."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from lua_compat.logger import read_log
from xnornet_port.errors import XnorNetError
from xnornet_port.schedule import regime_of

__all__ = [
    "first_epoch",
    "learning_rates",
    "model_files",
    "read_curves",
    "read_record",
    "recorded_options",
    "recorded_size",
]

RECORD = "options.json"
ORIGIN = f"{RECORD}, or its folder's name"
LOGS = ("train.log", "test.log")


def read_curves(folder: Path) -> dict[str, list[float]]:
    """The columns of a run's two logs by name; a run that was only tested has no training log."""
    logs = [folder / name for name in LOGS if (folder / name).is_file()]
    if not logs:
        raise XnorNetError(f"{folder}: neither train.log nor test.log is there; give the folder of a run")
    return {name: values for log in logs for name, values in read_log(log).items()}


def read_record(folder: Path) -> dict[str, Any]:
    """options.json of a run of main.py; {} where there is none. Raises XnorNetError for a damaged one."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise XnorNetError(f"{path}: not the record of a run of main.py ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
        raise XnorNetError(f"{path}: not the record of a run of main.py (no options in it)")
    return record


def recorded_options(folder: Path) -> dict[str, Any]:
    """Options of a run: from its record, or of the original's runs those in the name of the folder around it.

    The original calls that folder `alexnetxnor,batchSize=800,optimType=adam`: what was typed, and no defaults.
    """
    record = read_record(folder)
    if record:
        return dict(record["options"])
    net_type, *parts = folder.resolve().parent.name.split(",")
    pairs = [part.split("=", 1) for part in parts if "=" in part]
    return {"netType": net_type, **{name: _number(value) for name, value in pairs}} if pairs else {}


def recorded_size(options: dict[str, Any], name: str, otherwise: int) -> int:
    """A whole number among a run's options. Raises XnorNetError where something else stands there."""
    value = options.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int):
        raise XnorNetError(f"the run's {name} is {value!r}, expected a whole number ({ORIGIN})")
    return value


def _number(text: str) -> str | float | int:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def first_epoch(folder: Path) -> int:
    """The number of a run's first epoch."""
    value = recorded_size(recorded_options(folder), "epochNumber", 1)
    if value < 1:
        raise XnorNetError(f"{folder}: the run's epochNumber is {value}, expected 1 or more ({ORIGIN})")
    return value


def learning_rates(folder: Path, n_epochs: int) -> list[float]:
    """The rate of each epoch: -LR, or the recipe's, a tenth of it for adam; [] where the options are not known."""
    options = recorded_options(folder)
    if not options:
        return []
    rate = options.get("LR", 0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= sys.float_info.max:
        raise XnorNetError(f"{folder}: the run's LR is {rate!r}, expected a number from 0 on ({ORIGIN})")
    if rate:
        return [float(rate)] * n_epochs
    factor = 1.0 if options.get("optimType", "sgd") == "sgd" else 0.1
    first = first_epoch(folder)
    return [regime_of(epoch).learning_rate * factor for epoch in range(first, first + n_epochs)]


def model_files(folder: Path) -> dict[int, Path]:
    """model_N.t7 by epoch, in order."""
    found = {int(match.group(1)): path for path in folder.glob("model_*.t7")
             if (match := re.fullmatch(r"model_(\d+)\.t7", path.name))}  # fmt: skip
    return dict(sorted(found.items()))
