"""Plain values out of a pickle, without running it: CIFAR's python distribution is pickled.

A pickle is a program that may call anything; Python's `pickle` runs it. Here its instructions are only read
(`pickletools`), and those that build numbers, strings, lists, dictionaries and NumPy arrays of plain elements are done
by hand. What would import or call anything else is an error, and nothing is ever called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

__all__ = ["pickled_value"]

# The three names that a pickled array mentions, before and since NumPy 2 moved them.
_ARRAY_NAMES = {
    f"{package}.multiarray _reconstruct": "array" for package in ("numpy.core", "numpy._core")
} | {"numpy ndarray": "class", "numpy dtype": "type"}  # fmt: skip
_ELEMENTS = ("u1", "i1", "i2", "i4", "i8", "f4", "f8")
_LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_OLD_STRINGS = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # of Python 2: bytes, which pickletools shows as Latin-1
_STORES, _FETCHES = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


class _Mark:
    """Where a group of values begins on the stack."""


@dataclass
class _Name:
    """One of _ARRAY_NAMES."""

    kind: str


@dataclass
class _Type:
    """numpy.dtype(text, ...), its byte order set afterwards."""

    text: str
    byte_order: str = "|"


@dataclass
class _Array:
    """An array that is being made; its contents come with BUILD."""

    value: np.ndarray | None = None


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: bytes) -> Any:
        argument: Any
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _OLD_STRINGS:
                self.stack.append(argument.encode("latin-1"))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _STORES:
                self.memo[argument] = self.stack[-1]
            elif name in _FETCHES:
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME"):
                self._build(name, argument)
        raise ValueError("it has no end")

    def _build(self, name: str, argument: Any) -> None:
        if name not in _STEPS:
            raise ValueError(f"instruction {name} is not one of plain values and arrays")
        _STEPS[name](self, argument)

    def group(self) -> list[Any]:
        """The values down to the last mark, which goes too."""
        start = next(i for i in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[i], _Mark))
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def take(self, count: int) -> list[Any]:
        """The last values of the stack."""
        if len(self.stack) < count:
            raise IndexError("its stack is empty")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def name(self, text: object) -> None:
        if text not in _ARRAY_NAMES:
            raise ValueError(f"it asks for {str(text)[:60]!r}, which is not allowed")
        self.stack.append(_Name(_ARRAY_NAMES[str(text)]))

    def call(self, _: object) -> None:
        """REDUCE: of all calls only the beginning of an array and of its element type, neither of which is made."""
        function, arguments = self.take(2)
        kind = function.kind if isinstance(function, _Name) else None
        if kind == "array":
            self.stack.append(_Array())
        elif kind == "type":
            self.stack.append(_Type(_text(arguments[0])))
        else:
            raise ValueError("it calls what is not allowed")

    def state(self, _: object) -> None:
        """BUILD: what __setstate__ of an array or its element type would get."""
        (state,) = self.take(1)
        target = self.stack[-1]
        if isinstance(target, _Type):
            target.byte_order = _text(state[1])
        elif isinstance(target, _Array):
            target.value = _array(state)
        else:
            raise ValueError("it sets the state of what is no array")

    def items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or not all(isinstance(key, str | bytes | int) for key in values[::2]):
            raise ValueError("it adds pairs to what is no dictionary, or a key that is no text or number")
        target.update(zip(values[::2], values[1::2], strict=True))

    def elements(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("it adds elements to what is no list")
        target.extend(values)


def pickled_value(data: bytes) -> Any:
    """The array or plain value in a pickle, or its dictionary of such; ValueError for any other pickle."""
    try:
        value = _Machine().run(data)
        if not isinstance(value, dict):
            return _finished(value)
        return {key: _finished(entry) for key, entry in value.items()}  # no deeper: shared lists may be endless
    except (IndexError, KeyError, StopIteration, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"a damaged pickle ({type(error).__name__})") from error


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.group())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "LIST": lambda machine, _: machine.stack.append(machine.group()),
    "SETITEM": lambda machine, _: machine.items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.items(machine.group()),
    "APPEND": lambda machine, _: machine.elements(machine.take(1)),
    "APPENDS": lambda machine, _: machine.elements(machine.group()),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "GLOBAL": lambda machine, text: machine.name(text),
    "STACK_GLOBAL": lambda machine, _: machine.name(" ".join(machine.take(2))),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.state,
}


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise TypeError("a text was expected")
    return value if isinstance(value, str) else value.decode("ascii")


def _array(state: tuple[Any, ...]) -> np.ndarray:
    """From (version, shape, element type, whether Fortran's order, bytes)."""
    _, shape, element, is_fortran, content = state
    if not isinstance(element, _Type) or element.text not in _ELEMENTS or element.byte_order not in "|<>=":
        raise ValueError("an array in it is not of plain numbers")
    if isinstance(content, str):  # Python 3 writing protocol 2
        content = content.encode("latin-1")
    dtype = np.dtype((">" if element.byte_order == ">" else "<") + element.text)
    if (
        len(shape) > 4
        or not all(type(n) is int and 0 <= n <= len(content) for n in shape)
        or len(content) != prod(shape) * dtype.itemsize
    ):
        raise ValueError(f"an array in it has {len(content)} bytes for shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _finished(value: Any) -> Any:
    """The value itself; of an array that was being made, the array."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array in it has no contents")
        return value.value
    if isinstance(value, _Name | _Type | _Mark):
        raise ValueError("it holds what is no value")
    return value
