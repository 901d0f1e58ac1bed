"""The CUDA kernels under test: on the CPU, compiled by g++ with cuda_shim.h as a Device of the backend; on a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from xnornet_port.kernels import Geometry, PackedInput, PackedWeights, Pooling, Thresholds
from xnornet_port.kernels.cuda import CudaBackend
from xnornet_port.kernels.cuda_device import Argument
from xnornet_port.kernels.cuda_tiles import KERNELS

HEADER = Path(__file__).with_name("cuda_shim.h")


class ShimError(Exception):
    """Something that a GPU would do wrong."""


def compile_kernels(source: str, folder: Path) -> ctypes.CDLL:
    """A library of all kernels in `source`; the test is skipped where there is no g++."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} to run the CUDA kernels on the CPU with")
    cases = "\n".join(
        f'  if (!strcmp(name, "{name}")) problem = shim::prepare({name}, arguments, sizes, n_arguments), known = true;'
        for name in KERNELS
    )
    launcher = f"""
extern "C" const char* shim_launch(const char* name, const unsigned* grid, unsigned threads, unsigned shared_bytes,
                                   unsigned long long seed, void** arguments, const int* sizes, int n_arguments) {{
  const char* problem = nullptr;
  bool known = false;
{cases}
  if (!known) return "no such kernel";
  const unsigned block[3] = {{threads, 1, 1}};
  return problem ? problem : shim::launch(grid, block, shared_bytes, seed);
}}
"""
    program, library = folder / "kernels.cpp", folder / "kernels.so"
    program.write_text(f'#include "{HEADER}"\n{source}\n{launcher}')
    flags = ["-O1", "-march=native", "-std=c++17", "-w", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(program), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.shim_launch.restype = ctypes.c_char_p
    loaded.shim_allocate.restype = ctypes.c_void_p
    return loaded


class ShimDevice:
    """Launches on the CPU. Every tensor is copied to memory of its exact size, and back."""

    def __init__(self, library: ctypes.CDLL, capability: tuple[int, int], n_multiprocessors: int) -> None:
        self.capability = capability
        self.n_multiprocessors = n_multiprocessors
        self.launched: set[str] = set()
        self._library = library
        self._seed = 0

    def launch(
        self, kernel: str, grid: tuple[int, ...], block: int, shared_bytes: int, arguments: tuple[Argument, ...]
    ) -> None:
        self._seed += 1
        self.launched.add(kernel)
        tensors = {id(argument): argument for argument in arguments if isinstance(argument, Tensor)}
        copies = {key: self._allocate(tensor) for key, tensor in tensors.items()}
        values = [
            ctypes.c_int(argument)
            if isinstance(argument, int)
            else ctypes.c_void_p(0 if argument is None else copies[id(argument)])
            for argument in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (ctypes.c_int * len(values))(*(ctypes.sizeof(value) for value in values))
        blocks = (ctypes.c_uint * 3)(*(*grid, 1, 1)[:3])
        seed = ctypes.c_ulonglong(self._seed)
        problem = self._library.shim_launch(
            kernel.encode(), blocks, block, shared_bytes, seed, addresses, sizes, len(values)
        )
        message = None if problem is None else problem.decode()
        for key, tensor in tensors.items():
            self._release(tensor, copies[key])
        if message is not None:
            raise ShimError(f"{kernel}: {message}")

    def finish(self) -> None:
        pass

    def _allocate(self, tensor: Tensor) -> int:
        n_bytes = tensor.numel() * tensor.element_size()
        address = int(self._library.shim_allocate(ctypes.c_size_t(n_bytes), self._seed % 2))
        ctypes.memmove(address, tensor.data_ptr(), n_bytes)
        return address

    def _release(self, tensor: Tensor, address: int) -> None:
        n_bytes = tensor.numel() * tensor.element_size()
        assert tensor.is_contiguous()
        ctypes.memmove(tensor.data_ptr(), address, n_bytes)
        self._library.shim_free(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes))


def can_use_gpu() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("cupy") is not None


class OnGpu:
    """A CUDA backend for tensors of the CPU, so that it runs the tests of all backends."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend

    def pack_input(self, x: Tensor) -> PackedInput:
        return _moved(self._backend.pack_input(x.cuda()), "cpu")

    def xnor_conv2d(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._backend.xnor_conv2d(_moved(x, "cuda"), packed, geometry).cpu()

    def xnor_dot(self, x: Tensor | PackedInput, packed: PackedWeights, geometry: Geometry) -> Tensor:
        return self._backend.xnor_dot(_moved(x, "cuda"), packed, geometry).cpu()

    def xnor_sign(
        self,
        x: Tensor | PackedInput,
        packed: PackedWeights,
        thresholds: Thresholds,
        geometry: Geometry,
        pooling: Pooling | None,
    ) -> PackedInput:
        return _moved(self._backend.xnor_sign(_moved(x, "cuda"), packed, thresholds, geometry, pooling), "cpu")


def _moved(x: Any, device: str) -> Any:
    if isinstance(x, Tensor):
        return x.to(device)
    return PackedInput(x.signs.to(device), None if x.nonzero is None else x.nonzero.to(device), x.channels)
