"""Torch7's files, numbers, options, pictures and networks in Python.

    import lua_compat
    value = lua_compat.load("model.t7")
    lua_compat.save("copy.t7", value)

`import lua_compat` needs NumPy only; `lua_compat.nn` and `lua_compat.optim` need PyTorch and are imported
when used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lua_compat.comparison import Difference, differences, equal
from lua_compat.errors import (
    CmdLineError,
    ImageError,
    LoggerError,
    LuaCompatError,
    T7Error,
    UnknownModuleError,
)
from lua_compat.t7_file import TrailingDataWarning, iter_objects, load, loads
from lua_compat.t7_writer import dumps, save
from lua_compat.values import (
    CudaStorage,
    CudaTensor,
    LuaFunction,
    LuaTable,
    LuaValue,
    Storage,
    Tensor,
    TorchObject,
    storage,
    tensor,
)

if TYPE_CHECKING:
    from lua_compat import image, nn, optim
    from lua_compat.cmdline import CmdLine
    from lua_compat.generator import Generator
    from lua_compat.logger import Logger

__all__ = [
    "CmdLine",
    "CmdLineError",
    "CudaStorage",
    "CudaTensor",
    "Difference",
    "Generator",
    "ImageError",
    "Logger",
    "LoggerError",
    "LuaCompatError",
    "LuaFunction",
    "LuaTable",
    "LuaValue",
    "Storage",
    "T7Error",
    "Tensor",
    "TorchObject",
    "TrailingDataWarning",
    "UnknownModuleError",
    "differences",
    "dumps",
    "equal",
    "image",
    "iter_objects",
    "load",
    "loads",
    "nn",
    "optim",
    "save",
    "storage",
    "tensor",
]

_WHEN_USED = {"CmdLine": "cmdline", "Generator": "generator", "Logger": "logger"}
_SUBMODULES = ("image", "nn", "optim")


def __getattr__(name: str) -> Any:
    """Import the parts that not every user needs when they are first named."""
    if name in _WHEN_USED:
        return getattr(importlib.import_module(f"lua_compat.{_WHEN_USED[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"lua_compat.{name}")
    raise AttributeError(f"module 'lua_compat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
