"""The files a run saves after each epoch: model_N.t7 and optimState_N.t7 (train.lua, util.lua saveDataParallel)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from torch import nn

import lua_compat
from lua_compat.errors import OptimStateError
from lua_compat.nn import from_torch
from lua_compat.optim import SGD, Adam
from lua_compat.values import LuaTable
from xnornet_port.errors import XnorNetError

__all__ = [
    "latest_epoch",
    "load_optimizer_state",
    "model_path",
    "optimizer_state_path",
    "resumption",
    "save_epoch",
    "what_is_saved",
]


def model_path(folder: Path, epoch: int) -> Path:
    return folder / f"model_{epoch}.t7"


def optimizer_state_path(folder: Path, epoch: int) -> Path:
    return folder / f"optimState_{epoch}.t7"


def save_epoch(folder: Path, epoch: int, network: nn.Module, optimizer: SGD | Adam) -> None:
    """Write both files, each complete or absent; activations are left out (the original's files carry them all).

    Raises T7Error, which names the file, where the folder cannot be written to (full or read-only disk).
    """
    lua_compat.save(model_path(folder, epoch), from_torch(network))
    lua_compat.save(optimizer_state_path(folder, epoch), optimizer.to_t7())


def load_optimizer_state(optimizer: SGD | Adam, path: str) -> None:
    """Take options and state of an optimState_N.t7, ours or the original's. XnorNetError or T7Error where it cannot."""
    table = lua_compat.load(path)
    if not isinstance(table, LuaTable):
        raise XnorNetError(f"{path}: holds {type(table).__name__}, not an optimiser state (optimState_N.t7)")
    try:
        optimizer.from_t7(table)
    except OptimStateError as error:
        raise XnorNetError(f"{path}: {error}") from error


def latest_epoch(folder: Path) -> int | None:
    """The last epoch whose two files are in the folder."""
    epochs = [
        int(match.group(1))
        for match in (re.fullmatch(r"model_(\d+)\.t7", p.name) for p in folder.glob("*.t7"))
        if match
    ]
    return max((epoch for epoch in epochs if optimizer_state_path(folder, epoch).exists()), default=None)


def what_is_saved(folder: Path) -> str:
    """The options with which a new run goes on from the last epoch's files."""
    last = latest_epoch(folder)
    if last is None:
        return f"no epoch was finished, no model saved in {folder}"
    files = ("-retrain", model_path(folder, last), "-optimState", optimizer_state_path(folder, last))
    return f"to go on: {shlex.join(map(str, files))} -epochNumber {last + 1}"


def resumption(folder: Path) -> str:
    """The option with which the run in the folder goes on, to be typed into a shell."""
    return f"-resume {shlex.quote(str(folder))}"
