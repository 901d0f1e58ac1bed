"""Saved networks have every field that real Torch7 writes for their classes, so that it can run them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lua_compat
from lua_compat.nn import from_torch
from lua_compat.values import LuaTable, TorchObject
from xnornet_port.models import NETWORKS, NetworkSettings

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves test folders off the path

from thin import thinned

# Recorded under another name: cudnn's classes without a GPU as their nn parents
RELATIVES = {"cudnn.SpatialAveragePooling": "nn.SpatialAveragePooling"}


def objects(value: object) -> Iterator[TorchObject]:
    if isinstance(value, TorchObject):
        yield value
    if isinstance(value, TorchObject | LuaTable):
        for child in value.values():
            yield from objects(child)


@pytest.fixture(scope="module")
def fields(golden: Path) -> dict[str, set[str]]:
    """Class name to the fields that all its recorded instances have."""
    found: dict[str, set[str]] = {}
    for path in [*(golden / "modules").glob("*.t7"), *(golden / "models").glob("*.t7")]:
        recorded = lua_compat.load(path)
        for module in objects(recorded["module"] if isinstance(recorded, LuaTable) else recorded):
            found[module.typename] = found.get(module.typename, set(module)) & set(module)
    return found


@pytest.mark.parametrize(
    ("net_type", "shortcut_type"), [*((name, "B") for name in NETWORKS), ("resnet", "A"), ("resnetxnor", "A")]
)
def test_no_field_is_missing(fields: dict[str, set[str]], net_type: str, shortcut_type: str) -> None:
    network = thinned(NETWORKS[net_type].build(NetworkSettings(5, shortcut_type=shortcut_type)), 5)
    for module in objects(from_torch(network)):
        wanted = fields[RELATIVES.get(module.typename, module.typename)]
        if net_type == "resnet" and module.typename == "cudnn.SpatialConvolution":
            wanted = wanted - {"bias", "gradBias"}  # facebook's code takes them away
        assert wanted <= set(module), module.typename
