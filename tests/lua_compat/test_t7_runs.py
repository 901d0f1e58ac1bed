"""Runs of like entries: the same as entry by entry, and no more than the run."""

import struct

import pytest

from lua_compat.t7_key_guard import KeyGuard
from lua_compat.t7_runs import SHORTEST_RUN, EntryShape, Patience, read_run

NUMBER_TO_NUMBER = EntryShape(1, 0, 1, 0)


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


@pytest.mark.parametrize("text", ["abcd", "größe", ""])
def test_strings_and_booleans(text: str) -> None:
    raw = text.encode()
    key = struct.pack("<id", 1, 0)
    rows = [key[:4] + struct.pack("<dii", index, 2, len(raw)) + raw for index in range(SHORTEST_RUN)]
    entries: dict[object, object] = {}
    shape = EntryShape(1, 0, 2, len(raw))
    assert read_run(b"".join(rows), 0, "<", shape, SHORTEST_RUN, entries, KeyGuard())[0] == SHORTEST_RUN
    assert entries == dict.fromkeys(range(SHORTEST_RUN), text)
    flags = b"".join(struct.pack("<ii2sii", 2, 2, b"%02d" % index, 5, index % 3) for index in range(30))
    entries = {}
    read_run(flags, 0, "<", EntryShape(2, 2, 5, 0), 30, entries, KeyGuard())
    assert [entries[f"{index:02d}"] for index in range(4)] == [False, True, False, False]


def test_patience_grows_with_failures() -> None:
    patience = Patience(8)
    waits = []
    for taken in (0, 0, SHORTEST_RUN, 0):
        patience.note(taken)
        waits.append(patience.left)
    assert waits == [2 * SHORTEST_RUN, 4 * SHORTEST_RUN, 1, 2]
