"""`scripts/reproduce`: every command it names is one that this code has."""

import argparse
import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cache_tools.__main__ import COMMANDS
from xnornet_port.options import parse_options

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def figures() -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(run("--json"))
    return listed


def run(*arguments: str) -> str:
    words = [str(ROOT / "scripts" / "reproduce"), *arguments]
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout


def test_commands(figures: list[dict[str, str]]) -> None:
    kinds = set()
    for figure in figures:
        match shlex.split(figure["command"]):
            case []:
                assert figure["note"], "where there is no command, a note says why"
            case ["python", "main.py", *words]:
                kinds.add("main.py")
                assert parse_options(words).test_all
            case ["python", "-m", "cache_tools", command, *words]:
                kinds.add("cache_tools")
                check_arguments(command, words)
            case ["python", "-m", "pytest", path, *_] | ["python", path, *_]:
                kinds.add("file")
                assert (ROOT / path).exists()
            case other:
                pytest.fail(f"{other} is not checked")
    assert kinds == {"main.py", "cache_tools", "file"}


def check_arguments(command: str, words: list[str]) -> None:
    """argparse takes them; nothing is run."""
    assert command in COMMANDS
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"cache_tools.{command.replace('-', '_')}").add_arguments(parser)
    parser.parse_args(words)


def test_both_figures_of_the_readme_and_what_takes_time(figures: list[dict[str, str]]) -> None:
    assert [f["published"] for f in figures if f["source"] == "README"] == ["56.8 top-1", "43.3 top-1"]
    assert all(f["needs"] and f["time"] for f in figures if f["command"])


@pytest.mark.parametrize(
    ("source", "what", "published"),
    [  # typed from the tables and sections 3.1, 4.1 and 4.2 of arXiv 1603.05279
        ("paper, table 1", "AlexNet, BWN", "56.8 top-1, 79.4 top-5"),
        ("paper, table 1", "AlexNet, XNOR", "44.2 top-1, 69.2 top-5"),
        ("paper, table 1", "AlexNet, full", "56.6 top-1, 80.2 top-5"),
        ("paper, table 2", "ResNet-18, BWN", "60.8 top-1, 83.0 top-5"),
        ("paper, table 2", "ResNet-18, XNOR", "51.2 top-1, 73.2 top-5"),
        ("paper, table 2", "ResNet-18, full", "69.3 top-1, 89.2 top-5"),
        ("paper, table 2", "GoogLenet, BWN", "65.5 top-1, 86.1 top-5"),
        ("paper, table 3", "AlexNet, the scale alpha", "46.2 top-1, 69.5 top-5"),
        ("paper, table 3", "AlexNet, block C-B-A-P", "30.3 top-1, 57.5 top-5"),
        ("paper, section 4.2", "BinaryNet's network", "10.17 errors"),
        ("paper, section 4.1", "58 times", "58"),
        ("paper, section 3.1", "32 times", "32"),
    ],
)
def test_figures_of_the_paper(figures: list[dict[str, str]], source: str, what: str, published: str) -> None:
    found = [figure for figure in figures if figure["source"] == source and figure["what"].startswith(what)]
    assert [figure["published"] for figure in found] == [published]


def test_the_page_marks_estimates(figures: list[dict[str, str]]) -> None:
    page = " ".join(run().split())
    assert page.count("(estimate)") == sum(bool(f["is_estimate"] and f["needs"]) for f in figures)
    assert all(" ".join(f["note"].split()) in page for f in figures)
