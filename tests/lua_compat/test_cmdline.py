"""torch.CmdLine against the golden runs, and its texts against CmdLine.lua followed by hand."""

import io
import re
from pathlib import Path

import pytest

from lua_compat.cmdline import CmdLine, HelpRequested, OptionValue
from lua_compat.errors import CmdLineError


def example() -> CmdLine:
    cmd = CmdLine()
    cmd.text()
    cmd.text("Train")
    cmd.argument("-input", "the input file")
    cmd.option("-size", 128, "batch size")
    cmd.option("-rate", 0.5, "learning rate")
    cmd.option("-share", True, "share memory")
    cmd.option("-name", "none", "a name")
    return cmd


HELP = (
    "Usage: {}[options] <input>\n\nTrain\n"
    "  <input> the input file\n"
    "  -size   batch size [128]\n"
    "  -rate   learning rate [0.5]\n"
    "  -share  share memory [true]\n"
    "  -name   a name [none]\n"
)

Values = dict[str, OptionValue]
DEFAULTS: Values = {"size": 128, "rate": 0.5, "share": True, "name": "none"}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["in"], {}),
        (["in", "-size", "8"], {"size": 8}),
        (["-size", "8", "in"], {"size": 8}),
        (["in", "-size", "0x10"], {"size": 16}),
        (["in", "-size", " 1e2 "], {"size": 100}),
        (["in", "-rate", "inf"], {"rate": float("inf")}),
        (["in", "-share"], {"share": False}),  # a boolean inverts its default and takes no value
        (["in", "-share", "-share"], {"share": False}),  # the default, not the value, is inverted
        (["in", "-name", "-size"], {"name": "-size"}),  # an option's value may look like an option
        (["in", "-name", "-help"], {"name": "-help"}),
        (["in", "-name", ""], {"name": ""}),
        (["in", "-size", "1", "-size", "2"], {"size": 2}),
    ],
)
def test_parse(words: list[str], changes: Values) -> None:
    assert example().parse(words) == {**DEFAULTS, "input": "in", **changes}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "-size"], "missing argument for option -size"),
        (["in", "-size", "eight"], "invalid type for option -size (should be number)"),
        (["in", "-size", ""], "invalid type for option -size (should be number)"),
        (["in", "more"], "invalid argument: more"),
        (["in", "-verbose"], "invalid argument: -verbose"),
        (["in", "-Size"], "invalid argument: -Size (did you mean -size?)"),
        (["in", "-shares"], "invalid argument: -shares (did you mean -share?)"),
        (["in", "-share", "true"], "invalid argument: true (-share before it takes no value)"),
        (["in", "-share", "-verbose"], "invalid argument: -verbose"),
        (["-share", "in", "true"], "invalid argument: true"),
        (["in", "-share", "-name", "-share", "true"], "invalid argument: true"),
        ([], "not enough arguments"),
        (["-size", "3"], "not enough arguments"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(CmdLineError, match=f"^{re.escape(message)}$"):
        example().parse(words)


def test_an_unknown_option_takes_the_place_of_an_argument() -> None:
    """As in the original, which tells options from arguments by knowing them."""
    assert example().parse(["-verbose"])["input"] == "-verbose"


def test_typed_arguments_are_refused_as_in_the_original() -> None:
    """What is typed is text, and CmdLine.lua does not convert it."""
    cmd = CmdLine()
    cmd.argument("-count", "how many", "number")
    with pytest.raises(CmdLineError, match=re.escape("invalid argument type for argument -count (should be number)")):
        cmd.parse(["3"])


@pytest.mark.parametrize("word", ["-help", "-h", "--help"])
def test_help(word: str) -> None:
    with pytest.raises(HelpRequested) as raised:
        example().parse(["in", word], program="main.lua")
    assert str(raised.value) == HELP.format("main.lua ")
    assert example().help() == HELP.format("")


def test_help_is_not_an_error() -> None:
    assert not issubclass(HelpRequested, CmdLineError)


def test_declaring_options() -> None:
    cmd = CmdLine()
    with pytest.raises(CmdLineError, match="option -a has no default value"):
        cmd.option("-a", None)  # type: ignore[arg-type]
    with pytest.raises(CmdLineError, match="option -a has wrong default type value"):
        cmd.option("-a", "x", kind="number")
    cmd.option("-a", 1, kind="number")
    cmd.option("-b", False)
    assert cmd.default() == {"a": 1, "b": False}
    assert cmd.help() == "Usage: [options]\n  -a [1]\n  -b [false]\n"


# ---- names ----


def test_string() -> None:
    cmd = CmdLine()
    for key, default in [("-b", 1), ("-a", False), ("-C", "x"), ("-d", 0.5)]:
        cmd.option(key, default)
    values: Values = {"b": 2, "a": True, "C": "y", "d": 0.25}
    assert cmd.string("net", values, {}) == "net,C=y,a=t,b=2,d=0.25"  # sorted by bytes: capitals first
    assert cmd.string("net", values, {"b": True}) == "net,C=y,a=t,d=0.25"
    assert cmd.string("net", cmd.default(), {}) == "net"
    assert cmd.string("net", cmd.default(), {"a": False}) == "net,a=f"
    assert cmd.string("", values, {}) == ",C=y,a=t,b=2,d=0.25"
    assert cmd.string("net", {**values, "save": "there"}, {}) == "net,C=y,a=t,b=2,d=0.25"


def test_string_with_arguments_and_other_separators() -> None:
    cmd = CmdLine("+", ":")
    cmd.argument("-input")
    cmd.option("-b", 1)
    assert cmd.string("net", {"input": "in", "b": 2}, {}) == "net+input:in+b:2"
    assert cmd.string("net", {"input": "in", "b": 1}, {}) == "net+input:in+"  # so it is in the original


def test_string_lines() -> None:
    cmd = example()
    values: Values = {**DEFAULTS, "size": 8, "share": False, "input": "in", "save": "there"}
    assert cmd.string_lines(values, {"name": True, "rate": False}) == [
        "size\t8\t128",
        "rate\t0.5\t0.5",
        "share\tf\ttrue",
        "-- ignore option name",
        "WARNING: unknown option/argument: save IGNORING for DIRECTORY NAME",
    ]


# ---- logs ----


def test_log(tmp_path: Path) -> None:
    said: list[str] = []
    cmd = CmdLine()
    run_log = cmd.log(tmp_path / "log.txt", {"size": 8, "share": True}, said.append)
    run_log("loss", 0.5)
    lines = (tmp_path / "log.txt").read_text().split("\n")  # readable before it is closed
    run_log.close()
    assert re.fullmatch(r"\[program started on \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] ", lines[0])
    assert lines[1:] == [
        "[command line arguments] ",
        "size 8 ",
        "share true ",
        "[----------------------] ",
        "loss 0.5 ",
        "",
    ]
    assert "".join(said[1:]) == (
        "[command line arguments]\t\nsize\t8\t\nshare\ttrue\t\n[----------------------]\t\nloss\t0.5\t\n"
    )


def test_a_silent_log_with_dates() -> None:
    said: list[str] = []
    stream = io.StringIO()
    cmd = CmdLine()
    cmd.silent()
    cmd.add_time("run 7", "%Y:")
    cmd.log(stream, say=said.append)("hello")
    assert re.fullmatch(r"\d{4}:\[run 7\]:  hello \n", stream.getvalue().splitlines(keepends=True)[-1])
    assert said == []


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CmdLineError, match=r"none/log\.txt: cannot write the log \(No such file or directory\)"):
        CmdLine().log(tmp_path / "none" / "log.txt")
