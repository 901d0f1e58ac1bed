"""Two values compared: contents, types, sharing; the first and the worst element."""

import math

import numpy as np
import pytest

import lua_compat
from lua_compat import LuaFunction, LuaTable, TorchObject


def found(left: object, right: object, tolerance: float = 0.0) -> list[str]:
    return [str(each) for each in lua_compat.differences(left, right, tolerance)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (None, None),
        (1, 1.0),
        (math.nan, -math.nan),
        ("a", b"a"),
        ([1, 2], {1: 1, 2: 2}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([np.nan]), np.array([np.nan])),
        (LuaTable({LuaTable(["key"]): 1}), LuaTable({LuaTable(["key"]): 1})),
        (LuaFunction(b"x", [1]), LuaFunction(b"x", [1])),
        (TorchObject("nn.X", {"a": 1}), TorchObject("nn.X", {"a": 1})),
    ],
)
def test_equal(left: object, right: object) -> None:
    assert lua_compat.equal(left, right)
    assert lua_compat.equal(right, left)


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (1, 2, "1 against 2"),
        (0.0, -0.0, "0.0 against -0.0"),
        (1, True, "number 1 against boolean True"),
        (None, False, "nil None against boolean False"),
        ({"a": 1}, {"b": 1}, ".a only on the left: 1"),
        ([1], [1, 2], "[2] only on the right: 2"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b[1]: 1 against 2"),
        (TorchObject("nn.X"), TorchObject("nn.Y"), "nn.X 1 against nn.Y 1"),
        (LuaFunction(b"x"), LuaFunction(b"y"), "functions differ (1 and 1 bytes)"),
        (np.zeros(2, "f4"), np.zeros(2), "torch.FloatTensor 2 against torch.DoubleTensor 2"),
        (np.zeros(2), np.zeros((1, 2)), "torch.DoubleTensor 2 against torch.DoubleTensor 1x2"),
        (LuaTable({LuaTable([1]): 1}), LuaTable({LuaTable([2]): 1}), "<a key>[1]: 1 against 2"),
    ],
)
def test_different(left: object, right: object, text: str) -> None:
    assert text in found(left, right)
    assert not lua_compat.equal(left, right)


def test_first_and_worst_element() -> None:
    left = np.zeros((3, 4))
    right = left.copy()
    right[0, 2], right[2, 1] = 0.5, -2
    assert found(left, right) == [
        "2 elements differ; first [1, 3]: 0.0 against 0.5; worst by 2: [3, 2]: 0.0 against -2.0"
    ]
    assert found(left, right, tolerance=2) == []
    assert found(left, right, tolerance=1)[0].startswith("1 element differs; first [3, 2]")


def test_large_arrays_are_compared_in_pieces() -> None:
    left = np.zeros((3000, 1000), "i4")
    right = left.copy()
    right[2999, 999] = 1
    assert found(left, right) == [
        "1 element differs; first [3000, 1000]: 0 against 1; worst by 1: [3000, 1000]: 0 against 1"
    ]


def test_repeated_elements_are_compared_once() -> None:
    shape = (2**20, 2**20)
    left, right = np.broadcast_to(np.float32(1), shape), np.broadcast_to(np.float32(2), shape)
    assert found(left, right)[0].startswith("1 element differs; first [1, 1]: 1.0 against 2.0")
    assert lua_compat.equal(left, left)


def test_sharing_counts() -> None:
    shared = LuaTable([1])
    left, right = LuaTable([shared, shared]), LuaTable([shared, LuaTable([1])])
    assert found(left, right) == ["[2]: table is shared differently"]
    assert found(right, left) == ["[2]: table is shared differently"]


def test_sharing_of_storages_counts() -> None:
    storage = lua_compat.storage(np.arange(4.0))
    other = lua_compat.storage(np.arange(4.0))
    tensor = lua_compat.Tensor
    left = [storage[:2].view(tensor), storage[2:].view(tensor)]
    right = [storage[:2].view(tensor), other[2:].view(tensor)]
    assert found(left, right) == ["[2]: storage is shared differently"]


def test_cycles_and_depth() -> None:
    left, right = LuaTable(), LuaTable()
    left["me"], right["me"] = left, right
    assert lua_compat.equal(left, right)
    for _ in range(50_000):
        left, right = LuaTable([left]), LuaTable([right])
    assert lua_compat.equal(left, right)


def test_of_a_very_long_path_the_middle_is_left_out() -> None:
    left, right = LuaTable({"leaf": 1}), LuaTable({"leaf": 2})
    for _ in range(2000):
        left, right = LuaTable({"k" * 40: left}), LuaTable({"k" * 40: right})
    left, right = LuaTable({"root": left}), LuaTable({"root": right})
    (difference,) = lua_compat.differences(left, right)
    assert difference.keys.startswith("root.kkk")
    assert "k..." in difference.keys
    assert difference.keys.endswith("kkk.leaf")
    assert len(difference.keys) <= 1 << 12


def test_python_values_that_lua_does_not_have() -> None:
    with pytest.raises(TypeError, match="a Python set is no Lua value"):
        lua_compat.equal({1}, {1})
