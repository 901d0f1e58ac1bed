"""How Lua and Torch7 write and read values: the golden logs, and C's printf and LuaJIT's source by hand."""

import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lua_compat.lua_format import os_date, print_text, string_format, table_text, to_number, to_string
from lua_compat.values import LuaFunction, LuaTable, TorchObject, storage, tensor

# ---- tostring ----


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nil"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (0.0, "0"),
        (-0.0, "-0"),
        (5, "5"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (1 / 3, "0.33333333333333"),  # %.14g: 14 digits
        (1e-05, "1e-05"),
        (1e15, "1e+15"),
        (1e14, "1e+14"),
        (
            123456789012345,
            "1.2345678901234e+14",
        ),  # a tie: to the even digit
        (12345678901234, "12345678901234"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (-math.nan, "nan"),
        (np.float32(0.1), "0.10000000149012"),  # a float read from a tensor is its double
        (np.int64(3), "3"),
        ("a b", "a b"),
        (b"caf\xe9", "caf\udce9"),
        (TorchObject("nn.ReLU", {}), "nn.ReLU"),
        (tensor(np.zeros((3, 4), np.float32)), "FloatTensor - size: 3x4"),
        (tensor(np.zeros((0,), np.float64)), "DoubleTensor - empty"),
        (storage(np.zeros(7, np.int64)), "LongStorage - size: 7"),
    ],
)
def test_tostring(value: Any, text: str) -> None:
    assert to_string(value) == text


def test_tables_and_functions_have_an_address() -> None:
    assert re.fullmatch(r"table: 0x[0-9a-f]{8,}", to_string(LuaTable()))
    assert re.fullmatch(r"table: 0x[0-9a-f]{8,}", to_string({}))
    assert re.fullmatch(r"function: 0x[0-9a-f]{8,}", to_string(LuaFunction(b"")))


# ---- print ----


def test_print_puts_a_tab_after_each_value() -> None:
    """Lines of golden/runs/bwn_sgd/stdout.log."""
    assert print_text("nClasses", 5, 1000) == "nClasses\t5\t1000\t\n"
    assert print_text("=> Model") == "=> Model\t\n"
    assert print_text("\n") == "\n\t\n"
    assert print_text("binaryWeight", "t", False) == "binaryWeight\tt\tfalse\t\n"
    assert print_text("nClasses: ", 5) == "nClasses: \t5\t\n"
    assert print_text(TorchObject("nn.ClassNLLCriterion", {})) == "nn.ClassNLLCriterion\n"
    assert print_text() == ""


def test_print_of_the_options_is_the_golden_block_sorted(golden: Path) -> None:
    text = (golden / "runs" / "bwn_sgd" / "stdout.log").read_text()
    block = re.search(r"^\{\n  .*?^\}\n", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    lines = block[0].splitlines()
    options: dict[str, Any] = {}
    for line in lines[1:-1]:
        name, value = line.strip().split(" : ")
        text_or_number = value[1:-1] if value[0] == '"' else to_number(value)
        options[name] = {"true": True, "false": False}.get(value, text_or_number)
    assert len(options) == 31  # the 30 options of opts.lua, and save
    assert print_text(LuaTable(options)).splitlines() == ["{", *sorted(lines[1:-1]), "}"]
    assert table_text(options) + "\n" == print_text(LuaTable(options))


def test_print_of_nested_tables() -> None:
    """trepl/init.lua followed by hand: 4 spaces a level, keys 2 further, `{}` alone but `{...}` inside."""
    inner = LuaTable([1, "x"])
    nested = LuaTable({"b": inner, "a": LuaTable(), 2: True, 10: None, "t": tensor(np.zeros((2, 2)))})
    assert print_text(nested, "end") == (
        "{\n  2 : true\n  a : {...}\n  b : \n    {\n      1 : 1\n"
        '      2 : "x"\n    }\n  t : DoubleTensor - size: 2x2\n}\nend\t\n'
    )
    assert print_text({}) == "{}\n"
    assert print_text([1, (2,)]) == "{\n  1 : 1\n  2 : \n    {\n      1 : 2\n    }\n}\n"
    assert print_text({"m": TorchObject("nn.View", {"n": 1})}) == "{\n  m : \n    {\n      n : 1\n    }\n}\n"


def test_print_stops_at_the_fifth_level() -> None:
    assert print_text([[[[[[1]]]]]]).count("{") == 6
    assert "                  1 : {...}\n" in print_text([[[[[[1]]]]]])  # level 5: 16 spaces + 2


def test_print_of_a_table_that_holds_itself_ends() -> None:
    table = LuaTable()
    table["self"] = table
    assert print_text(table).count("self : {...}") == 1


# ---- tonumber ----


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("  5\t\n", 5),
        ("-5", -5),
        ("+5", 5),
        ("007", 7),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("1e3", 1000),
        ("1E-2", 0.01),
        ("1e+2", 100),
        ("1e400", math.inf),
        ("0x10", 16),
        ("0XfF", 255),
        ("-0x10", -16),
        ("0x.8", 0.5),
        ("0x1p4", 16),
        ("0xA.8p-1", 5.25),
        ("0x1p99999", math.inf),
        ("-0x1p99999", -math.inf),
        ("0b101", 5),
        ("-0b11", -3),
        ("inf", math.inf),
        ("-INF", -math.inf),
        ("Infinity", math.inf),
        ("9007199254740993", 9007199254740992.0),  # a double: 2**53 + 1 is not one
        (5, 5),
        (0.25, 0.25),
    ],
)
def test_tonumber(text: str, number: float) -> None:
    assert to_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "-", ".", "abc", "5a", "1 2", "1e", "1e+", "0x", "0xg", "0b", "0b2", "1_000", "1,5", "0x1p",
     "--5", "- 5", "infx", "in", "5\N{NO-BREAK SPACE}", "\N{ARABIC-INDIC DIGIT FIVE}", "true", "1.2.3", "5\0"],
)  # fmt: skip
def test_not_a_number(text: str) -> None:
    assert to_number(text) is None


