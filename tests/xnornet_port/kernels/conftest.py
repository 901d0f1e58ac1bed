"""The backends that every test of an operation runs on."""

import ctypes
import sys
from pathlib import Path

import pytest

from xnornet_port.kernels import Backend, cpu_numpy, load_backend
from xnornet_port.kernels.cpu import CpuBackend, available_paths
from xnornet_port.kernels.cuda import CudaBackend
from xnornet_port.kernels.cuda_device import kernel_source, open_device

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves test folders off the path
from cuda_shim import OnGpu, ShimDevice, can_use_gpu, compile_kernels

# The CUDA kernels on the CPU: compute capability and multiprocessors make the backend choose each kind of tile.
SIMULATED = {
    "tensor core, large tiles": ((9, 0), 1),
    "tensor core, small tiles": ((8, 0), 10**6),
    "popcount, large tiles": ((10, 0), 1),
    "popcount, small tiles": ((7, 5), 10**6),
}


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """xnor.cu, compiled by g++ once a session."""
    return compile_kernels(kernel_source(), tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="session", params=["reference", "numpy", *available_paths(), *SIMULATED, "GPU"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param in SIMULATED:
        return CudaBackend(ShimDevice(request.getfixturevalue("cuda_library"), *SIMULATED[request.param]))
    if request.param == "GPU":
        if not can_use_gpu():
            pytest.skip("no GPU, or no CuPy")
        return OnGpu(CudaBackend(open_device(0)))
    if request.param in available_paths():
        return CpuBackend(request.param)
    return cpu_numpy if request.param == "numpy" else load_backend(request.param)
