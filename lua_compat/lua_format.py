"""How Lua and Torch7 write values: numbers, tostring, print, string.format, tonumber, os.date.

Ports what LuaJIT 2.1 (lj_strfmt.c, lj_strscan.c) and Torch7's `print` (trepl/init.lua) put on the console and read
from the command line, so that lines, logs and folder names are the original's.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lua_compat.values import LuaFunction, LuaTable, LuaValue, TorchObject, lua_number

__all__ = ["os_date", "print_text", "string_format", "table_text", "to_number", "to_string"]

PRINT_DEPTH = 5  # trepl: setprintlevel(5); tables nested deeper are printed as {...}
SPACE = " \t\n\v\f\r"  # C's isspace; Python's str.strip would take Unicode spaces too
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)([pP][+-]?\d+)?", re.ASCII)
BINARY = re.compile(r"([+-]?)0[bB]([01]+)", re.ASCII)
NOT_FINITE = re.compile(r"([+-]?)(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
# Flags, width, precision, conversion: at most two digits each for the numbers, as Lua checks.
FORMAT_ITEM = re.compile(r"%([-+ #0]*)(\d{0,2})(\.\d{0,2})?(.?)", re.DOTALL)
QUOTED = {'"': '\\"', "\\": "\\\\", "\n": "\\\n", "\r": "\\r", "\0": "\\0"}
INT64_MIN = -(2**63)
TYPE_NAMES: tuple[tuple[Any, str], ...] = (
    (type(None), "nil"),
    ((bool, np.bool_), "boolean"),  # before the numbers: a Python bool is an int
    ((int, float, np.integer, np.floating), "number"),
    ((str, bytes), "string"),
    (LuaFunction, "function"),
    (np.ndarray, "userdata"),
)


# ---- values to text ----


def to_string(value: LuaValue) -> str:
    """Lua's tostring. Tables and functions have no lasting name: `table: 0x...`, different in every run.

    Torch objects give their class name, tensors and storages what trepl shows of them inside a table.
    """
    if value is None:
        return "nil"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return number_text(float(value))
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, TorchObject):
        return value.typename
    if isinstance(value, np.ndarray):
        return size_text(value)
    kind = "function" if isinstance(value, LuaFunction) else "table"
    return f"{kind}: 0x{id(value):08x}"


def number_text(value: float) -> str:
    """A number as LuaJIT prints it: %.14g; inf, -inf and nan (which has no sign)."""
    return "nan" if math.isnan(value) else f"{value:.14g}"


def size_text(array: np.ndarray[Any, Any]) -> str:
    """A tensor or storage in one line, as trepl's sizestr: FloatTensor - size: 3x4."""
    name = getattr(array, "typename", "torch.Tensor").removeprefix("torch.")
    return f"{name} - empty" if array.size == 0 else f"{name} - size: {'x'.join(map(str, array.shape))}"


def print_text(*values: LuaValue) -> str:
    """What Torch7's `print(...)` writes, line ends included (trepl's print_new, without colours).

    A tab follows every plain value. A table is written over several lines, its keys sorted (numbers, then
    names; Lua's own order is arbitrary and changes from run to run). Dicts, lists and tuples print as tables.
    """
    text = ""
    for place, value in enumerate(values, 1):
        if is_table(value):
            text += table_text(value) + "\n"
        elif isinstance(value, (TorchObject, np.ndarray)):
            text += to_string(value) + "\n"
        else:
            text += to_string(value) + ("\t\n" if place == len(values) else "\t")
    return text


def table_text(table: LuaValue) -> str:
    """The lines that print shows of a table, a mapping or a sequence, without the last line end."""
    return "\n".join(table_lines(table, depth=0))


def is_table(value: LuaValue) -> bool:
    return isinstance(value, (LuaTable, Mapping, list, tuple)) and not isinstance(value, TorchObject)


def table_lines(table: LuaValue, depth: int) -> list[str]:
    """The lines of one table; nested ones are four spaces further in, empty or too deep ones are {...}."""
    margin = " " * (4 * depth)
    entries = sorted_entries(table)
    if not entries:
        return [margin + "{}"]
    lines = [margin + "{"]
    for key, value in entries:
        label = f"{margin}  {to_string(key)} : "
        if not is_table(value) and not isinstance(value, TorchObject):
            lines.append(label + nested_text(value))
        elif depth >= PRINT_DEPTH - 1 or not sorted_entries(value):
            lines.append(label + "{...}")
        else:
            lines += [label, *table_lines(value, depth + 1)]
    return [*lines, margin + "}"]


def sorted_entries(table: LuaValue) -> list[tuple[Any, Any]]:
    """Keys and values: numbers in order, then names in order, then the rest; nil values are no entries."""
    if isinstance(table, TorchObject):
        table = table.payload
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(table, Mapping):
        pairs = table.items()
    elif isinstance(table, (list, tuple)):
        pairs = enumerate(table, 1)
    else:
        pairs = ()  # an object that is bytes or a count
    present = [(key, value) for key, value in pairs if value is not None]
    return sorted(present, key=lambda pair: key_order(pair[0]))


