"""Runs of like entries: the same as entry by entry, and no more than the run."""

import struct
from typing import Any

import pytest

from lua_compat.t7_format import Layout
from lua_compat.t7_key_guard import KeyGuard
from lua_compat.t7_runs import SHORTEST_RUN, EntryShape, Patience, read_run
from lua_compat.t7_source import MISSING, BinarySource

NUMBER_TO_NUMBER = EntryShape(1, 1, 24)


def numbers(pairs: list[tuple[float, float]], order: str = "<") -> bytes:
    return b"".join(struct.pack(f"{order}idid", 1, key, 1, value) for key, value in pairs)


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers(order: str) -> None:
    pairs = [(index, index / 2) for index in range(100)]
    entries: dict[object, object] = {}
    assert read_run(numbers(pairs, order), 0, order, NUMBER_TO_NUMBER, 100, entries, KeyGuard()) == (100, 2400)
    assert entries == dict(pairs)
    assert {type(key) for key in entries} == {int}
    assert [type(entries[index]) for index in (2, 3)] == [int, float]


def test_a_run_ends_where_the_shape_changes() -> None:
    data = numbers([(index, 1) for index in range(40)]) + struct.pack("<ii", 2, 0) + bytes(100)
    entries: dict[object, object] = {}
    assert read_run(data, 0, "<", NUMBER_TO_NUMBER, 1000, entries, KeyGuard()) == (40, 960)
    assert len(entries) == 40


def test_a_run_ends_before_a_nan_key() -> None:
    data = numbers([(1, 1), (2, 2), (float("nan"), 3), (4, 4)])
    assert read_run(data, 0, "<", NUMBER_TO_NUMBER, 4, {}, KeyGuard()) == (2, 48)


def test_minus_zero_is_the_key_0_but_stays_a_value() -> None:
    entries: dict[object, object] = {}
    read_run(numbers([(-0.0, -0.0)]), 0, "<", NUMBER_TO_NUMBER, 1, entries, KeyGuard())
    assert repr(entries) == "{0: -0.0}"


def packed(item: object, order: str) -> bytes:
    """A key or value as it stands in a file."""
    if isinstance(item, bool):
        return struct.pack(f"{order}ii", 5, item)
    if isinstance(item, (int, float)):
        return struct.pack(f"{order}id", 1, item)
    raw = item.encode() if isinstance(item, str) else item
    return struct.pack(f"{order}ii", 2, len(raw)) + raw


WORDS = ["", "abc", "größe", "a" * 300, b"\xff\xfe", "zero\0byte", "\2\0\0\0", "\0\0\0\2", "ends in \2"]
HARD_WORDS = [*WORDS, packed(1, "<") + packed("x", "<"), packed("k", ">") + packed(True, ">")]  # entries of their own


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kinds", ["ns", "sn", "ss", "sb", "nb"])
@pytest.mark.parametrize("words", [["name"], WORDS, HARD_WORDS])
def test_the_same_as_one_by_one(kinds: str, order: str, words: list[str | bytes]) -> None:
    """Through the reader of whole tables, which goes on by itself where a string looks like the start of an entry."""
    count = 500
    items = {
        "n": [index - 100.5 * (index % 3) for index in range(count)],
        "b": [index % 5 < 2 for index in range(count)],
        "s": [words[index % len(words)] for index in range(count)],
    }
    unique = [f"{index}" + "k" * (index % 50) for index in range(count)]
    keys, values = unique if kinds[0] == "s" else items["n"], items[kinds[1]]
    data = b"".join(packed(key, order) + packed(value, order) for key, value in zip(keys, values, strict=True))
    layout = Layout(byte_order="little" if order == "<" else "big")
    found: dict[Any, Any] = {}
    source = BinarySource(data + b"rest", layout)
    assert source.read_entries(found, count) == (0, MISSING)
    assert source.position == len(data)
    assert list(found.items()) == [(key, table_value(value)) for key, value in zip(keys, values, strict=True)]


def table_value(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


@pytest.mark.parametrize("words", [["name", "of varied", "length"], HARD_WORDS[:2]])
def test_runs_of_strings_are_read_together(words: list[str]) -> None:
    items = [packed(index, "<") + packed(words[index % len(words)], "<") for index in range(3000)]
    entries: dict[object, object] = {}
    data = b"".join(items) + b"\1\0\0\0"
    run = read_run(data, 0, "<", EntryShape(1, 2, 30), 5000, entries, KeyGuard())
    assert run == (3000, len(data) - 4)
    assert list(entries.values()) == [words[index % len(words)] for index in range(3000)]


@pytest.mark.parametrize("length", [-1, -12, -20, 8, 2**31 - 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_run_ends_before_a_length_that_cannot_be(length: int, order: str) -> None:
    """By -12 and -20 the next entry would begin where one begins already."""
    good = packed(1, order) + packed("abc", order)
    bad = struct.pack(f"{order}idii", 1, 2, 2, length) + b"abc"
    for tail in (b"", 3 * good):
        if length == 8 and tail:
            continue  # 8 bytes are there
        data = 2 * good + bad + tail
        assert read_run(data, 0, order, EntryShape(1, 2, 23), 9, {}, KeyGuard()) == (2, 2 * len(good))


def test_patience_grows_with_failures() -> None:
    patience = Patience(8)
    waits = []
    for taken in (0, 0, SHORTEST_RUN, 0):
        patience.note(taken)
        waits.append(patience.left)
    assert waits == [2 * SHORTEST_RUN, 4 * SHORTEST_RUN, 1, 2]
