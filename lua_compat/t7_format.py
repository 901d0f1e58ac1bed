"""The .t7 format as tables: type ids, element types, class payloads, versions.

Sources: torch7 File.lua (type ids, order of an object's parts), generic/Storage.c and generic/Tensor.c
(payloads), cutorch generic/CStorage.c, tds hash.lua and vec.lua, nn GPU.lua, cunn DataParallelTable.lua.
There is no magic number, no header and no end marker: see docs/t7.md.
"""

import re
from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np

__all__ = [
    "CLASS_NAME",
    "CUDA_TYPES",
    "ELEMENT_TYPES",
    "GENERATOR_BYTES",
    "STORAGE_TYPES",
    "TENSOR_TYPES",
    "VERSION",
    "ElementType",
    "Layout",
    "Payload",
    "Tag",
    "default_version",
    "payload_of",
]


class Tag(IntEnum):
    """The int that starts every object (File.lua, writeObject)."""

    NIL = 0
    NUMBER = 1
    STRING = 2
    TABLE = 3
    TORCH = 4
    BOOLEAN = 5
    OLDEST_FUNCTION = 6  # until 2014-07: not in the memo
    LEGACY_FUNCTION = 7  # until 2015-04: upvalues are a plain list
    FUNCTION = 8


@dataclass(frozen=True)
class Layout:
    """How the primitives of one file are encoded. In ascii only raw data depends on the last two."""

    mode: str = "binary"  # or "ascii"
    long_size: int = 8  # bytes of a C long where the file was written: 8, or 4 on 32-bit systems and Windows
    byte_order: str = "little"  # or "big"
    is_guess: bool = False  # tried only because the usual layout made no sense

    def __str__(self) -> str:
        if self.mode == "ascii":
            return "ascii"
        return f"binary, {self.long_size}-byte longs, {self.byte_order}-endian"


@dataclass(frozen=True)
class ElementType:
    """One element type of tensors and storages: its name in class names, and NumPy's type."""

    name: str
    dtype: np.dtype[np.generic]


ELEMENT_TYPES = tuple(
    ElementType(name, np.dtype(code))
    for name, code in (
        ("Byte", "u1"),
        ("Char", "i1"),
        ("Short", "i2"),
        ("Int", "i4"),
        ("Long", "i8"),
        ("Half", "f2"),
        ("Float", "f4"),
        ("Double", "f8"),
    )
)

# dtype.str without its byte-order sign -> element name; results of comparisons are bool, ByteTensors in
# Torch7.
ELEMENT_NAMES = {element.dtype.str[1:]: element.name for element in ELEMENT_TYPES} | {"b1": "Byte"}

# torch.CudaTensor holds floats; there is no torch.CudaFloatTensor.
CPU_TYPES = {f"torch.{element.name}": element for element in ELEMENT_TYPES}
CUDA_TYPES = {f"torch.Cuda{'' if element.name == 'Float' else element.name}": element for element in ELEMENT_TYPES}
TENSOR_TYPES = {f"{stem}Tensor": element for stem, element in (CPU_TYPES | CUDA_TYPES).items()}
STORAGE_TYPES = {f"{stem}Storage": element for stem, element in (CPU_TYPES | CUDA_TYPES).items()}

# The two strings in front of an object's contents. Files before versions existed have the second alone.
VERSION = re.compile(rb"V ([0-9]{1,9})(\.[0-9]{1,9})?")
CLASS_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.\-]{0,255}")

# sizeof(THGenerator) on 64-bit Linux and macOS (torch7 Generator.c)
GENERATOR_BYTES = 5048


class Payload(Enum):
    """What follows the class name of a torch object."""

    ONE_OBJECT = "one object"  # the table of fields
    TWO_OBJECTS = "two objects"  # a table of the class's own, then the table of fields
    PAIRS = "long n, n pairs of objects"
    ELEMENTS = "long n, n objects"
    LONG = "one long"
    GENERATOR = "raw bytes of THGenerator"
    NOTHING = "nothing"


SPECIAL_PAYLOADS = {
    "torch.Generator": Payload.GENERATOR,
    "tds.Hash": Payload.PAIRS,
    "tds_hash": Payload.PAIRS,  # its name in 2015
    "tds.Vec": Payload.ELEMENTS,
    "tds.AtomicCounter": Payload.LONG,
    "nn.GPU": Payload.TWO_OBJECTS,
    "torch.Timer": Payload.NOTHING,  # in nn.Profile
}

DEFAULT_VERSIONS = {
    "tds.Hash": 0,
    "tds_hash": 0,
    "tds.Vec": 0,
    "tds.AtomicCounter": 0,
    "nn.BatchNormalization": 2,
    "nn.SpatialBatchNormalization": 2,
    "nn.VolumetricBatchNormalization": 2,
    "cudnn.BatchNormalization": 2,
    "cudnn.SpatialBatchNormalization": 2,
    "cudnn.VolumetricBatchNormalization": 2,
    "nn.GradientReversal": 2,
    "nn.VolumetricMaxPooling": 2,
    "nn.LookupTable": 4,
    "nn.DataParallelTable": 3,
}


def payload_of(typename: str, version: float) -> Payload:
    """The form of a class's payload (tensors and storages aside)."""
    if typename == "nn.DataParallelTable":
        return Payload.TWO_OBJECTS if version >= 2 else Payload.ONE_OBJECT
    return SPECIAL_PAYLOADS.get(typename, Payload.ONE_OBJECT)


def default_version(typename: str) -> int:
    """The version that today's Torch7 writes for a class."""
    return DEFAULT_VERSIONS.get(typename, 1)
