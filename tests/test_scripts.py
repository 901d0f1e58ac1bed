"""What of scripts/demo.py and scripts/gpu_checks.py shows without five minutes or a GPU."""

import importlib.util
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from xnornet_port import load_model

SCRIPTS = Path(__file__).parent.parent / "scripts"
BENCHMARKS = SCRIPTS.parent / "benchmarks"


def script(name: str, folder: Path = SCRIPTS) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their types
    spec.loader.exec_module(module)
    return module


def test_the_demos_folder_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps run in the project's folder, whatever folder it was started in."""
    demo = script("demo")
    steps: list[tuple[object, ...]] = []

    class SeenEnoughError(Exception):
        pass

    def note(*words: object) -> None:
        steps.append(words)
        if len(steps) == 2:
            raise SeenEnoughError

    monkeypatch.setattr(demo, "step", note)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", "mine"])
    with pytest.raises(SeenEnoughError):
        demo.main()
    assert steps[0][-1] == tmp_path / "mine" / "digits"
    assert steps[1][3:5] == (tmp_path / "mine" / "digits", tmp_path / "mine" / "cache")


PROGRAM = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
WAITING = [sys.executable, "-c", PROGRAM]


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = script("gpu_checks")
    assert checks.run(checks.Part("waiting", 1, WAITING), tmp_path) is False
    assert "== waiting: STOPPED after 1 s" in capsys.readouterr().out
    assert not (Path("/proc") / (tmp_path / "gpu_checks.log").read_text().splitlines()[-1]).exists()
    assert checks.run(checks.Part("short", 600, [sys.executable, "-c", "print(6 * 7)"]), tmp_path) is True
    assert capsys.readouterr().out.splitlines()[1:] == ["42"]  # its own output, not that of the part before


def test_a_part_without_its_package_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = script("gpu_checks")
    assert checks.run(checks.Part("lacking", 1, WAITING, ("pytest", "no_such_package")), tmp_path) is False
    assert capsys.readouterr().out == "== lacking: LEFT OUT, there is no no_such_package here\n"


def test_a_part_has_its_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = script("gpu_checks")
    program = "import os; print(os.environ['OF_THE_PART'], 'PATH' in os.environ)"
    part = checks.Part("short", 600, [sys.executable, "-c", program], (), {"OF_THE_PART": "yes"})
    assert checks.run(part, tmp_path) is True
    assert "yes True" in capsys.readouterr().out


def test_the_parts_of_the_gpu_checks(tmp_path: Path) -> None:
    """Under eight minutes together; what they run is there; each sanitizer sees each tensor's own bounds."""
    parts = script("gpu_checks").parts(tmp_path, "compute-sanitizer")
    assert sum(part.seconds for part in parts) <= 480
    programs = [word for part in parts for word in part.command if word.endswith(".py")]
    assert programs
    assert all((SCRIPTS.parent / program).is_file() for program in programs)
    sanitizers = [part for part in parts if part.command[0] == "compute-sanitizer"]
    assert [part.name for part in sanitizers] == ["memcheck", "racecheck", "synccheck"]
    assert all(part.environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} for part in sanitizers)


def test_ctrl_c_stops_the_part_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "gpu_checks.log"
    checks = script("gpu_checks")
    wait, is_waiting = checks.subprocess.Popen.wait, threading.Event()

    def noted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        is_waiting.set()
        code: int = wait(process, timeout)
        return code

    monkeypatch.setattr(checks.subprocess.Popen, "wait", noted)

    def interrupt() -> None:
        is_waiting.wait()  # not while it is being started
        while not (log.exists() and log.read_text().splitlines()[-1:] and log.read_text().splitlines()[-1].isdigit()):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        checks.run(checks.Part("waiting", 600, WAITING), tmp_path)
    thread.join()
    assert not (Path("/proc") / log.read_text().splitlines()[-1]).exists()


def test_the_page_of_the_gpu_benchmark_grows_row_by_row(tmp_path: Path) -> None:
    """So that what was measured is there where the run is ended before its time."""
    benchmark = script("xnor_conv_cuda", BENCHMARKS)
    page = benchmark.Page(["title"], tmp_path / "page.md")
    page.add("first")
    assert (tmp_path / "page.md").read_text() == "title\nfirst\n"
    page.add("second", "third")
    assert (tmp_path / "page.md").read_text() == "title\nfirst\nsecond\nthird\n"


@pytest.mark.parametrize("broken", [False, True])
def test_a_training_step_beside_the_cpus(golden: Path, capsys: pytest.CaptureFixture[str], broken: bool) -> None:
    """Here the other device is the CPU without oneDNN, whose sums come in another order: without the CPU's numbers in
    its layers a small XNOR network's updates would differ by a half. One gradient off by 1 per cent is noticed."""
    benchmark = script("train_step_cuda", BENCHMARKS)
    made = []

    def network() -> nn.Module:
        made.append(load_model(golden / "models" / "tiny_xnor.t7"))
        if broken and len(made) == 2:
            next(made[1].parameters()).register_hook(lambda gradient: gradient * 1.01)
        return made[-1]

    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(4, 3, 224, 224, generator=generator)
    agrees = benchmark.compare(network, inputs, torch.tensor([1, 2, 3, 4]), torch.device("cpu"))
    assert agrees is not broken, capsys.readouterr().out
