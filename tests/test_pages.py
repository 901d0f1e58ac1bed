"""README.md and docs/*.md against the code: links, commands, options, imports, figures."""

import argparse
import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

from cache_tools.__main__ import COMMANDS, build_parser
from xnornet_port.options import ORIGINAL_OPTIONS, PORT_OPTIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def commands(page: Path, program: str) -> list[list[str]]:
    """The words behind a program in the lines of code of a page, up to a comment, a pipe or a next command."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith(("    ", "python", "torchrun", "cache-tools")) and f"`{program} " not in line:
            continue
        for rest in re.findall(rf"{re.escape(program)} ([^`#|&>]+)", line):
            found.append(rest.rstrip(".; ").split())
    return found


class Strict(Exception):
    """In place of argparse's exit."""


def refuse(parser: argparse.ArgumentParser, message: str) -> None:
    raise Strict(f"{parser.prog}: {message}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_of_the_tools_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    for words in commands(page, "python -m cache_tools"):
        if words[0] != "COMMAND":
            build_parser(words[0]).parse_args([word for word in words if word not in ("...", "RUNDIR...")] + (
                ["RUNDIR"] if "RUNDIR..." in words else []
            ))  # fmt: skip


def test_there_are_commands_to_check() -> None:
    assert sum(len(commands(page, "python -m cache_tools")) for page in PAGES) > 30
    assert sum(len(commands(page, "main.py")) for page in PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_of_main_exist(page: Path) -> None:
    """In commands, and in the text between backquotes."""
    known = {f"-{row.name}" for row in (*ORIGINAL_OPTIONS, *PORT_OPTIONS)} | {"-help"}
    known |= {"-cacheDecoded"} if page.name == "loader.md" else set()  # which says that there is none
    text = page.read_text(encoding="utf-8")
    words = [word for command in commands(page, "main.py") for word in command]
    words += [word for quoted in re.findall(r"`([^`\n]+)`", text) if quoted.startswith("-") for word in quoted.split()]
    unknown = {word for word in words if re.fullmatch(r"-[A-Za-z]{2}\w*", word)} - known
    assert not unknown


def test_options_of_the_tools_page_exist() -> None:
    """Every `--option` of docs/tools.md is one of the commands'."""
    known = {"--help", "--logdir"}
    for name in COMMANDS:
        parsers = [build_parser(name)]
        for parser in parsers:  # grows: a command may have actions of its own
            known |= {option for action in parser._actions for option in action.option_strings}
            parsers += [
                p for action in parser._actions if isinstance(action.choices, dict) for p in action.choices.values()
            ]
    text = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert len(used) > 15
    assert not used - known


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_pages_import_is_there(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        for node in ast.walk(ast.parse(textwrap.dedent(block) if "import" in block else "")):  # else a line of a table
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, (node.module, missing)


# ---- figures ----


def rows_of(text: str, *head: str) -> list[list[str]]:
    """The cells of the rows of a table that begin with `head`, up to the table's end."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [line for line in cells if line[: len(head)] == list(head)]


def is_rounded(shown: str, measured: float) -> bool:
    """Whether a figure is a measured one, or that with fewer decimals."""
    decimals = len(shown.partition(".")[2])
    return abs(float(shown) - measured) <= 0.5 * 10**-decimals + 1e-9


@pytest.mark.parametrize("batch", ["1", "32"])
def test_the_speeds_in_the_readme_are_measured_ones(batch: str) -> None:
    """One thread, the ratio to the fastest float32 form; in benchmarks/results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ((_, *shown, shown_network),) = rows_of(text, f"batch {batch}, times faster")
    convolutions = (ROOT / "benchmarks" / "results" / "xnor_conv.md").read_text(encoding="utf-8")
    layers = ["conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "64@56", "128@28", "256@14", "512@7"]
    for layer, figure in zip(layers, shown, strict=True):
        measured = float(rows_of(convolutions, layer, batch, "1")[0][-2])  # the first table's
        assert is_rounded(figure, measured), (layer, figure, measured)
    network = (ROOT / "benchmarks" / "results" / "xnor_network.md").read_text(encoding="utf-8")
    part = network.split(f"\nbatch {batch}, 1 thread\n")[1]
    measured = float(re.findall(r"^XNOR kernels: ([\d.]+) times the fastest", part, re.MULTILINE)[0])
    assert is_rounded(shown_network, measured)


def test_the_loaders_figures_are_measured_ones() -> None:
    text = (ROOT / "docs" / "loader.md").read_text(encoding="utf-8")
    results = (ROOT / "benchmarks" / "results" / "loader.md").read_text(encoding="utf-8")
    (whole,), (rest,) = (rows_of(results, name) for name in (
        "ours: read, decode, scale, crop, flip, normalise", "ours: scale, crop, flip, normalise alone"
    ))  # fmt: skip
    found = re.search(r"takes ([\d.]+) ms in\s+place of ([\d.]+) .*?at\s+most ([\d.]+) times", text, re.DOTALL)
    assert found is not None
    times = float(whole[2]) / float(rest[2])
    assert abs(float(found[1]) - float(rest[2])) < 0.0051
    assert abs(float(found[2]) - float(whole[2])) < 0.0051
    assert abs(float(found[3]) - times) < 0.051


def test_parameters_in_the_pages_agree() -> None:
    """docs/networks.md beside benchmarks/results/networks.md."""
    results = (ROOT / "benchmarks" / "results" / "networks.md").read_text(encoding="utf-8")
    measured = {}
    for line in rows_of(results):
        if " of " in line[6]:
            name = line[0].replace(" -shortcutType B", "").replace(" -depth 18", "")
            measured[name] = (line[3], line[6].split(" of ")[::-1])
    page = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    compared = 0
    for line in rows_of(page):
        name = line[0].strip("`")
        if name in measured:
            compared += 1
            assert (line[3], line[4:6]) == measured[name], name
    assert compared >= 15
