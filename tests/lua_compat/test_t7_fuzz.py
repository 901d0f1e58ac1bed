"""Damaged files are refused and nothing worse; any value survives any encoding.

The long run of the same fuzzer is recorded in benchmarks/results/t7_fuzz.md.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import lua_compat
from lua_compat import LuaFunction, LuaTable, TorchObject

FUZZER = Path(__file__).parents[2] / "benchmarks" / "t7_fuzz.py"


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    specification = importlib.util.spec_from_file_location("t7_fuzz", FUZZER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["t7_fuzz"] = module  # where dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_damaged_files(fuzzer: ModuleType, golden: Path) -> None:
    tally = fuzzer.read_damaged(fuzzer.seed_files(golden), 4000, seed=20)
    assert tally.failures == []
    assert tally.read + tally.refused == 4000
    assert tally.refused > 2000


def test_every_beginning_of_some_files(fuzzer: ModuleType, golden: Path) -> None:
    names = ("tab_mixed.t7", "t_sharedstorage.ascii.t7", "tds_hash.b32.t7", "nn_gpu.be.t7", "f_nilup.t7")
    seeds = [(golden / "format_more" / name).read_bytes() for name in names]
    tally = fuzzer.read_damaged(seeds, 0, seed=1)
    assert tally.failures == []
    assert tally.read + tally.refused == sum(map(len, seeds))


@pytest.mark.parametrize("mutation", ["flip_bytes", "cut_off", "edit_number", "edit_digits", "copy_piece", "splice"])
def test_the_fuzzer_damages(fuzzer: ModuleType, mutation: str) -> None:
    """A fuzzer that changed nothing would find nothing."""
    generator = fuzzer.random.Random(1)
    original = bytes(range(200))
    damaged = [bytes(getattr(fuzzer, mutation)(bytearray(original), generator, [original])) for _ in range(10)]
    assert len(set(damaged)) > 5
    assert any(each != original for each in damaged)


def test_the_fuzzer_notices_other_exceptions(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, **options: object) -> None:
        raise IndexError("of the test")

    monkeypatch.setattr(fuzzer.lua_compat, "loads", broken)
    tally = fuzzer.read_damaged([b"\0\0\0\0"], 3, seed=1)
    assert [failure.split(";")[0] for failure in tally.failures] == ["IndexError: of the test"] * 3


numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(width=64))
strings = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.binary(max_size=20))
tensors = st.sampled_from(["u1", "i1", "i2", "i4", "f2", "f4", "f8"]).flatmap(
    lambda code: arrays.arrays(code, arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
)
views = st.tuples(tensors, st.booleans()).map(lambda pair: pair[0].T if pair[1] else pair[0][::2])
leaves = st.one_of(st.none(), st.booleans(), numbers, strings, tensors, views)
keys = st.one_of(st.booleans(), strings, numbers.filter(lambda number: number == number))


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    entries = st.lists(st.tuples(keys, children), max_size=5)
    tables = entries.map(table_of)
    objects = st.tuples(st.sampled_from(["nn.Linear", "A", "nngraph.Node"]), tables)
    return st.one_of(
        tables,
        st.lists(children, max_size=5).map(LuaTable),
        st.lists(children, min_size=1, max_size=3).map(lambda elements: LuaTable([*elements, elements[0]])),
        objects.map(lambda pair: TorchObject(*pair)),
        st.lists(children, max_size=3).map(lambda elements: TorchObject("tds.Vec", elements)),
        st.tuples(st.binary(max_size=9), tables).map(lambda pair: LuaFunction(*pair)),
    )


def table_of(entries: list[tuple[Any, Any]]) -> LuaTable:
    table = LuaTable()
    for key, value in entries:
        table[key] = value
    return table


values = st.recursive(leaves, containers, max_leaves=12)


@settings(max_examples=150)
@given(values, st.sampled_from(["binary", "ascii"]), st.sampled_from([4, 8]), st.sampled_from(["little", "big"]))
def test_any_value_survives_any_encoding(value: object, mode: str, long_size: int, byte_order: str) -> None:
    data = lua_compat.dumps(value, mode, long_size=long_size, byte_order=byte_order)
    read = lua_compat.loads(data, mode=mode, long_size=long_size, byte_order=byte_order)
    found = next(lua_compat.differences(value, read), None)
    assert found is None, str(found)
    assert lua_compat.dumps(read, mode, long_size=long_size, byte_order=byte_order) == data
    detected = lua_compat.loads(data)
    assert next(lua_compat.differences(value, detected), None) is None


@settings(max_examples=60)
@given(st.lists(st.tuples(numbers.filter(lambda n: n == n), st.one_of(numbers, strings, st.booleans())), max_size=200))
def test_long_tables_read_the_same_in_runs_and_one_by_one(entries: list[tuple[Any, Any]]) -> None:
    """A large table is read by columns where it can be; ascii is always read entry by entry."""
    table = table_of([*entries, *((float(index), "x" * (index % 3)) for index in range(100, 200)), *entries])
    binary, text = lua_compat.loads(lua_compat.dumps(table)), lua_compat.loads(lua_compat.dumps(table, "ascii"))
    assert next(lua_compat.differences(binary, text), None) is None
    assert next(lua_compat.differences(binary, table), None) is None
    assert list(map(repr, binary)) == list(map(repr, table))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(40, 120), st.integers(0, 119))
def test_runs_of_tensors_with_an_odd_one_out(ndim: int, count: int, odd: int) -> None:
    listed: list[object] = [np.full((2,) * ndim, index, "f4") for index in range(count)]
    listed[odd % count] = [None, "text", np.zeros(5), listed[0]][odd % 4]
    data = lua_compat.dumps(listed)
    assert next(lua_compat.differences(lua_compat.loads(data), listed), None) is None
    assert lua_compat.dumps(lua_compat.loads(data)) == data