def test_whole_numbers_are_int_and_nan_is_nan() -> None:
    assert type(to_number("1e3")) is int
    assert type(to_number("0.0")) is int
    assert str(to_number("-0")) == "-0.0"  # Lua keeps the sign
    assert math.isnan(to_number("nan") or 0)
    assert math.isnan(to_number("-NaN") or 0)


# ---- string.format ----


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        ("LR %.0e", [0.01], "LR 1e-02"),  # golden console: LR 1e-02
        ("%.3f(%.3f)", [1.192, 0.953], "1.192(0.953)"),
        ("Epoch: [%d][%d/%d]", [1, 2.0, 6], "Epoch: [1][2/6]"),
        ("Top1-%%: %.2f", [25], "Top1-%: 25.00"),
        ("%11.4e", [25], " 2.5000e+01"),  # golden train.log
        ("%11.4e", [math.nan], "        nan"),
        ("%.2f", [-math.nan], "nan"),
        ("%5.1f|%-6d|%06.2f|%+d", [1.25, 7, 3.14159, 5], "  1.2|7     |003.14|+5"),
        ("%d", [3.99], "3"),
        ("%d", [-3.99], "-3"),
        ("%d", ["0x10"], "16"),
        ("%i %u", [5, 5], "5 5"),
        ("%d", [math.inf], "-9223372036854775808"),
        ("%x %X %#x %o", [255, 255, 255, 8], "ff FF 0xff 10"),
        ("%x", [-1], "ffffffffffffffff"),
        ("%c%c", [72, 105], "Hi"),
        ("%s %s %s", [1, None, True], "1 nil true"),
        ("%5s|%-5s|%.2s", ["ab", "ab", "abc"], "   ab|ab   |ab"),
        ("%g %G", [1e-10, 0.5], "1e-10 0.5"),
        ("%q", ['a"b\\c\nd'], '"a\\"b\\\\c\\\nd"'),
        ("%.3f", [np.float32(0.5)], "0.500"),
        ("none", [1, 2], "none"),
    ],
)
def test_string_format(pattern: str, arguments: list[Any], text: str) -> None:
    assert string_format(pattern, *arguments) == text


@pytest.mark.parametrize(
    ("pattern", "arguments", "message"),
    [
        ("%d", [], "bad argument #2 to 'format' (no value)"),
        ("%d %d", [1], "bad argument #3 to 'format' (no value)"),
        ("%d", ["x"], "bad argument #2 to 'format' (number expected, got string)"),
        ("%s%d", ["x", None], "bad argument #3 to 'format' (number expected, got nil)"),
        ("%f", [True], "bad argument #2 to 'format' (number expected, got boolean)"),
        ("%f", [LuaTable()], "bad argument #2 to 'format' (number expected, got table)"),
        ("%y", [1], "invalid option '%y' to 'format'"),
        ("5%", [1], "invalid option '%' to 'format'"),
        ("%123d", [1], "invalid option '%123' to 'format'"),
        ("%#o", [8], "'%#o' is not supported by string_format"),
    ],
)
def test_string_format_errors(pattern: str, arguments: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        string_format(pattern, *arguments)


# ---- os.date ----


@pytest.fixture
def _utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.mark.usefixtures("_utc")
def test_date() -> None:
    """golden/runs/bwn_sgd: `cache/.../SatNov2120:06:282026`, which is os.date() without spaces."""
    moment = 1795291588  # 2026-11-21 20:06:28 UTC: 20778 days and 72388 s after 1970
    assert moment == 20778 * 86400 + 20 * 3600 + 6 * 60 + 28
    assert os_date(when=moment) == "Sat Nov 21 20:06:28 2026"
    assert os_date(when=moment).replace(" ", "") == "SatNov2120:06:282026"
    assert os_date("%Y-%m-%d %H:%M:%S", moment) == "2026-11-21 20:06:28"
    assert os_date(when=moment - 20 * 86400) == "Sun Nov  1 20:06:28 2026"
    assert os_date("on %c.", moment) == "on Sat Nov 21 20:06:28 2026."
    assert os_date("!%H", moment) == "20"


def test_date_is_now_by_default() -> None:
    before = int(time.time())
    found = os_date("%Y %j %H %M %S")
    moments = range(before, int(time.time()) + 1)
    assert found in {time.strftime("%Y %j %H %M %S", time.localtime(moment)) for moment in moments}
