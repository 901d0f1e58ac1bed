"""Torch7's nn on PyTorch: any network of a .t7 file as a torch.nn.Module, and back.

net = lua_compat.nn.load("old.net")
lua_compat.save("new.net", lua_compat.nn.from_torch(net))
"""

from lua_compat.nn import (  # register their classes
    containers,
    convolution,
    convolution_local,
    convolution_temporal,
    convolution_volumetric,
    criterion,
    criterion_pairs,
    graph,
    normalization,
    pooling,
    pooling_places,
    recurrent,
    recurrent_sequence,
    sampling,
    simple,
    simple_math,
    simple_shape,
    simple_sparse,
    table,
    transfer,
)
from lua_compat.nn.criterion import ClassNLLCriterion
from lua_compat.nn.dropout import Dropout, SpatialDropout, VolumetricDropout, set_generator
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_reader import load, to_torch
from lua_compat.nn.network_writer import FieldWriter, from_torch
from lua_compat.nn.placeholder import Placeholder
from lua_compat.nn.registry import Origin, origin_of, register, registered_typenames, set_origin, writes
from lua_compat.nn.simple_shape import View
from lua_compat.nn.transfer import LogSoftMax

__all__ = [
    "ClassNLLCriterion",
    "Dropout",
    "FieldWriter",
    "Fields",
    "Layer",
    "LogSoftMax",
    "Origin",
    "Placeholder",
    "SpatialDropout",
    "View",
    "VolumetricDropout",
    "containers",
    "convolution",
    "convolution_local",
    "convolution_temporal",
    "convolution_volumetric",
    "criterion",
    "criterion_pairs",
    "from_torch",
    "graph",
    "load",
    "normalization",
    "origin_of",
    "pooling",
    "pooling_places",
    "recurrent",
    "recurrent_sequence",
    "register",
    "registered_typenames",
    "sampling",
    "set_generator",
    "set_origin",
    "simple",
    "simple_math",
    "simple_shape",
    "simple_sparse",
    "table",
    "to_torch",
    "transfer",
    "writes",
]
