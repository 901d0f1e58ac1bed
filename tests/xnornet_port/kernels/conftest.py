"""The backends that every test of an operation runs on."""

import pytest

from xnornet_port.kernels import Backend, cpu_numpy, load_backend
from xnornet_port.kernels.cpu import CpuBackend, available_paths


@pytest.fixture(scope="session", params=["reference", "numpy", *available_paths()])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param in available_paths():
        return CpuBackend(request.param)
    return cpu_numpy if request.param == "numpy" else load_backend(request.param)
