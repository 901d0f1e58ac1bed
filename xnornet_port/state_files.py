"""The files a run is resumed from: state_EPOCH_BATCH.safetensors and, written last, state_EPOCH_BATCH.json.

The second has the first one's size and SHA-256 and its own checksum: a state is there with both or it is not there. The
last two are kept, so that one that the disk has spoilt leaves the one before. Nothing in them is code.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lua_compat.atomic_file import replace_file, wanted_name
from xnornet_port.errors import XnorNetError, reason_of

__all__ = ["StoredState", "drop_unfinished_files", "read_newest_state", "size_of_states", "write_state"]

FORMAT = 1
KEPT = 2
NAME = re.compile(r"state_(\d+)_(\d+)\.(?:json|safetensors)")
OF_A_RUN = ("state", "model", "optimState", "options", "classes", "train", "test")  # how its files' names begin
DTYPES = {  # the format's names of element types
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class StoredState:
    """A state as it was written: `facts` are what JSON holds, `path` is that file."""

    path: Path
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    @property
    def identity(self) -> str:
        """Its place in the run, and a few digits of what it holds."""
        return f"{self.path.stem} ({self.facts['tensors']['sha256'][:8]})"


def write_state(
    folder: Path, epoch: int, batch: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> Path:
    """Write the state after `batch` batches of `epoch`, then remove all but the last two; returns the JSON's path.

    Raises OSError (full disk, folder gone); the states before are then as they were.
    """
    path = folder / f"state_{epoch}_{batch}.json"
    tensor_path = path.with_suffix(".safetensors")
    path.unlink(missing_ok=True)  # one of the same batch, left by the run that is resumed: about to be written again
    with replace_file(tensor_path) as file:
        size, digest = _write_tensors(file, tensors)
    whole = {"format": FORMAT, "tensors": {"bytes": size, "sha256": digest}, **facts}
    with replace_file(path) as file:
        file.write(json.dumps({"checksum": _checksum(whole), "state": whole}, indent=1).encode())
    _drop_old_states(folder)
    return path


def read_newest_state(folder: Path, warn: Callable[[str], None]) -> StoredState | None:
    """The last state that is whole, a line for each later one that is not; None where none was ever written.

    Raises XnorNetError when there are states but none is whole.
    """
    paths = _paths(folder)
    for path in reversed(paths):
        try:
            return _read_state(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(f"{path}: this state is damaged ({_reason(error)}); taking the one before")
    if paths:
        raise XnorNetError(
            f"{folder}: none of its {len(paths)} states is whole; start from a model with -retrain, -optimState and "
            "-epochNumber"
        )
    return None


def drop_unfinished_files(folder: Path) -> None:
    """Remove what a killed run left half written; a running one must not be using the folder."""
    for path in list(folder.iterdir()):
        if (wanted_name(path.name) or "").startswith(OF_A_RUN):
            path.unlink(missing_ok=True)


def size_of_states(folder: Path) -> int:
    """Bytes of the states in a run's folder."""
    return sum(path.stat().st_size for suffix in (".json", ".safetensors") for path in _paths(folder, suffix))


def _paths(folder: Path, suffix: str = ".json") -> list[Path]:
    """Files of states, oldest first; a state_dict.safetensors that a user has put there is none."""
    found = [(match, path) for path in folder.glob(f"state_*{suffix}") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))]


def _drop_old_states(folder: Path) -> None:
    paths = _paths(folder)
    for path in paths[:-KEPT]:
        path.unlink(missing_ok=True)  # the JSON first: without it the rest is no state
    kept = {path.stem for path in paths[-KEPT:]}
    for path in _paths(folder, ".safetensors"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def _write_tensors(file: BinaryIO, tensors: Mapping[str, torch.Tensor]) -> tuple[int, str]:
    """Size and SHA-256 of what is written; a tensor at a time, so that memory is taken for one only."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    size = 0
    parts: list[bytes | torch.Tensor] = [struct.pack("<Q", len(text)), text, *tensors.values()]
    for part in parts:
        data = _bytes_of(part) if isinstance(part, torch.Tensor) else part
        file.write(data)
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """What `_write_tensors` wrote; safetensors' own reader takes no path that is not text."""
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    tensors = {}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        for name, entry in json.loads(file.read(length)).items():  # in the order of the file
            start, end = entry["data_offsets"]
            data, dtype = bytearray(end - start), dtypes[entry["dtype"]]
            file.readinto(data)
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _read_state(path: Path) -> StoredState:
    """Raises OSError, or ValueError, KeyError, TypeError for what is not as it was written."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    facts: dict[str, Any] = stored["state"]
    if stored["checksum"] != _checksum(facts):
        raise ValueError("its checksum differs")
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']}, this version reads {FORMAT}")
    tensor_path = path.with_suffix(".safetensors")
    if tensor_path.stat().st_size != facts["tensors"]["bytes"]:
        raise ValueError(f"{tensor_path.name} has another size")
    with open(tensor_path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts["tensors"]["sha256"]:
            raise ValueError(f"the checksum of {tensor_path.name} differs")
    return StoredState(path, _read_tensors(tensor_path), facts)


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else reason_of(error)
