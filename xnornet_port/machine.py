"""What kind of machine a run is on, for its record: never its name or whose it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

__all__ = ["describe_machine", "peak_memory"]

PROCESSOR_FILE = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """System, processor, its cores, and the GPU where the run is on one."""
    machine: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = str(torch.version.cuda)
    return machine


def peak_memory(device: torch.device) -> str | None:
    """A line about the most memory tensors took on a GPU since the last call; None for the CPU."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return f"Peak GPU memory: {most / 2**30:.2f} GiB"


def _processor() -> str:
    """The processor's model as Linux tells it, else what Python knows."""
    try:
        lines = PROCESSOR_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return names[0] if names else platform.processor() or "unknown"
