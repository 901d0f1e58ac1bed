"""The parts in C; everything else about the package is in pyproject.toml.

    python setup.py build_ext --inplace     # in a checkout; pip does it by itself

Each is optional: where it cannot be built, Python code gives the same numbers, more slowly.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "lua_compat.image._scaling",
            ["lua_compat/image/_scaling.c"],
            # no fused multiply-add, which rounds once where Torch7 rounds twice
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        ),
    ]
)
