"""Every error that `lua_compat` raises for something a user gave it.

    LuaCompatError
    ├── T7Error               a .t7 file that cannot be read, a value that cannot be written
    ├── CmdLineError          an option or a value that torch.CmdLine does not know
    ├── ImageError            a picture that cannot be read or scaled
    ├── ModuleError           a network of a .t7 file that is damaged or not as its class writes it
    │   └── UnknownModuleError    a Torch7 class that has no torch.nn module, or the other way round
    ├── OptimStateError       an optimiser state that belongs to another network
    ├── LoggerError           a log that cannot be written or read back
    └── GeneratorError        a random draw with impossible bounds, a saved state that is none

Each message is one line: where, what was expected, what was found.
"""

from pathlib import Path

__all__ = [
    "CmdLineError",
    "GeneratorError",
    "ImageError",
    "LoggerError",
    "LuaCompatError",
    "ModuleError",
    "OptimStateError",
    "T7Error",
    "UnknownModuleError",
]


class LuaCompatError(Exception):
    """Base of every error a user of `lua_compat` can cause and mend."""


class T7Error(LuaCompatError):
    """A .t7 file that cannot be read, or a value that cannot be written as one.

    `problem` says what was expected and what was found; `file` is the file's name ("" for bytes in memory),
    `position` the byte where the trouble starts (None where there is none), `keys` the path of keys from
    the top object down to the broken one, ready to print ("" at the top).
    """

    def __init__(self, problem: str, *, file: str | Path = "", position: int | None = None, keys: str = "") -> None:
        self.problem = problem
        self.file = str(file)
        self.position = position
        self.keys = keys
        place = [self.file] if self.file else []
        if position is not None:
            place.append(f"byte {position}")
        if keys:
            place.append(f"at {keys}")
        super().__init__(": ".join([", ".join(place), problem]) if place else problem)


class CmdLineError(LuaCompatError):
    """An option, a value or an argument that the command line does not allow."""


class ImageError(LuaCompatError):
    """A picture that cannot be read, or a size it cannot be brought to."""


class ModuleError(LuaCompatError):
    """A network whose modules are not as their Torch7 class writes them; the message names the place in the network."""


class UnknownModuleError(ModuleError):
    """A Torch7 class for which there is no torch.nn module, or a module for which there is no Torch7 class."""


class OptimStateError(LuaCompatError):
    """An optimiser state that does not fit the network's parameters, or cannot be written as one table."""


class LoggerError(LuaCompatError):
    """A log file that cannot be written, or does not read as optim.Logger writes it."""


class GeneratorError(LuaCompatError):
    """A random draw whose parameters Torch7 does not allow, or bytes that are no generator's state."""
