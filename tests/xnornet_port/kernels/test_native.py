"""The C source by itself: strict C without a warning, and exact under the sanitizers.

For another processor, by hand (NEON under qemu: benchmarks/results/xnor_exact.md):

    aarch64-linux-gnu-gcc -std=c11 -O3 -static native_check.c -o check -pthread -lm && qemu-aarch64-static check 1000 1
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "native_check.c"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_exact_under_sanitizers_and_without_a_warning(tmp_path: Path) -> None:
    program = tmp_path / "native_check"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-pthread"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    chosen = sanitizers if "/" in found.stdout else []
    subprocess.run(["gcc", *flags, *chosen, str(SOURCE), "-o", str(program), "-lm"], check=True)
    done = subprocess.run([str(program), "40", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain: exact" in done.stdout
    assert "40 cases" in done.stdout
