"""Damaged networks: whatever a field holds, the error is ours and names the class."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError
from lua_compat.values import LuaTable, TorchObject

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [p for kind in ("modules", "criterions") for p in sorted((GOLDEN / kind).glob("*.t7"))]
VALUES: list[Any] = [
    None,  # the field is missing
    "text",
    -1,
    LuaTable([1, 2]),
    lua_compat.tensor(np.zeros(0, np.float32)),
    TorchObject("nn.Tanh"),
    TorchObject("tds.Vec", [1, 2]),  # without fields
    math.inf,
    1e300,
    LuaTable([math.nan]),
    np.broadcast_to(np.float32(1), (1 << 20, 1 << 20)).view(lua_compat.Tensor),  # 4 bytes shown as 4 TiB
]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_field_of_another_kind_is_refused_by_name_or_does_not_matter(path: Path) -> None:
    problems: list[str] = []
    case = lua_compat.load(path)
    module = case.get("module", case.get("criterion"))
    for name in set(module) - {"output", "gradInput", "_type"}:
        kept = module[name]
        for value in VALUES:
            if value is None:
                del module[name]
            else:
                module[name] = value
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PyTorch's about tensors without elements
                    t7nn.to_torch(module)
            except ModuleError as error:
                problems.append(str(error))
            module[name] = kept
    assert [problem for problem in problems if "\n" in problem or " at " not in problem] == []


def test_entries_deeper_down(golden: Path) -> None:
    """Tables inside the module's own, whose entries are read without names."""
    names = ("gModule", "WeightNorm", "LinearWeightNorm")
    graph, normed, linear = (lua_compat.load(golden / "modules" / f"{name}.t7")["module"] for name in names)
    content = next(node["data"] for node in graph["forwardnodes"].to_list() if "module" in node["data"])
    cases: list[tuple[Any, Any, str, Any, str]] = [
        (graph, content, "module", 5, "should be a module, found int"),
        (graph, content, "selectindex", LuaTable(), "should be whole numbers"),
        (graph, content, "nSplitOutputs", math.inf, "should be whole numbers"),
        (normed, normed["modules"], 1, TorchObject("tds.Vec", [1]), "should hold a module"),
        (normed, normed["modules"], 1, TorchObject("nn.Tanh"), "a module with a weight, found nn.Tanh"),
        (linear, linear, "eps", 1e300, r"eps should be a number from 0 to 3.40282e\+38, found 1e\+300"),
        (normed, normed, "weightSize", LuaTable([10**6, 10**6]), "should be the size of its"),
    ]
    for root, table, key, value, message in cases:
        kept = table.get(key)
        table[key] = value
        with pytest.raises(ModuleError, match=message):
            t7nn.to_torch(root)
        table[key] = kept
        t7nn.to_torch(root)


def test_a_layer_without_outputs_is_refused_without_a_warning() -> None:
    """PyTorch warns of zero-element tensors that it cannot initialise; warnings are errors here."""
    fields = {"nInputPlane": 3, "nOutputPlane": 0, "kW": 1, "kH": 1, "dW": 1, "dH": 1, "padW": 0, "padH": 0,
              "weight": np.ones((2, 3, 1, 1), np.float32), "bias": np.ones(2, np.float32)}  # fmt: skip
    with pytest.raises(ModuleError, match="field weight should have shape 0x3x1x1, found 2x3x1x1"):
        t7nn.to_torch(TorchObject("nn.SpatialConvolution", LuaTable(fields)))
