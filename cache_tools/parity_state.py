"""What a parity run has found so far, picture by picture, in a file, so that it can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache_tools.parity_verdict import Accuracy, LayerCheck
from lua_compat.atomic_file import replace_file
from xnornet_port.errors import XnorNetError

__all__ = ["PictureScores", "Progress", "key_of", "scores_of"]

TOP = 5
_COUNTS = ("n_done", "n_checked", "n_unreadable")


@dataclass(frozen=True)
class PictureScores:
    """Per picture: the class predicted (from 1), and the place of the right one among the best five (5: not there)."""

    predicted: npt.NDArray[np.int32]
    place: npt.NDArray[np.uint8]


def scores_of(outputs: torch.Tensor, labels: torch.Tensor) -> PictureScores:
    """Of (N, C) outputs against (N) labels counted from 1."""
    best = outputs.topk(min(TOP, outputs.shape[1]), dim=1).indices + 1
    hits = best == labels.view(-1, 1)
    place = torch.where(hits.any(dim=1), hits.int().argmax(dim=1), TOP)
    return PictureScores(best[:, 0].to(torch.int32).numpy(), place.to(torch.uint8).numpy())


class Progress:
    """The pictures tested so far: arrays for all pictures, of which the first `n_done` are filled."""

    def __init__(self, n_pictures: int, has_xnor: bool):
        self.n_done = self.n_checked = self.n_unreadable = 0
        self.has_xnor = has_xnor
        self.arrays: dict[str, npt.NDArray[Any]] = {
            "float_predicted": np.zeros(n_pictures, np.int32),
            "float_place": np.zeros(n_pictures, np.uint8),
        }
        if has_xnor:
            self.arrays |= {
                "xnor_predicted": np.zeros(n_pictures, np.int32),
                "xnor_place": np.zeros(n_pictures, np.uint8),
                "difference": np.zeros(n_pictures, np.float32),
            }
        self.checks: dict[str, LayerCheck] = {}

    def add(self, path: str, scores: PictureScores) -> None:
        """The next pictures' scores by "float" or "xnor"; `n_done` is moved on by the caller."""
        part = slice(self.n_done, self.n_done + len(scores.predicted))
        self.arrays[f"{path}_predicted"][part] = scores.predicted
        self.arrays[f"{path}_place"][part] = scores.place

    def accuracy(self, path: str, top: int) -> Accuracy:
        return Accuracy(int((self.arrays[f"{path}_place"][: self.n_done] < top).sum()), self.n_done)

    @property
    def n_same(self) -> int:
        """Pictures for which both paths predict the same class."""
        ours, theirs = (self.arrays[f"{path}_predicted"][: self.n_done] for path in ("float", "xnor"))
        return int((ours == theirs).sum())

    @property
    def largest_difference(self) -> float:
        return float(self.arrays["difference"][: self.n_done].max(initial=0))

    def write(self, path: Path, key: str) -> None:
        """Replace the file as a whole."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _COUNTS}
        record["checks"] = [asdict(check) for check in self.checks.values()]
        metadata = {"format": "xnornet parity", "key": key, "record": json.dumps(record)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as file:
            file.write(save(self.arrays, metadata=metadata))

    def read(self, path: Path, key: str) -> bool:
        """Go on from a file of the same run; False where there is none. XnorNetError for another or a damaged one."""
        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != "xnornet parity" or metadata.get("key") != key:
                    raise XnorNetError(f"{path}: of another run; delete it, or name another file with --state")
                found = {name: file.get_tensor(name) for name in self.arrays}
                record = json.loads(metadata["record"])
            if any(array.shape != self.arrays[name].shape for name, array in found.items()):
                raise ValueError("its arrays have another length")
            for name in _COUNTS:
                setattr(self, name, int(record[name]))
            for check in record["checks"]:
                wrong = {int(number): int(count) for number, count in check.pop("wrong_filters").items()}
                self.checks[check["place"]] = LayerCheck(**check, wrong_filters=wrong)
            self.arrays = found
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise XnorNetError(f"{path}: a damaged state ({error}); delete it to start anew") from error
        return True


def key_of(files: list[Path | None], settings: dict[str, object]) -> str:
    """What makes a run this run: the content of its files, and its settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in files:
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
