"""What holds for every command: help with examples and exit codes, --quiet, plain errors, colours on terminals only."""

import errno
import io
import re
from pathlib import Path

import pytest

from cache_tools.__main__ import COMMANDS, main
from cache_tools.console import progress_bar, table_console, tool_problem


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([command], capsys)
    assert f"examples:\n  python -m cache_tools {command} " in text
    assert re.search(r"^exit codes: 0 ", text, re.MULTILINE)
    assert "130 stopped by Ctrl-C" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, "check"] if command == "caches" else [command]
    assert "--quiet" in help_of(words, capsys)


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([], capsys)
    assert all(re.search(rf"^    {name}\b", text, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "usage"),
    [(["summary", "x.t7", "--sise", "32"], "summary [-h]"), (["inspect", "x.t7", "more"], "inspect [-h]"),
     (["caches", "check", "cache", "--all"], "caches check [-h]")],
)  # fmt: skip
def test_unknown_words_get_the_commands_own_usage(
    words: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    error = capsys.readouterr().err
    assert error.startswith(f"usage: python -m cache_tools {usage}")
    assert "unrecognized arguments: " in error


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "absent.t7")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"cache_tools inspect: .*absent\.t7.*\n", captured.err)


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cache_tools.inspect.run", interrupted)
    assert main(["inspect", "x.t7"]) == 130
    assert capsys.readouterr().err == "cache_tools inspect: stopped\n"


def test_ctrl_c_while_a_command_is_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch takes seconds to import."""

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cache_tools.__main__.importlib.import_module", interrupted)
    assert main(["summary", "x.t7"]) == 130
    assert capsys.readouterr().err == "cache_tools summary: stopped\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("x.png", "x.png"), (".x.png.0123456789ab.tmp", "x.png"), ("..unfinished-x.pt.0123456789ab.tmp", "x.pt"),
     (".unfinished-x.pt", "x.pt"), (".hidden", ".hidden"), ("a.tmp", "a.tmp")],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_called_as_it_was_asked_for(name: str, shown: str) -> None:
    assert tool_problem(OSError(errno.EACCES, "Permission denied", f"/d/{name}")) == f"/d/{shown}: Permission denied"


def test_an_error_of_the_system_is_one_line_without_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo-data", str(tmp_path / "file" / "x")]) == 1
    assert capsys.readouterr().err == f"cache_tools demo-data: {tmp_path}/file/x: Not a directory\n"
    assert main(["inspect", str(tmp_path / "a\nb.t7")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_names_that_are_no_text_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "\udcff.t7")]) == 1
    assert "\\udcff.t7" in capsys.readouterr().err


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for stream, no_color, expected in ((io.StringIO(), "", False), (Terminal(), "", True), (Terminal(), "1", False)):
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        table_console(stream).print("x", style="red")
        assert ("\x1b[31m" in stream.getvalue()) is expected


def test_a_pipe_gets_whole_lines() -> None:
    stream = io.StringIO()
    table_console(stream).print("x" * 300)
    assert stream.getvalue() == "x" * 300 + "\n"


def test_a_progress_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, quiet, expected in ((False, False, ""), (True, True, ""), (True, False, "counting")):
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar("counting", 2, quiet) as done:
            done(1)
        assert expected in stream.getvalue()
        assert bool(stream.getvalue()) is bool(expected)
