"""Everything that waits for a GPU, in under eight minutes: `python scripts/gpu_checks.py [FOLDER]`.

The CUDA backend's tests on the device, NVIDIA's compute-sanitizer over every kernel, the benchmark against cuDNN, a
training step on the GPU beside the same on the CPU, and the demo. FOLDER (./gpu_checks by default) gets each part's log
and h200.md, the page for benchmarks/results. Needs torch with CUDA, CuPy, pytest, hypothesis and what main.py needs; a
part that fails or takes too long does not keep the others from running. Exit code 1 if one failed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent
TESTS = "tests/xnornet_port/kernels"


def main() -> int:
    missing = what_is_missing()
    if missing:
        print(f"gpu_checks: {missing}", file=sys.stderr)
        return 1
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu_checks").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # -W: another machine's packages may warn of what is none of ours
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-W", "default"]
    kernels = [*pytest, f"{TESTS}/test_cuda.py", "-k", "GPU"]
    benchmark = [sys.executable, "benchmarks/xnor_conv_cuda.py"]
    parts: list[tuple[str, int, list[str]]] = [  # name, seconds at most, command
        ("tests", 80, [*pytest, TESTS, "-k", "GPU"]),
        ("training", 30, [sys.executable, "benchmarks/train_step_cuda.py"]),
        ("benchmark", 120, [*benchmark, "--output", str(folder / "h200.md")]),
        ("demo", 90, [sys.executable, "scripts/demo.py", str(folder / "demo")]),
        ("tiles", 40, [*benchmark, "--tiles", "--rounds", "5", "--output", str(folder / "tiles.md")]),
    ]
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck", "synccheck") if sanitizer else ():
        command = [str(sanitizer), "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *kernels]
        parts.append((tool, 30, command))
    results = [run(name, seconds, command, folder) for name, seconds, command in parts]
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


def run(name: str, seconds: int, command: list[str], folder: Path) -> bool:
    """One part, its output in FOLDER/NAME.log and the end of it here; whether it succeeded."""
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
            result = "passed" if code == 0 else f"FAILED, exit code {code}"
        except subprocess.TimeoutExpired:
            result = f"STOPPED after {seconds} s"
        finally:  # after Ctrl-C too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what it has started too
                process.wait()
    print(f"== {name}: {result}, {time.perf_counter() - start:.0f} s", flush=True)
    lines = (folder / f"{name}.log").read_text(errors="replace").splitlines()
    print("\n".join(lines[-40 if name in ("benchmark", "tiles") else -8 :]), flush=True)
    return result == "passed"


if __name__ == "__main__":
    sys.exit(main())
