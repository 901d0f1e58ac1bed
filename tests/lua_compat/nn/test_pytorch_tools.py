"""Loaded networks are ordinary PyTorch modules: state_dict, copies, types, torch.compile, torch.export."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.values import LuaTable

CASES = ["flattened_parameters", "gModule_lstm_cell", "SpatialContrastiveNormalization", "WeightNorm", "Convert"]


def tensors(value: Any) -> Any:
    if isinstance(value, LuaTable):
        return [tensors(entry) for entry in value.to_list()]
    return torch.from_numpy(np.array(value))


@pytest.fixture(params=CASES)
def case(golden: Path, request: pytest.FixtureRequest) -> tuple[nn.Module, Any, Any]:
    """A network in evaluate mode, an input, Torch7's answer."""
    found = lua_compat.load(golden / "modules" / f"{request.param}.t7")
    network = t7nn.to_torch(found["module"]).eval()
    return network, tensors(found["input"]), tensors(found["evaluateOutput"])


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_a_state_dict_moves_the_numbers(case: tuple[nn.Module, Any, Any]) -> None:
    network, x, expected = case
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensor in network.state_dict().values():
        tensor.zero_()
    network.load_state_dict(state)
    same(network(x), expected)


def test_a_deep_copy_is_apart_and_is_written_as_the_original(case: tuple[nn.Module, Any, Any]) -> None:
    network, x, expected = case
    twin = copy.deepcopy(network)
    for tensor in network.state_dict().values():
        tensor.zero_()
    same(twin(x), expected)
    assert t7nn.from_torch(twin).typename == t7nn.from_torch(network).typename


def test_double_precision(case: tuple[nn.Module, Any, Any]) -> None:
    network, x, expected = case
    same(network.double()([t.double() for t in x] if isinstance(x, list) else x.double()), expected)
    assert t7nn.from_torch(network)["_type"] in ("torch.DoubleTensor", "torch.FloatTensor")  # without parameters


def test_torch_compile_in_one_graph(case: tuple[nn.Module, Any, Any]) -> None:
    network, x, expected = case
    same(torch.compile(network, backend="eager", fullgraph=True)(x), expected)


def test_torch_export(case: tuple[nn.Module, Any, Any]) -> None:
    network, x, expected = case
    same(torch.export.export(network, (x,)).module()(x), expected)