def key_order(key: Any) -> tuple[int, float, str]:
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return (0, key, "")
    return (1 if isinstance(key, str) else 2, 0.0, to_string(key))


def nested_text(value: LuaValue) -> str:
    text = to_string(value)
    return f'"{text}"' if isinstance(value, (str, bytes)) else text


# ---- text to numbers ----


def to_number(text: str | int | float) -> int | float | None:
    """Lua's tonumber as LuaJIT does it; None where the text is no number.

    Spaces around, a sign, decimals and exponents, 0x hexadecimal (with fraction and p exponent), 0b binary, and
    in any case of letters inf, infinity, nan. Whole numbers come back as int, the rest as float.
    """
    if isinstance(text, (int, float)):
        return text
    word = text.strip(SPACE)
    if match := BINARY.fullmatch(word):
        return lua_number(float(match[1] + "1") * int(match[2], 2))
    if match := NOT_FINITE.fullmatch(word):
        return float("nan" if match[2].lower() == "nan" else word)
    if HEXADECIMAL.fullmatch(word):
        return lua_number(hexadecimal(word))
    return lua_number(float(word)) if DECIMAL.fullmatch(word) else None


def hexadecimal(word: str) -> float:
    try:
        return float.fromhex(word)
    except OverflowError:
        return -math.inf if word.startswith("-") else math.inf


# ---- string.format ----


def string_format(pattern: str, *arguments: LuaValue) -> str:
    """Lua's string.format: %d %i %u %c %x %X %o %e %E %f %F %g %G %q %s %%.

    %d cuts the fraction off; numbers may come as text that `to_number` reads; %s takes any value. ValueError in
    Lua's words for a missing or wrong argument or an unknown conversion (here %a is one).
    """
    remaining = iter(enumerate(arguments, 2))  # Lua counts the pattern as argument 1

    def replace(match: re.Match[str]) -> str:
        flags, width, precision, conversion = match[1], match[2], match[3] or "", match[4]
        if match[0] == "%%":
            return "%"
        if not conversion or conversion not in "diucxXoeEfFgGqs":
            raise ValueError(f"invalid option '{match[0]}' to 'format'")
        position, value = next(remaining, (0, None))
        if position == 0:
            raise ValueError(f"bad argument #{len(arguments) + 2} to 'format' (no value)")
        return formatted(f"%{flags}{width}{precision}", conversion, value, position)

    return FORMAT_ITEM.sub(replace, pattern)


def formatted(spec: str, conversion: str, value: LuaValue, position: int) -> str:
    """One value by one conversion; `spec` is the part from % to the precision."""
    if conversion == "s":
        return f"{spec}s" % to_string(value)
    if conversion == "q":
        return '"' + "".join(QUOTED.get(letter, letter) for letter in to_string(value)) + '"'
    number = number_argument(value)
    if number is None:
        raise ValueError(f"bad argument #{position} to 'format' (number expected, got {type_name(value)})")
    if conversion in "eEfFgG":
        return f"{spec}{conversion}" % (math.nan if math.isnan(number) else number)
    whole = int(number) if math.isfinite(number) else INT64_MIN  # what the C cast gives
    if conversion == "c":
        return f"{spec}s" % chr(whole & 0xFF)
    if conversion in "di":
        return f"{spec}d" % whole
    unsigned = whole & (2**64 - 1)
    if conversion == "o" and "#" in spec:
        raise ValueError("'%#o' is not supported by string_format")  # Python writes 0o17 where C writes 017
    return f"{spec}{'d' if conversion == 'u' else conversion}" % unsigned


def number_argument(value: LuaValue) -> int | float | None:
    """A number, or text that reads as one (luaL_checknumber); None for anything else."""
    if isinstance(value, (np.integer, np.floating)):
        return float(value)
    is_candidate = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    return to_number(value) if is_candidate else None


def type_name(value: LuaValue) -> str:
    """Lua's type(); what is none of the others is a table."""
    for kinds, name in TYPE_NAMES:
        if isinstance(value, kinds):
            return name
    return "table"


# ---- dates ----


def os_date(pattern: str = "%c", when: float | None = None) -> str:
    """Lua's os.date in the C locale: by default like `Sat Nov 21 20:06:28 2026`; a leading ! means UTC.

    `when` is seconds since 1970, by default now. Days below 10 have a space in front (`Sun Nov  1 ...`).
    """
    seconds = time.time() if when is None else when
    moment = time.gmtime(seconds) if pattern.startswith("!") else time.localtime(seconds)
    # time.asctime is C's %c in the C locale whatever locale the program runs in.
    return time.strftime(pattern.removeprefix("!").replace("%c", time.asctime(moment)), moment)
