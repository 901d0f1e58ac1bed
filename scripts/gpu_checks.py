"""Everything that waits for a GPU, in under eight minutes: `python scripts/gpu_checks.py [FOLDER]`.

The CUDA backend's tests on the device, a training step on the GPU beside the same on the CPU, the benchmark against
cuDNN, NVIDIA's compute-sanitizer over every kernel, every tile for every layer, and the demo. FOLDER (./gpu_checks by
default) gets gpu_checks.log, h200.md, the page for benchmarks/results, and tiles.md. Needs torch with CUDA and CuPy;
a part that fails, takes too long or lacks a package (`PARTS`) does not keep the others from running. Exit code 1 if
one did not pass.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parent.parent
TESTS = "tests/xnornet_port/kernels"
SANITIZED = "GPU and not test_convolution_is_exact and not test_sign_is_exact"  # not the hundred random cases
# What a program of ours imports besides torch, NumPy and CuPy.
TRAINING = ("PIL", "rich", "simplejpeg", "safetensors")


@dataclass(frozen=True)
class Part:
    """A program, how long it may take, what it needs, and what is set in its environment."""

    name: str
    seconds: int
    command: list[str]
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def parts(folder: Path, sanitizer: str | None) -> list[Part]:
    """In the order in which they matter; 480 seconds at most."""
    # -W: another machine's packages may warn of what is none of ours
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-W", "default"]
    test_packages = ("pytest", "hypothesis", "safetensors")
    benchmark = [sys.executable, "benchmarks/xnor_conv_cuda.py"]
    demo_packages = (*TRAINING, "sklearn", "matplotlib")
    return [
        Part("build", 20, [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], ("setuptools",)),
        Part("tests", 80, [*pytest, TESTS, "-k", "GPU"], test_packages),
        Part("training", 30, [sys.executable, "benchmarks/train_step_cuda.py"], TRAINING),
        Part("benchmark", 130, [*benchmark, "--output", str(folder / "h200.md")]),
        *(sanitizer_parts(sanitizer, pytest, test_packages) if sanitizer else ()),
        Part("tiles", 40, [*benchmark, "--tiles", "--rounds", "5", "--output", str(folder / "tiles.md")]),
        Part("demo", 70, [sys.executable, "scripts/demo.py", str(folder / "demo")], demo_packages),
    ]


def sanitizer_parts(sanitizer: str, pytest: list[str], packages: tuple[str, ...]) -> list[Part]:
    """The checks of our own kernels. That torch asks the driver for functions it lacks is none of their errors."""
    # each tensor in memory of its own: in torch's large blocks nothing is out of bounds
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    options = ["--error-exitcode", "9", "--report-api-errors", "no", "--kernel-name", "kns=xnor_"]
    tests = [*pytest, f"{TESTS}/test_cuda.py", f"{TESTS}/test_operations.py", "-k", SANITIZED]
    return [
        Part(tool, seconds, [sanitizer, "--tool", tool, *options, *tests], packages, environment)
        for tool, seconds in (("memcheck", 40), ("racecheck", 40), ("synccheck", 30))
    ]


def main() -> int:
    missing = what_is_missing()
    if missing:
        print(f"gpu_checks: {missing}", file=sys.stderr)
        return 1
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu_checks").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu_checks.log").unlink(missing_ok=True)
    sanitizer = shutil.which("compute-sanitizer")
    results = [run(part, folder) for part in parts(folder, sanitizer)]
    if sanitizer is None:
        print("compute-sanitizer is not on the PATH: its three checks were left out")
    shutil.rmtree(folder / "demo", ignore_errors=True)  # 1.2 GB of model files
    return 0 if all(results) else 1


def what_is_missing() -> str:
    """Why nothing here could be checked; empty if it can. Without this the tests would skip and pass."""
    try:
        import cupy  # noqa: F401
        import torch
    except ImportError as error:
        return f"{error}; it needs torch with CUDA and CuPy"
    return "" if torch.cuda.is_available() else "torch finds no GPU here"


def run(part: Part, folder: Path) -> bool:
    """One part, its output at the end of FOLDER/gpu_checks.log and the last of it here; whether it succeeded."""
    lacking = [package for package in part.packages if importlib.util.find_spec(package) is None]
    if lacking:
        print(f"== {part.name}: LEFT OUT, there is no {', '.join(lacking)} here", flush=True)
        return False
    start = time.perf_counter()
    log_file = folder / "gpu_checks.log"
    with log_file.open("a") as log:
        print(f"\n==== {part.name}: {' '.join(part.command)}", file=log, flush=True)
        first = log.tell()
        process = subprocess.Popen(
            part.command,
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            env={**os.environ, **part.environment},
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=part.seconds)
            result = "passed" if code == 0 else f"FAILED, exit code {code}"
        except subprocess.TimeoutExpired:
            result = f"STOPPED after {part.seconds} s"
        finally:  # after Ctrl-C too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what it has started too
                process.wait()
    print(f"== {part.name}: {result}, {time.perf_counter() - start:.0f} s", flush=True)
    lines = log_file.read_bytes()[first:].decode(errors="replace").splitlines()
    print("\n".join(lines[-40 if part.name in ("benchmark", "tiles") else -8 :]), flush=True)
    return result == "passed"


if __name__ == "__main__":
    sys.exit(main())
