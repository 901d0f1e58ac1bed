"""Torch7's nn on PyTorch: any network of a .t7 file as a torch.nn.Module, and back.

net = lua_compat.nn.load("old.net")
lua_compat.save("new.net", lua_compat.nn.from_torch(net))
"""

from lua_compat.nn import containers, convolution, normalization, pooling  # register their classes
from lua_compat.nn.criterion import ClassNLLCriterion
from lua_compat.nn.dropout import Dropout, SpatialDropout, set_generator
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_reader import load, to_torch
from lua_compat.nn.network_writer import FieldWriter, from_torch
from lua_compat.nn.registry import Origin, origin_of, register, set_origin, writes
from lua_compat.nn.simple import View
from lua_compat.nn.transfer import LogSoftMax

__all__ = [
    "ClassNLLCriterion",
    "Dropout",
    "FieldWriter",
    "Fields",
    "LogSoftMax",
    "Origin",
    "SpatialDropout",
    "View",
    "containers",
    "convolution",
    "from_torch",
    "load",
    "normalization",
    "origin_of",
    "pooling",
    "register",
    "set_generator",
    "set_origin",
    "to_torch",
    "writes",
]
