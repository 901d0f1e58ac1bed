"""What the classes of a network are called: their folders' names in its order, and words for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lua_compat
from lua_compat.errors import LuaCompatError
from lua_compat.values import LuaTable
from xnornet_port.dataset_cache import read_dataset
from xnornet_port.errors import XnorNetError

__all__ = ["ClassNames", "find_class_names", "read_words"]

CLASS_FILES = ("classes.t7", "trainCache.t7", "testCache.t7")
SYNSET_LINE = re.compile(r"(n\d{8})[\s,:]+(\S.*)")


class ClassNames(NamedTuple):
    """names: of the folders, in the network's order; () where they are not known. words: by name, or by number."""

    names: tuple[str, ...]
    words: dict[str | int, str]

    def folder(self, number: int) -> str:
        """Of class `number`, from 1."""
        return self.names[number - 1] if self.names else f"class {number}"

    def title(self, number: int) -> str:
        """For people: the words where there are some, else the folder's name."""
        return self.words.get(self.folder(number)) or self.words.get(number) or self.folder(number)


def find_class_names(
    folders: Sequence[Path],
    words_file: Path | None,
    n_classes: int,
    reason: Callable[[int], str] = lambda number: "it is another network's",
) -> ClassNames:
    """From the first of `folders` that has a list of classes, and a file of words.

    Raises XnorNetError where either has another number of classes than the network: of a list with `reason` of its
    number.
    """
    files = [folder / name for folder in folders for name in CLASS_FILES if (folder / name).is_file()]
    names = _names_in(files[0]) if files else ()
    if files and len(names) != n_classes:
        raise XnorNetError(f"{files[0]}: has {len(names)} classes, the network {n_classes}: {reason(len(names))}")
    words = {} if words_file is None else read_words(words_file, n_classes)
    return ClassNames(names, words)


def read_words(path: Path, n_classes: int) -> dict[str | int, str]:
    """What classes are called, from one of

    lines `n01440764 tench, Tinca tinca` (synset_words.txt), by name; any other lines, or the list in a classes.t7: one
    for each class in the network's order, by number from 1. Raises XnorNetError.
    """
    if path.suffix == ".t7":
        lines = list(_names_in(path))
    else:
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise XnorNetError(f"{path}: not a text file (byte {error.start})") from error
    matches = [SYNSET_LINE.fullmatch(line) for line in lines]
    if lines and all(matches):
        return {match.group(1): match.group(2).strip() for match in matches if match}
    if len(lines) != n_classes:
        raise XnorNetError(
            f"{path}: neither lines such as 'n01440764 tench, Tinca tinca' nor one for each of the {n_classes} classes"
        )
    return dict(enumerate(lines, start=1))


def _names_in(path: Path) -> tuple[str, ...]:
    """Of a data cache, or a list of names."""
    if path.name in CLASS_FILES[1:]:
        return read_dataset(str(path)).classes
    try:
        value = lua_compat.load(path)
    except LuaCompatError as error:
        raise XnorNetError(str(error)) from error
    names = value.to_list() if isinstance(value, LuaTable) else []
    if not names or not all(isinstance(name, str | bytes) for name in names):
        raise XnorNetError(f"{path}: not a list of class names, as main.py's classes.t7 is")
    return tuple(name if isinstance(name, str) else name.decode("utf-8", errors="replace") for name in names)
