"""torch.CmdLine: options of a Torch7 script (torch7 CmdLine.lua).

`-name value`, a boolean option alone (it inverts its default), positional arguments in order. Nothing here prints or
ends the program: texts are returned, mistakes raise `CmdLineError`, -help raises `HelpRequested`.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeAlias

from lua_compat.errors import CmdLineError
from lua_compat.lua_format import os_date, print_text, to_number, to_string

__all__ = ["CmdLine", "HelpRequested", "OptionValue", "RunLog"]

OptionValue: TypeAlias = str | int | float | bool

HELP_WORDS = ("-help", "-h", "--help")
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


class HelpRequested(Exception):
    """-help, -h or --help was given: no mistake, but the end of the run. Its text is the help."""


@dataclass(frozen=True)
class Option:
    """An option of the script; `kind` is Lua's type name of its value: string, number or boolean."""

    key: str
    default: OptionValue
    help: str | None
    kind: str


@dataclass(frozen=True)
class Argument:
    """A positional argument. `kind`, where given, must be string: what is typed is text (as in the original)."""

    key: str
    help: str | None
    kind: str | None


class CmdLine:
    """Options and arguments of one script.

    >>> cmd = CmdLine()
    >>> cmd.option("-batchSize", 128, "mini-batch size")
    >>> cmd.parse(["-batchSize", "8"])
    {'batchSize': 8}
    """

    def __init__(self, argument_separator: str = ",", key_separator: str = "=") -> None:
        """The separators are those of `string`: `name,key=value,key=value`."""
        self.argument_separator = argument_separator
        self.key_separator = key_separator
        self.options: dict[str, Option] = {}
        self.arguments: list[Argument] = []
        self._help_lines: list[str | Option | Argument] = []
        self._date_format: str | None = None
        self._is_silent = False

    # ---- what the script takes ----

    def text(self, text: str = "") -> None:
        """A line of the help, between the options."""
        self._help_lines.append(text)

    def argument(self, key: str, help: str | None = None, kind: str | None = None) -> None:
        """The next positional argument."""
        self.arguments.append(Argument(key, help, kind))
        self._help_lines.append(self.arguments[-1])

    def option(self, key: str, default: OptionValue, help: str | None = None, kind: str | None = None) -> None:
        """An option with its default, which also tells its type. `CmdLineError` where there is none or it differs."""
        if default is None:
            raise CmdLineError(f"option {key} has no default value")
        kind = kind or lua_type(default)
        if lua_type(default) != kind:
            raise CmdLineError(f"option {key} has wrong default type value")
        self.options[key] = Option(key, default, help, kind)
        self._help_lines.append(self.options[key])

    def silent(self) -> None:
        """From now on the logs that `log` opens write to their file only."""
        self._is_silent = True

    def add_time(self, name: str | None = None, format: str = DATE_FORMAT) -> None:
        """Lines of a log begin with the date, and `[name]: ` where a name is given (addTime)."""
        self._date_format = format + ("" if name is None else f"[{name}]: ")

    # ---- reading a command line ----

    def default(self) -> dict[str, OptionValue]:
        """Name (without dashes) and default of every option, in the order they were declared."""
        return {strip(key): option.default for key, option in self.options.items()}

    def parse(self, words: Sequence[str], program: str | None = None) -> dict[str, OptionValue]:
        """Values of all options and arguments. Later words win over earlier ones.

        `program`, the script's name, is only shown in the help. Raises `HelpRequested` at -help, -h or --help, and
        `CmdLineError` with the original's text for anything it does not know.
        """
        values = self.default()
        arguments_read = 0
        place = 0
        switch = ""  # the word before, where it was an option that takes no value
        while place < len(words):
            word = words[place]
            if word in HELP_WORDS:
                raise HelpRequested(self.help(program))
            if word in self.options:
                place += self._read_option(values, words, place)
                switch = word if self.options[word].kind == "boolean" else ""
            else:
                self._read_argument(values, word, arguments_read, switch)
                arguments_read += 1
                place += 1
                switch = ""
        if arguments_read != len(self.arguments):
            raise CmdLineError("not enough arguments")
        return values

    def _read_option(self, values: dict[str, OptionValue], words: Sequence[str], place: int) -> int:
        """Put one option's value into `values`; the number of words it took."""
        option = self.options[words[place]]
        if option.kind == "boolean":
            values[strip(option.key)] = not option.default
            return 1
        if place + 1 == len(words):
            raise CmdLineError(f"missing argument for option {option.key}")
        word = words[place + 1]
        value = to_number(word) if option.kind == "number" else word
        if value is None:
            raise CmdLineError(f"invalid type for option {option.key} (should be {option.kind})")
        values[strip(option.key)] = value
        return 2

    def _read_argument(self, values: dict[str, OptionValue], word: str, arguments_read: int, switch: str) -> None:
        if arguments_read >= len(self.arguments):
            raise CmdLineError(f"invalid argument: {word}{self._suggestion(word, switch)}")
        argument = self.arguments[arguments_read]
        if argument.kind not in (None, "string"):
            raise CmdLineError(f"invalid argument type for argument {argument.key} (should be {argument.kind})")
        values[strip(argument.key)] = word

    def _suggestion(self, word: str, switch: str) -> str:
        """What was probably meant; the original stops after the word."""
        if switch and not word.startswith("-"):
            return f" ({switch} before it takes no value)"
        names = {key.lower(): key for key in self.options}
        near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.75) if word.startswith("-") else []
        return f" (did you mean {names[near[0]]}?)" if near else ""

    # ---- help ----

    def help(self, program: str | None = None) -> str:
        """The help text: usage, then every option with its help and [default], with a line end after each line."""
        usage = " ".join(["Usage:", *([program] if program else []), "[options]"])
        usage += "".join(f" <{strip(argument.key)}>" for argument in self.arguments)
        width = max((len(label(line)) for line in self._help_lines if not isinstance(line, str)), default=0)
        lines = [usage]
        for line in self._help_lines:
            if isinstance(line, str):
                lines.append(line)
                continue
            text = f"  {label(line):<{width}}" + ("" if line.help is None else f" {line.help}")
            lines.append(text + (f" [{to_string(line.default)}]" if isinstance(line, Option) else ""))
        return "\n".join(lines) + "\n"

    # ---- names made of options ----

    def string(self, prefix: str, values: Mapping[str, OptionValue], ignore: Mapping[str, bool]) -> str:
        """A name for the run: `prefix,key=value,...` of the options that differ from their defaults, sorted.

        `ignore[name]` True leaves an option out, False puts it in even at its default. Names that are neither option
        nor argument are left out; `string_lines` tells them.
        """
        arguments = [
            f"{name}{self.key_separator}{to_string(values[name])}"
            for name in (strip(argument.key) for argument in self.arguments)
            if name in values and not ignore.get(name)
        ]
        options = sorted(
            f"{name}{self.key_separator}{short_text(value)}" for name, value, _ in self._named_options(values, ignore)
        )
        parts = [*arguments, self.argument_separator.join(options)] if arguments else options
        return self.argument_separator.join([prefix, *parts])  # arguments alone leave a separator at the end

    def string_lines(self, values: Mapping[str, OptionValue], ignore: Mapping[str, bool]) -> list[str]:
        """What the original's `string` prints on the way: a line each, values joined by tabs.

        `-- ignore option NAME`, and `NAME value default` for what goes into the name; here in the order of `values`.
        """
        named = {name: (value, default) for name, value, default in self._named_options(values, ignore)}
        arguments = {strip(argument.key) for argument in self.arguments}
        lines = []
        for name in values:
            if ignore.get(name):
                lines.append(f"-- ignore option {name}")
            elif name in named:
                value, default = named[name]
                lines.append("\t".join((name, short_text(value), to_string(default))))
            elif f"-{name}" not in self.options and name not in arguments:
                lines.append(f"WARNING: unknown option/argument: {name} IGNORING for DIRECTORY NAME")
        return lines

    def _named_options(
        self, values: Mapping[str, OptionValue], ignore: Mapping[str, bool]
    ) -> Iterator[tuple[str, OptionValue, OptionValue]]:
        """(name, value, default) of each option that goes into the name."""
        for name, value in values.items():
            option = self.options.get(f"-{name}")
            if option is None or ignore.get(name):
                continue
            if value != option.default or ignore.get(name) is False:
                yield name, value, option.default

    # ---- logging a run ----

    def log(
        self, file: str | Path | TextIO, values: Mapping[str, OptionValue] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> "RunLog":  # fmt: skip
        """A `print` that also writes to `file` (a path is overwritten); begins with the date and the values.

        `say` receives what goes to the console, line ends included. The original replaces Lua's global print; here
        the result is called instead.
        """
        stream = open_log(file) if isinstance(file, (str, Path)) else file
        run_log = RunLog(stream, None if self._is_silent else say, self._date_format)
        run_log(f"[program started on {os_date()}]")
        run_log("[command line arguments]")
        for name, value in (values or {}).items():
            run_log(name, value)
        run_log("[----------------------]")
        return run_log


class RunLog:
    """The print that `CmdLine.log` gives: to the console and, a line each, to a file that is flushed every time."""

    def __init__(self, stream: TextIO, say: Callable[[str], None] | None, date_format: str | None) -> None:
        self._stream = stream
        self._say = say
        self._date_format = date_format

    def __call__(self, *values: OptionValue) -> None:
        if self._say is not None:
            self._say(print_text(*values))
        words = [os_date(self._date_format)] if self._date_format else []
        words += [to_string(value) for value in values]
        self._stream.write(" ".join([*words, "\n"]))  # the original puts a space before the line end too
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def open_log(path: str | Path) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise CmdLineError(f"{path}: cannot write the log ({error.strerror})") from error


def strip(key: str) -> str:
    """A key without its leading dashes."""
    return key.lstrip("-")


def label(line: Option | Argument) -> str:
    """How the help names an option or argument."""
    return line.key if isinstance(line, Option) else f"<{strip(line.key)}>"


def short_text(value: OptionValue) -> str:
    """A value inside a name: t and f for booleans."""
    return ("t" if value else "f") if isinstance(value, bool) else to_string(value)


def lua_type(value: OptionValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"
