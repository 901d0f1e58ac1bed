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


def test_the_page_marks_estimates(figures: list[dict[str, str]]) -> None:
    page = " ".join(run().split())
    assert page.count("(estimate)") == sum(bool(f["is_estimate"] and f["needs"]) for f in figures)
    assert all(" ".join(f["note"].split()) in page for f in figures)
