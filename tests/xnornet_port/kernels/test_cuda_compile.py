"""xnor.cu as NVIDIA's compiler sees it, without a GPU: NVRTC makes machine code for each generation.

NVRTC comes as a package of its own (nvidia-cuda-nvrtc, 58 MB; every CUDA build of torch brings it too).
"""

from __future__ import annotations

import ctypes
import functools
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from xnornet_port.kernels.cuda_device import kernel_source
from xnornet_port.kernels.cuda_tiles import KERNELS, TILES

WITH_TENSOR_CORE = ("sm_80", "sm_86", "sm_90")
REGISTERS = 65536  # of a multiprocessor, in all of these


@dataclass(frozen=True)
class Compiled:
    """One architecture's machine code, the PTX before it, and what the assembler says of each kernel."""

    cubin: bytes
    ptx: str
    registers: dict[str, int]
    local_bytes: dict[str, int]  # stack and spills


@functools.cache
def nvrtc() -> ctypes.CDLL | None:
    """NVRTC, with the library beside it that it would not find by itself."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    for library in sorted(packages.glob("*/lib/libnvrtc.so.1?")):
        for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(library))
    return None


def text_of(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, text) == 0
    return text.raw


@functools.cache
def compiled(architecture: str) -> Compiled:
    library = nvrtc()
    if library is None:
        pytest.skip("no NVRTC: pip install nvidia-cuda-nvrtc")
    program = ctypes.c_void_p()
    source = kernel_source().encode()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"xnor.cu", 0, None, None) == 0
    # CuPy adds -ftz=true, after what it is given (compiler.py, _compile_with_cache_cuda)
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"-ftz=true", b"--ptxas-options=-v"]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = text_of(library, "ProgramLog", program).decode()
    assert status == 0, log
    assert "warning" not in log
    registers, local_bytes = {}, {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        registers[name] = int(re.findall(r"Used (\d+) registers", part)[0])
        local_bytes[name] = sum(int(n) for n in re.findall(r"(\d+) bytes (?:stack frame|spill stores)", part))
    ptx = text_of(library, "PTX", program).decode()
    return Compiled(text_of(library, "CUBIN", program), ptx, registers, local_bytes)


@pytest.mark.parametrize("architecture", [*WITH_TENSOR_CORE, "sm_100"])
def test_compiles_to_machine_code(architecture: str) -> None:
    """All kernels are there, none spills registers, and two blocks of each find room."""
    result = compiled(architecture)
    expected = {name for name in KERNELS if architecture in WITH_TENSOR_CORE or "tensor" not in name}
    assert result.cubin.startswith(b"\x7fELF")
    assert set(result.registers) == expected
    assert set(result.local_bytes.values()) == {0}
    assert result.registers["xnor_pack"] > 48  # 32 floats under way, and what else there is
    threads = {tile.kernel(words): tile.threads for tile in TILES for words in (1, 2)}
    for name, count in result.registers.items():
        assert 2 * count * threads.get(name, 256) <= REGISTERS, name


@pytest.mark.parametrize("architecture", [*WITH_TENSOR_CORE, "sm_100"])
def test_one_bit_tensor_core_and_background_copies(architecture: str) -> None:
    """The AND form alone: XOR is emulated from 9.0 on; from 10.0 on both are, and popc does the work."""
    ptx = compiled(architecture).ptx
    products = ptx.count("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc")
    assert ptx.count("mma.sync") == products
    assert (products > 0) == (architecture in WITH_TENSOR_CORE)
    assert ptx.count("cp.async.ca.shared.global") > 0
    assert ptx.count("popc.b32") > 0


@pytest.mark.parametrize("architecture", [*WITH_TENSOR_CORE, "sm_100"])
def test_no_subnormal_is_flushed_to_zero(architecture: str) -> None:
    """Neither a sign nor a result, though CuPy has -ftz=true for all that is compiled with it."""
    ptx = compiled(architecture).ptx
    assert "fma.rn.f32" in ptx
    assert ".ftz" not in ptx
