"""Numbers chosen to be slow as keys of a Python dictionary are refused; honest ones never."""

import struct
import time

import numpy as np
import numpy.typing as npt
import pytest

import lua_compat
from lua_compat.t7_key_guard import LEFT_OVER, keys_without_place

PLACES = 1 << 16


def slow_keys() -> npt.NDArray[np.float64]:
    """Numbers that fill two thirds of the `PLACES` of a dictionary, each later one a step of an ever longer way.

    A dictionary tries the place `hash % PLACES`, and after it 5 * place + perturb + 1, with perturb = hash >> 5, >> 10,
    ... until nothing is left of it. The first half fills places 0, 1, 6, 31, ..., which follow one another then. The
    second half meets only those on its first tries, and comes to one of the first of them at the end of perturb.
    """
    count = PLACES // 3 + 10
    way = [0]
    while len(way) < count:
        way.append((5 * way[-1] + 1) % PLACES)
    step_at = np.full(PLACES, count)
    step_at[way] = np.arange(count)
    numbers = np.arange(PLACES, 1 << 24)
    place, perturb = numbers % PLACES, numbers.copy()
    while perturb.any():
        is_taken = step_at[place] < count
        numbers, place, perturb = numbers[is_taken], place[is_taken], perturb[is_taken] >> 5
        place = (5 * place + perturb + 1) % PLACES
    slow = numbers[np.argsort(step_at[place], kind="stable")]
    return np.concatenate([way, slow[: PLACES // 3 - 20]]).astype(np.float64)


KEYS = slow_keys()
VALUES = {
    "numbers": (struct.pack("<id", 1, 0.5), struct.pack("<id", 1, 0.5)),
    "strings": (struct.pack("<ii", 2, 3) + b"abc", struct.pack("<ii", 2, 4) + b"abcd"),
    "one table": (struct.pack("<ii", 3, 1), struct.pack("<ii", 3, 1)),
    "a table and two numbers": (struct.pack("<ii", 3, 1), struct.pack("<id", 1, 0), struct.pack("<id", 1, 0)),
}


def file_with(keys: npt.NDArray[np.float64], values: tuple[bytes, ...]) -> bytes:
    """A table whose values are `values` in turns."""
    entries = [struct.pack("<id", 1, key) + values[index % len(values)] for index, key in enumerate(keys)]
    return struct.pack("<iii", 3, 1, len(keys)) + b"".join(entries)


@pytest.mark.parametrize("kind", VALUES)
def test_keys_that_meet_are_refused_in_time(kind: str) -> None:
    """The whole table would take 2 to 3 s, nearly all of it for the keys."""
    data = file_with(KEYS, VALUES[kind])
    start = time.thread_time()
    with pytest.raises(lua_compat.T7Error, match="numbers chosen to be slow"):
        lua_compat.loads(data)
    assert time.thread_time() - start < 1.5  # 0.3 s where the machine is quiet


def test_few_keys_that_meet_are_read() -> None:
    assert len(lua_compat.loads(file_with(KEYS[:3000], VALUES["numbers"]))) == 3000


def test_slow_keys_find_no_place() -> None:
    assert len(KEYS) == len(set(KEYS)) == 2 * (PLACES // 3) - 10
    first = KEYS[: 6 * len(KEYS) // 10].astype(int).tolist()  # one in six is slow; all of them would take seconds
    assert keys_without_place(dict.fromkeys(first)) > 0.1 * len(first)


@pytest.mark.parametrize(
    "keys",
    [
        np.arange(1, 90_001),
        np.arange(90_000) / 1000,
        np.arange(87_000) * 2.0**33,
        2.0**40 + 4096 * np.arange(87_000),
        np.arange(87_000) * 2.0**-20,
        np.arange(-45_000, 45_000) ** 3,
        np.random.default_rng(1).random(87_000),
        (np.float64(2) ** np.arange(-500, 500, 3))[:, None] * np.arange(1, 520, 2),
    ],
    ids=["list", "thousandths", "multiples of 2^33", "addresses", "multiples of 2^-20", "cubes", "random", "powers"],
)
def test_honest_numbers_find_their_place(keys: npt.NDArray[np.float64]) -> None:
    entries = dict.fromkeys(int(key) if key == np.rint(key) else float(key) for key in keys.ravel())
    assert keys_without_place(entries) < LEFT_OVER / 4 * len(entries)


def test_strings_do_not_count() -> None:
    assert keys_without_place(dict.fromkeys(map(str, range(10_000)))) == 0
