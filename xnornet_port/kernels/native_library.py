"""The C library of the CPU backend (native/xnor_cpu.c): found, loaded by ctypes, its structures and functions."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Call", "Layer", "NativeLibrary", "Sums", "Windows", "load_library"]

RESULT_SCALED, RESULT_DOTS, RESULT_SIGNS = 0, 1, 2  # enum xnor_result
STATUS_ZEROS, STATUS_NO_MEMORY = 1, -1


class Layer(ctypes.Structure):
    """struct xnor_layer."""

    _fields_ = (
        *((name, c_int64) for name in ("channels", "height", "width", "filters")),
        *((name, c_int64) for name in ("kernel_y", "kernel_x", "stride_y", "stride_x")),
        *((name, c_int64) for name in ("padding_y", "padding_x", "dilation_y", "dilation_x")),
        *((name, c_int64) for name in ("out_height", "out_width")),
        *((name, c_void_p) for name in ("weights", "alpha", "bias")),
        ("n_classes", c_int64),
        *((name, c_void_p) for name in ("pixel_class", "base", "second_panel")),
    )


class Windows(ctypes.Structure):
    """struct xnor_pooling."""

    _fields_ = (
        *((name, c_int64) for name in ("kernel_y", "kernel_x", "stride_y", "stride_x")),
        *((name, c_int64) for name in ("padding_y", "padding_x", "out_height", "out_width")),
    )


class Call(ctypes.Structure):
    """struct xnor_call."""

    _fields_ = (
        ("batch", c_int64),
        *((name, c_void_p) for name in ("x", "signs", "nonzero")),
        ("result", c_int64),
        *((name, c_void_p) for name in ("out", "out_signs", "out_nonzero", "flip", "positive_from", "negative_to")),
        ("pooling", Windows),
        ("threads", c_int64),
        ("parallel", c_void_p),
    )


class Sums(ctypes.Structure):
    """struct xnor_sums."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "signs", "alpha", "bias", "out")),
        *((name, c_int64) for name in ("rows", "filters", "bytes", "threads")),
        ("parallel", c_void_p),
    )


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library."""

    functions: ctypes.CDLL
    paths: dict[str, int]  # the code paths that this processor can run, best first: name -> number
    parallel: int | None  # address of GOMP_parallel in the OpenMP that torch uses
    process: int  # in which it was loaded: OpenMP's threads do not live on in a forked one

    def parallel_here(self) -> int | None:
        return self.parallel if os.getpid() == self.process else None


@functools.cache
def load_library() -> NativeLibrary | None:
    """The library, or None where it was not built (no compiler, or never installed)."""
    specification = importlib.util.find_spec("xnornet_port.kernels._xnor_cpu")
    if specification is None or specification.origin is None:
        return None
    functions = ctypes.CDLL(specification.origin)
    for name, result, arguments in (
        ("xnor_n_paths", c_int64, ()),
        ("xnor_path_name", c_char_p, (c_int64,)),
        ("xnor_path_is_available", c_int, (c_int64,)),
        ("xnor_path_is_preferred", c_int, (c_int64,)),
        ("xnor_path_panel", c_int64, (c_int64,)),
        ("xnor_weight_bytes", c_int64, (c_int64, POINTER(Layer))),
        ("xnor_prepare", None, (c_int64, POINTER(Layer), c_void_p, c_void_p)),
        ("xnor_pack", c_int, (c_int64, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p)),
        ("xnor_run", c_int, (c_int64, POINTER(Layer), POINTER(Call))),
        ("xnor_sum_signed", None, (POINTER(Sums),)),
    ):
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    numbers = sorted(range(functions.xnor_n_paths()), key=lambda n: not functions.xnor_path_is_preferred(n))
    paths = {functions.xnor_path_name(n).decode(): n for n in numbers if functions.xnor_path_is_available(n)}
    return NativeLibrary(functions, paths, _address_of_parallel(), os.getpid())


def _address_of_parallel() -> int | None:
    for path in _openmp_files():
        try:
            openmp = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)  # only if torch has loaded it
            return ctypes.cast(openmp.GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def _openmp_files() -> Iterator[Path]:
    """OpenMP libraries that come with torch, then those this process has mapped."""
    for pattern in ("libgomp*", "libomp*", "libiomp*"):
        yield from sorted((Path(torch.__file__).parent / "lib").glob(pattern))
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        names = {line.split()[-1] for line in mapped.read_text(encoding="utf-8").splitlines() if "/" in line}
        yield from sorted(Path(name) for name in names if "omp" in Path(name).name)
