"""The machine's kind in a run's record."""

from pathlib import Path

import pytest
import torch

from xnornet_port import machine


def test_the_processor_is_read_from_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Some CPU\n")
    monkeypatch.setattr(machine, "PROCESSOR_FILE", tmp_path / "cpuinfo")
    found = machine.describe_machine(torch.device("cpu"))
    assert found["processor"] == "Some CPU @ 2.00GHz"
    assert set(found) == {"system", "processor", "cores", "threads"}


def test_elsewhere_python_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROCESSOR_FILE", tmp_path / "absent")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert machine.describe_machine(torch.device("cpu"))["processor"] == "unknown"


def test_peak_memory_of_a_gpu_is_told_and_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for PyTorch's counter: no GPU was at hand."""
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    assert machine.peak_memory(torch.device("cpu")) is None
    assert machine.peak_memory(torch.device("cuda", 0)) == "Peak GPU memory: 1.50 GiB"
    assert reset == [torch.device("cuda", 0)]
