"""Lua values in Python: keys as Lua compares them, arrays that know their Torch7 type."""

import copy
import math
import pickle

import numpy as np
import pytest

import lua_compat
from lua_compat import LuaFunction, LuaTable, Tensor, TorchObject
from lua_compat.values import key_step, lua_number


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, 1), (-3.0, -3), (0.0, 0), (2.0**53 - 1, 2**53 - 1), (0.5, 0.5), (2.0**53, 2.0**53), (1e300, 1e300)],
)
def test_numbers_are_ints_where_they_are_whole_and_exact(value: float, shown: int | float) -> None:
    assert (lua_number(value), type(lua_number(value))) == (shown, type(shown))


def test_minus_zero_inf_and_nan_stay_floats() -> None:
    assert math.copysign(1, lua_number(-0.0)) == -1
    assert type(lua_number(-0.0)) is float
    assert lua_number(math.inf) == math.inf
    assert math.isnan(lua_number(math.nan))


def test_keys_equal_in_lua_are_one_key() -> None:
    table = LuaTable()
    for key in (1, 1.0, np.int64(1), np.float32(1)):
        table[key] = key
    table["a"] = 1
    table[b"a"] = 2
    table[-0.0] = "zero"
    assert dict(table) == {1: np.float32(1), "a": 2, 0: "zero"}
    assert [type(key) for key in table] == [int, str, int]


def test_true_and_1_are_two_keys() -> None:
    table = LuaTable({1: "one"})
    table[True] = "true"
    table[False] = "false"
    table[0] = "zero"
    assert [table[1], table[True], table[0], table[False]] == ["one", "true", "zero", "false"]
    assert list(table.items()) == [(1, "one"), (True, "true"), (False, "false"), (0, "zero")]
    assert [key is True for key in table] == [False, True, False, False]
    assert True in table
    del table[True]
    assert (True in table, 1 in table) == (False, True)


def test_bytes_that_are_not_text_are_keys_of_their_own() -> None:
    table = LuaTable({b"\xff": 1, "ÿ": 2})
    assert (table[b"\xff"], table["ÿ"], table["ÿ".encode()]) == (1, 2, 2)


def test_tables_objects_and_arrays_are_keys_by_identity() -> None:
    array, other = Tensor((2,)), LuaTable()
    table = LuaTable()
    table[array], table[other] = "array", "table"
    assert (table[array], table[other]) == ("array", "table")
    assert array.copy() not in table
    assert LuaTable() not in table
    assert next(iter(table)) is array


@pytest.mark.parametrize("key", [None, math.nan, (1, 2), {}, [], 1j, 2**53 + 1, 10**400])
def test_what_is_no_lua_key_is_refused(key: object) -> None:
    table = LuaTable()
    with pytest.raises(TypeError):
        table[key] = 1
    with pytest.raises(KeyError):
        _ = table[key]
    assert key not in table
    assert table.get(key) is None


def test_nil_removes_and_leaves_holes() -> None:
    table = LuaTable(["a", None, "c"])
    assert dict(table) == {1: "a", 3: "c"}
    assert table.to_list() == ["a"]
    table[1] = None
    assert (dict(table), table.to_list()) == ({3: "c"}, [])
    with pytest.raises(KeyError):
        del table[1]


def test_a_table_is_a_mapping_in_insertion_order() -> None:
    table = LuaTable({"b": 1, "a": 2})
    table["c"] = 3
    assert list(table) == ["b", "a", "c"]
    assert list(table.values()) == [1, 2, 3]
    assert (len(table), table.get("x", 7), table.pop("a"), table.setdefault("d", 4)) == (3, 7, 2, 4)
    assert repr(table) == "LuaTable({'b': 1, 'c': 3, 'd': 4})"


def test_tables_are_equal_only_to_themselves() -> None:
    assert LuaTable([1]) != LuaTable([1])
    assert lua_compat.equal(LuaTable([1]), [1])
    table = LuaTable()
    table["self"] = table
    assert table == table
    assert repr(table) == "LuaTable({'self': <table of 1>})"


@pytest.mark.parametrize("contents", ["text", b"bytes"])
def test_a_string_makes_no_table(contents: object) -> None:
    with pytest.raises(TypeError, match="a mapping or a list"):
        LuaTable(contents)


def test_objects_are_mappings_over_their_fields() -> None:
    module = TorchObject("nn.Linear", {"weight": 1})
    module["bias"] = 2
    assert dict(module) == {"weight": 1, "bias": 2}
    assert ("bias" in module, len(module), module.version) == (True, 2, 1)
    del module["bias"]
    assert isinstance(module.fields, LuaTable)
    assert repr(module) == "TorchObject('nn.Linear', {'weight': 1})"
    assert bool(TorchObject("nn.Tanh"))
    assert TorchObject("nn.Tanh") != TorchObject("nn.Tanh")


@pytest.mark.parametrize(
    ("typename", "version"),
    [("nn.Linear", 1), ("tds.Hash", 0), ("nn.SpatialBatchNormalization", 2), ("nn.LookupTable", 4)],
)
def test_objects_get_the_version_that_torch7_writes(typename: str, version: int) -> None:
    assert TorchObject(typename).version == version


def test_an_object_without_fields_says_where_its_content_is() -> None:
    vector = TorchObject("tds.Vec", ["a", None])
    with pytest.raises(TypeError, match=r"tds\.Vec has no fields; its content is in \.payload \(list\)"):
        _ = vector["a"]
    assert repr(vector) == "TorchObject('tds.Vec', ['a', None])"


def test_functions_are_inert() -> None:
    function = LuaFunction(b"\x1bLJ", [1])
    assert not callable(function)
    assert repr(function) == "LuaFunction(<3 bytes>)"


def test_values_can_be_copied_and_pickled() -> None:
    table = LuaTable({"list": LuaTable([1, 2]), True: TorchObject("nn.X", {"w": lua_compat.tensor(np.ones(2))})})
    assert lua_compat.equal(copy.deepcopy(table), table)
    assert lua_compat.equal(pickle.loads(pickle.dumps(table)), table)  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("key", "step"),
    [("weight", ".weight"), (3, "[3]"), ("two words", "['two words']"), (True, "[True]"), (b"\xff", "[b'\\xff']")],
)
def test_keys_as_steps_of_a_path(key: object, step: str) -> None:
    assert key_step(key) == step


def test_a_vector_that_holds_itself_can_be_shown() -> None:
    vector = TorchObject("tds.Vec", [1, None])
    vector.payload.append(vector)
    assert repr(vector) == "TorchObject('tds.Vec', [1, None, <tds.Vec>])"
