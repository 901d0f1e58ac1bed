"""The parts in C; everything else about the package is in pyproject.toml.

    python setup.py build_ext --inplace     # in a checkout; pip does it by itself

They are plain C11 and need no Python.h: ctypes loads them from beside the module that uses them. Each is optional:
where it cannot be built, Python code gives the same numbers, more slowly.
"""

from pathlib import Path

from setuptools import Extension, setup

# Built module -> its source; headers beside the source belong to it.
SOURCES = {
    "lua_compat.image._scaling": "lua_compat/image/_scaling.c",
    "xnornet_port.kernels._xnor_cpu": "xnornet_port/kernels/native/xnor_cpu.c",
}
# No contraction: a fused multiply-add rounds once where Torch7 rounds twice, so it is written out where one is meant.
FLAGS = ["-O3", "-ffp-contract=off", "-pthread"]

setup(
    ext_modules=[
        Extension(
            name,
            [source],
            depends=sorted(str(header) for header in Path(source).parent.glob("*.h")),
            extra_compile_args=FLAGS,
            libraries=["m"],
            optional=True,
        )
        for name, source in SOURCES.items()
    ]
)
