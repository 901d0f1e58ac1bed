"""benchmarks/schemes.py, which made docs/experiments.md, still runs: one epoch of a tenth of the digits."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_two_schemes_for_an_epoch(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    words = ["--epochs", "1", "--seeds", "2", "--width", "4", "--pictures", "128", "--only", "real", "xnork"]
    picture = tmp_path / "curves.png"
    command = [sys.executable, "benchmarks/schemes.py", *words, "--picture", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+) \| ([\d.]+) \| ([\d.]+), ([\d.]+) \|", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["full precision", "XNOR: alpha and K (-inputScale)"]
    assert all(0 <= float(number) <= 100 for row in rows for number in row[1:])
    assert picture.read_bytes().startswith(b"\x89PNG")
