"""Which class each validation picture of ImageNet is of: from the development kit, or from a list.

The kit has data/ILSVRC2012_validation_ground_truth.txt, a number per line, and data/meta.mat, which says what class
("n01440764") each number stands for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import scipy.io

from cache_tools.safe_tar import is_tar_name, open_tar, regular_members
from xnornet_port.errors import XnorNetError

__all__ = ["Labels", "read_devkit", "read_list"]

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
PICTURE_NAME = "ILSVRC2012_val_{:08d}.JPEG"
LARGEST_FILE = 100 << 20  # bytes; the real ones have 0.2 and 0.9 MB
CLASS_NAME = re.compile(r"n\d{8}")
LIST_HEADER = "ImageId,PredictionString"  # of LOC_val_solution.csv, as Kaggle has it


class Labels(NamedTuple):
    """class_of: class by picture name. words: what the classes are called, by class; {} where that is not known."""

    class_of: Mapping[str, str]
    words: Mapping[str, str]


def read_devkit(path: Path) -> Labels:
    """From ILSVRC2012_devkit_t12.tar.gz or the folder it unpacks to. Raises XnorNetError naming file and line."""
    files = _files_of_tar(path) if is_tar_name(path) else _files_of_folder(path)
    missing = [name for name in (GROUND_TRUTH, META) if name not in files]
    if missing:
        raise XnorNetError(f"{path}: not ImageNet's development kit, it lacks {' and '.join(missing)}")
    classes = _classes_by_number(files[META], path)
    class_of = {}
    for line, text in enumerate(files[GROUND_TRUTH].decode("ascii", errors="replace").split(), start=1):
        if not text.isdigit() or int(text) not in classes or not classes[int(text)].is_leaf:
            raise XnorNetError(f"{path}: {GROUND_TRUTH}, line {line}: not a class number of {META}: {text!r}")
        class_of[PICTURE_NAME.format(line)] = classes[int(text)].name
    used = {entry.name: entry.words for entry in classes.values() if entry.is_leaf}
    return Labels(class_of, used)


def read_list(path: Path) -> Labels:
    """From lines such as `ILSVRC2012_val_00000001.JPEG n01751748`, or Kaggle's LOC_val_solution.csv."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise XnorNetError(f"{path}: not a list of pictures and classes (byte {error.start} is no text)") from error
    class_of = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.strip() == LIST_HEADER:
            continue
        name, class_name, *_ = [*re.split(r"[,\s]+", line.strip()), ""]
        if not re.fullmatch(r"[\w.-]+", name) or not re.fullmatch(r"[\w-]+", class_name):
            raise XnorNetError(
                f"{path}, line {number}: expected a picture and its class such as "
                f"'ILSVRC2012_val_00000001.JPEG n01751748', found {line[:80]!r}"
            )
        class_of[name if Path(name).suffix else f"{name}.JPEG"] = class_name
    return Labels(class_of, {})


def _files_of_tar(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with open_tar(path) as tar:
        for name, member in regular_members(tar, path):
            stream = tar.extractfile(member)
            if name in (GROUND_TRUTH, META) and stream is not None:
                if member.size > LARGEST_FILE:
                    raise XnorNetError(f"{path}: {member.name} of {member.size} bytes is not the kit's")
                files[name] = stream.read()
    return files


def _files_of_folder(path: Path) -> dict[str, bytes]:
    found = {name: next((p for p in (path / "data" / name, path / name) if p.is_file()), None)
             for name in (GROUND_TRUTH, META)}  # fmt: skip
    return {name: file.read_bytes() for name, file in found.items() if file is not None}


class _Synset(NamedTuple):
    name: str
    words: str
    is_leaf: bool


def _classes_by_number(data: bytes, path: Path) -> dict[int, _Synset]:
    """meta.mat: `synsets`, an array of structures with ILSVRC2012_ID, WNID, words, num_children and more."""
    try:
        synsets = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True, variable_names=["synsets"])["synsets"]
        classes = {
            int(entry["ILSVRC2012_ID"]): _Synset(
                str(entry["WNID"]), str(entry["words"]), not int(entry["num_children"])
            )
            for entry in synsets.reshape(-1)
        }
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError, OSError) as error:
        raise XnorNetError(f"{path}: {META} is damaged or not ImageNet's ({error})") from error
    for number, entry in classes.items():
        if not CLASS_NAME.fullmatch(entry.name):
            raise XnorNetError(f"{path}: {META}, class {number}: not a name such as n01440764: {entry.name!r}")
    return classes
