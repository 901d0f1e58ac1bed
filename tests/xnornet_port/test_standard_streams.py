"""Programs whose standard output or error is closed, full or without a reader; whole processes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAIN, TOOLS = "main.py", "-m cache_tools"

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")


def shell(words: str, redirection: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command of ours, as a shell starts it."""
    command = f"{shlex.quote(sys.executable)} {words} {redirection}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def a_test(golden: Path, cache: Path) -> str:
    shutil.copytree(golden / "cache", cache, dirs_exist_ok=True)
    words = (MAIN, "-testOnly", "-data", golden / "imagenet", "-cache", cache, "-nClasses", 5, "-nDonkeys", 0,
             "-batchSize", 8, "-retrain", golden / "models" / "tiny_bwn.t7")  # fmt: skip
    return shlex.join(map(str, words))


@pytest.mark.parametrize(
    ("redirection", "has_output"), [(">&-", False), ("2>&-", True), (">&- 2>&- <&-", False), ("", True)]
)
def test_nobody_wants_the_output(golden: Path, tmp_path: Path, redirection: str, has_output: bool) -> None:
    code, out, error = shell(a_test(golden, tmp_path), redirection)
    assert (code, error) == (0, "")
    assert ("[TESTING SUMMARY]" in out) == has_output
    assert len(list(tmp_path.glob("*/*/test.log"))) == 1


def test_the_disk_of_the_output_is_full(golden: Path, tmp_path: Path) -> None:
    for words in (a_test(golden, tmp_path), f"{MAIN} -help"):
        code, _, error = shell(words, "> /dev/full")
        assert code == 1
        assert error.startswith("error: ")
        assert error.endswith("No space left on device\n")
        assert error.count("\n") == 1
    code, _, error = shell(f"{TOOLS} inspect {golden}/nets.t7", "> /dev/full")
    assert (code, error) == (1, "cache_tools inspect: No space left on device\n")


def test_an_error_that_nobody_can_be_told_has_its_exit_code() -> None:
    for words, expected in (
        (f"{MAIN} -nonsense", 1),
        (f"{TOOLS} inspect /nonexistent", 1),
        (f"{TOOLS} diff /nonexistent x", 2),
    ):
        for redirection in ("2> /dev/full", "2>&-", "> /dev/full 2>&1"):
            assert shell(words, redirection)[0] == expected, (words, redirection)


def test_the_reader_of_the_output_is_gone(golden: Path, tmp_path: Path) -> None:
    """`main.py | head` says so in a line; a tool ends as if all was read."""
    for words, expected in (
        (a_test(golden, tmp_path), (1, b"error: standard output: Broken pipe\n")),
        (f"{MAIN} -help", (1, b"error: Broken pipe\n")),
        (f"{TOOLS} inspect {golden}/nets.t7", (0, b"")),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, *shlex.split(words)], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE,
                              check=False)  # fmt: skip
        os.close(writing)
        assert (done.returncode, done.stderr) == expected
