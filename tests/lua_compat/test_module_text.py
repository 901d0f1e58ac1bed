"""Networks print as Torch7 prints them: its own printouts in the golden runs, and nn's __tostring__ methods."""

from pathlib import Path

import numpy as np
import pytest

import lua_compat
from lua_compat import LuaTable, TorchObject
from lua_compat.module_text import module_text


def printed_model(log: Path) -> str:
    """What Torch7 printed between "=> Model" and "=> Criterion"."""
    return log.read_text().split("=> Model\t\n")[1].split("\n=> Criterion")[0]


@pytest.mark.parametrize("name", ["bwn", "xnor"])
def test_the_networks_of_the_runs(shared: Path, name: str) -> None:
    network = lua_compat.load(shared / "golden" / "models" / f"tiny_{name}.t7")
    assert module_text(network) == printed_model(shared / "golden" / "runs" / f"{name}_sgd" / "stdout.log")


def module(typename: str, **fields: object) -> TorchObject:
    return TorchObject(typename, fields)


WINDOW = {"kW": 3, "kH": 2, "dW": 1, "dH": 1}
PLANES = {"nInputPlane": 3, "nOutputPlane": 8}
VOLUME = {**WINDOW, "kT": 4, "dT": 1}

# The texts follow from the __tostring__ method of each class in torch/nn.
LEAVES = [
    (module("nn.Tanh"), "nn.Tanh"),
    (module("nn.Linear", weight=np.zeros((5, 7)), bias=np.zeros(5)), "nn.Linear(7 -> 5)"),
    (module("nn.Linear", weight=np.zeros((5, 7))), "nn.Linear(7 -> 5) without bias"),
    (module("nn.Dropout", p=0.3), "nn.Dropout(0.300000)"),
    (module("nn.LeakyReLU", negval=0.01), "nn.LeakyReLU(0.01)"),
    (module("nn.ELU", alpha=1), "nn.ELU (alpha:1.000000)"),
    (module("nn.View", size=np.array([-1, 4])), "nn.View(-1, 4)"),
    (module("nn.Reshape", size=np.array([3, 4])), "nn.Reshape(3x4)"),
    (module("nn.BatchNormalization", running_mean=np.zeros(4)), "nn.BatchNormalization (2D) (4)"),
    (module("nn.Normalize", p=2), "nn.Normalize(2)"),
    (module("nn.Normalize", p=1.5), "nn.Normalize(1.500000)"),
    (module("nn.SelectTable", index=-1), "nn.SelectTable(-1)"),
    (
        module("nn.SpatialConvolution", **PLANES, **WINDOW, padW=0, padH=0, bias=1),
        "nn.SpatialConvolution(3 -> 8, 3x2)",
    ),
    (
        module("cudnn.SpatialConvolution", **PLANES, **WINDOW, padW=1, padH=0),
        "cudnn.SpatialConvolution(3 -> 8, 3x2, 1,1, 1,0) without bias",
    ),
    (
        # Files of 2014 have no padding at all: padW ~= 0 holds for nil, so the steps are shown.
        module("nn.SpatialConvolution", **PLANES, **WINDOW, bias=1),
        "nn.SpatialConvolution(3 -> 8, 3x2, 1,1)",
    ),
    (
        module("nn.SpatialFullConvolution", **PLANES, **WINDOW, padW=1, padH=1, adjW=1, adjH=0, bias=1),
        "nn.SpatialFullConvolution(3 -> 8, 3x2, 1,1, 1,1, 1,0)",
    ),
    (module("nn.SpatialMaxPooling", **WINDOW, padW=0, padH=0), "nn.SpatialMaxPooling(3x2, 1,1)"),
    (module("cudnn.SpatialMaxPooling", **WINDOW, padW=1, padH=0), "cudnn.SpatialMaxPooling(3x2, 1,1, 1,0)"),
    (
        module("nn.VolumetricConvolution", **PLANES, **VOLUME, padT=0, padW=1, padH=1),
        "nn.VolumetricConvolution(3 -> 8, 4x3x2, 1,1,1, 0,1,1)",
    ),
    (module("nn.gModule"), "nn.gModule"),
    (module("nn.gModule", name="encoder"), "encoder"),
    (module("nn.Linear"), "nn.Linear"),  # its method fails in Lua without a weight
    (module("cudnn.SpatialBatchNormalization", running_mean=np.zeros(4)), "cudnn.SpatialBatchNormalization"),
]


@pytest.mark.parametrize(("leaf", "text"), LEAVES)
def test_leaves(leaf: TorchObject, text: str) -> None:
    assert module_text(leaf) == text


def test_containers_inside_each_other() -> None:
    inner = module("nn.Sequential", modules=LuaTable([module("nn.Tanh"), module("nn.Abs")]))
    concat = module("nn.ConcatTable", modules=LuaTable([inner, module("nn.Exp")]))
    outer = module("nn.Sequential", modules=LuaTable([concat, module("nn.CAddTable")]))
    assert module_text(outer).splitlines() == [
        "nn.Sequential {",
        "  [input -> (1) -> (2) -> output]",
        "  (1): nn.ConcatTable {",
        "    input",
        "      |`-> (1): nn.Sequential {",
        "      |      [input -> (1) -> (2) -> output]",
        "      |      (1): nn.Tanh",
        "      |      (2): nn.Abs",
        "      |    }",
        "       `-> (2): nn.Exp",
        "       ... -> output",
        "  }",
        "  (2): nn.CAddTable",
        "}",
    ]


def test_decorators_and_map_table() -> None:
    tanh = module("nn.Tanh")
    assert module_text(module("nn.Bottle", modules=LuaTable([tanh]))) == "nn.Bottle @ nn.Tanh"
    gpu = TorchObject("nn.GPU", {"modules": LuaTable([tanh])}, header={"device": 2})
    assert module_text(gpu) == "nn.GPU(2) @ nn.Tanh"
    assert module_text(module("nn.MapTable", module=tanh)) == "nn.MapTable {\n  nn.Tanh\n}"
    assert module_text(module("nn.MapTable")) == "nn.MapTable { }"
    linear = module("nn.Linear", bias=np.zeros(4))
    weight_norm = module("nn.WeightNorm", modules=LuaTable([linear]), weightSize=np.array([4, 5]))
    assert module_text(weight_norm) == "nn.WeightNorm @ nn.Linear(5 -> 4)"


def test_endless_and_wide_networks_end() -> None:
    endless = module("nn.Sequential")
    endless["modules"] = LuaTable([endless, endless])
    assert len(module_text(endless)) < 1 << 26
    deep = module("nn.Tanh")
    for _ in range(500):
        deep = module("nn.Sequential", modules=LuaTable([deep]))
    assert module_text(deep).count("nn.Sequential") == 500


def test_every_module_of_the_golden_files_has_a_text(shared: Path) -> None:
    for path in sorted((shared / "golden" / "modules").glob("*.t7")):
        assert module_text(lua_compat.load(path)["module"])
