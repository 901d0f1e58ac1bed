"""What of scripts/demo.py and scripts/gpu_checks.py shows without five minutes or a GPU."""

import importlib.util
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
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


WAITING = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = script("gpu_checks")
    assert checks.run("waiting", 1, WAITING, tmp_path) is False
    assert "== waiting: STOPPED after 1 s" in capsys.readouterr().out
    assert not (Path("/proc") / (tmp_path / "waiting.log").read_text().strip()).exists()
    assert checks.run("short", 20, [sys.executable, "-c", "pass"], tmp_path) is True


def test_ctrl_c_stops_the_part_too(tmp_path: Path) -> None:
    log = tmp_path / "waiting.log"

    def interrupt() -> None:
        while not (log.exists() and log.read_text().endswith("\n")):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    checks = script("gpu_checks")
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        checks.run("waiting", 30, WAITING, tmp_path)
    thread.join()
    assert not (Path("/proc") / log.read_text().strip()).exists()
