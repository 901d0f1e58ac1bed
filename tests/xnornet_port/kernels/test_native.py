"""The C source by itself: strict C without a warning, and exact, by every compiler and for every processor at hand.

GCC and clang with their sanitizers; GCC for 64-bit ARM (NEON) under qemu, where both are installed (Debian's packages
gcc-aarch64-linux-gnu and qemu-user-static).
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "native_check.c"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread")


def check(compiler: str, flags: tuple[str, ...], emulator: tuple[str, ...], cases: int, folder: Path) -> str:
    """What the program says of its cases, which all have to be exact."""
    program = folder / "native_check"
    subprocess.run([compiler, *STRICT, *flags, str(SOURCE), "-o", str(program), "-lm"], check=True)
    done = subprocess.run([*emulator, str(program), str(cases), "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{cases} cases" in done.stdout
    return done.stdout


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


def sanitizers(compiler: str, names: str, folder: Path) -> tuple[str, ...]:
    """The flags for them, if their libraries are installed."""
    chosen = (f"-fsanitize={names}", "-fno-sanitize-recover")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    tried = subprocess.run(
        [compiler, *chosen, str(empty), "-o", str(folder / "empty")], capture_output=True, check=False
    )
    return chosen if tried.returncode == 0 else ()


@pytest.mark.parametrize(("compiler", "names"), [("gcc", "address,undefined"), ("clang", "undefined")])  # clang: 10 s
def test_exact_under_sanitizers_and_without_a_warning(compiler: str, names: str, tmp_path: Path) -> None:
    need(compiler)
    said = check(compiler, ("-O1", *sanitizers(compiler, names, tmp_path)), (), 40, tmp_path)
    assert "plain: exact" in said


def test_exact_on_an_emulated_arm(tmp_path: Path) -> None:
    need("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    said = check("aarch64-linux-gnu-gcc", ("-O3", "-static"), ("qemu-aarch64-static",), 40, tmp_path)
    assert "neon: exact" in said
