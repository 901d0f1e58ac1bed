"""Every stream of real Torch7's generator, bit for bit (golden/rng.json, golden/format_more/gen.t7)."""

import json
import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lua_compat.generator as generator_module
from lua_compat.errors import GeneratorError
from lua_compat.generator import STATE_LAYOUT, Generator
from lua_compat.values import TorchObject

SEEDS = ["0", "1", "2", "42", "5489"]
Draw = Callable[[Generator, int], list[Any]]
Streams = dict[str, dict[str, list[float]]]  # seed -> name of the draw -> values


def scalars(name: str, *arguments: float) -> Draw:
    return lambda generator, count: [getattr(generator, name)(*arguments) for _ in range(count)]


def filled(name: str, dtype: str, *arguments: float) -> Draw:
    return lambda generator, count: getattr(generator, name)(np.empty(count, dtype), *arguments).tolist()


def mixed(generator: Generator, count: int) -> list[Any]:
    """What rng.json's `mixed` interleaves (order seen in its values; tensors are FloatTensors there)."""
    values = [generator.normal(), generator.uniform(), generator.normal(), generator.random(1, 6)]
    return [*values, generator.normal(), float(generator.randn(3)[1])][:count]


# Each stream of rng.json, drawn one by one and as one fill where Torch7 has both.
STREAMS: list[tuple[str, Draw]] = [
    ("random", scalars("random")),
    ("random", filled("fill_random", "int64")),  # modulo 2**63: the words themselves
    ("random_1_10", scalars("random", 1, 10)),
    ("random_1_10", filled("fill_random", "int64", 1, 10)),
    ("random_7", scalars("random", 7)),
    ("random_7", filled("fill_random", "uint8", 7)),
    ("uniform", scalars("uniform")),
    ("uniform", filled("fill_uniform", "float64")),
    ("uniform_-2_5", scalars("uniform", -2, 5)),
    ("uniform_-2_5", filled("fill_uniform", "float64", -2, 5)),
    ("normal", scalars("normal")),
    ("normal", filled("fill_normal", "float64")),
    ("normal_3_0.5", scalars("normal", 3, 0.5)),
    ("normal_3_0.5", filled("fill_normal", "float64", 3, 0.5)),
    ("exponential_2", scalars("exponential", 2)),
    ("exponential_2", filled("fill_exponential", "float64", 2)),
    ("cauchy_0_1", scalars("cauchy", 0, 1)),
    ("cauchy_0_1", filled("fill_cauchy", "float64", 0, 1)),
    ("logNormal_1_0.5", scalars("log_normal", 1, 0.5)),
    ("logNormal_1_0.5", filled("fill_log_normal", "float64", 1, 0.5)),
    ("geometric_0.3", scalars("geometric", 0.3)),
    ("geometric_0.3", filled("fill_geometric", "int32", 0.3)),
    ("bernoulli_0.3", scalars("bernoulli", 0.3)),
    ("bernoulli_0.3", filled("fill_bernoulli", "uint8", 0.3)),
    ("randperm_20", lambda generator, count: generator.randperm(count).tolist()),
    ("float_rand_5", lambda generator, count: generator.rand(count).tolist()),
    ("float_randn_17", lambda generator, count: generator.randn(count).tolist()),
    ("double_rand_5", lambda generator, count: generator.rand(count, dtype=np.float64).tolist()),
    ("double_randn_17", lambda generator, count: generator.randn(count, dtype=np.float64).tolist()),
    ("float_uniform_-0.1_0.1_9", filled("fill_uniform", "float32", -0.1, 0.1)),
    ("float_bernoulli_0.9_20", filled("fill_bernoulli", "float32", 0.9)),
    ("long_random_9", filled("fill_random", "int64", 1000)),
    ("mixed", mixed),
]


@pytest.fixture(scope="module")
def streams(golden: Path) -> Streams:
    data: Streams = json.loads((golden / "rng.json").read_text())
    return data


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_stream_is_torch7s(streams: Streams, seed: str, name: str, draw: Draw) -> None:
    expected = streams[seed][name]
    assert draw(Generator(int(seed)), len(expected)) == expected


def test_every_recorded_stream_is_tested(streams: Streams) -> None:
    assert set(streams) == set(SEEDS)
    assert {name for values in streams.values() for name in values} == {name for name, _ in STREAMS}


def reference_normals(words: list[int], mean: float, std: float) -> list[float]:
    """THRandom_normal written out over recorded words, on the C library's functions."""
    values = []
    for x, y in zip(words[0::2], words[1::2], strict=True):
        radius = math.sqrt(-2.0 * math.log(1.0 - y * 2.0**-32))
        angle = 2.0 * math.pi * (x * 2.0**-32)
        values += [radius * math.cos(angle) * std + mean, radius * math.sin(angle) * std + mean]
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.5, 0.03)])
def test_a_long_fill_equals_the_c_librarys_values(dtype: str, mean: float, std: float) -> None:
    count = 300_000  # several chunks
    source = Generator(11)
    words = [source.random() for _ in range(count)]
    mean, std = float(np.dtype(dtype).type(mean)), float(np.dtype(dtype).type(std))
    expected = np.array(reference_normals(words, mean, std)).astype(dtype)
    actual = Generator(11).fill_normal(np.empty(count, dtype), mean, std)
    assert np.array_equal(actual.view(f"u{actual.itemsize}"), expected.view(f"u{actual.itemsize}"))


def test_values_in_doubt_are_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a logarithm that is off, and a bound that allows for it, the floats are still the C library's.

    An error of 2**-36 moves about one float in 2**14 of a million; the bound of the module is 256 times smaller.
    """
    expected = Generator(3).randn(1_000_001)
    true_log = np.log
    monkeypatch.setattr(np, "log", lambda value: true_log(value) * (1 + 2.0**-36))
    assert not np.array_equal(Generator(3).randn(1_000_001), expected), "the error shows without the repair"
    monkeypatch.setattr(generator_module, "VECTOR_MATH_ERROR", 2.0**-36)
    assert np.array_equal(Generator(3).randn(1_000_001), expected)


def test_vectorised_functions_keep_well_inside_the_bound() -> None:
    """log, cos and sin of this machine's NumPy against the C library, over the range that normals use."""
    units = np.arange(0.5, 200_000) / 200_000
    for vectorised, exact, values in (
        (np.log, math.log, 1.0 - units),
        (np.cos, math.cos, 2.0 * math.pi * units),
        (np.sin, math.sin, 2.0 * math.pi * units),
    ):
        expected = np.array([exact(value) for value in values.tolist()])
        difference = np.abs(vectorised(values) - expected)
        scale = np.abs(expected) if exact is math.log else 1.0  # the radius takes the logarithm's relative error
        assert np.max(difference / scale) <= generator_module.VECTOR_MATH_ERROR / 64


@pytest.mark.parametrize("split", [0, 1, 2, 7, 65_535, 65_536, 65_537])
def test_a_fill_in_two_parts_is_one_fill(split: int) -> None:
    """The second value of a pair is kept from one fill to the next, and by fills of no element."""
    total = 70_001
    parts = Generator(5)
    values = np.concatenate([parts.randn(split), parts.randn(0), parts.randn(total - split)])
    whole = Generator(5)
    assert np.array_equal(values, whole.randn(total))
    assert parts.state == whole.state


def test_uniform_draws_do_not_disturb_a_kept_normal() -> None:
    generator = Generator(9)
    source = Generator(9)
    words = [source.random() for _ in range(3)]
    first, second = reference_normals(words[:2], 0.0, 1.0)
    assert generator.normal() == first
    assert generator.random() == words[2]
    assert generator.normal() == second


def test_the_kept_normal_takes_the_next_draws_mean_and_deviation() -> None:
    words = [(source := Generator(4)).random(), source.random()]
    generator = Generator(4)
    generator.normal()
    assert generator.normal(10.0, 2.0) == reference_normals(words, 10.0, 2.0)[1]


def test_a_fill_follows_the_arrays_own_order() -> None:
    """A transposed array is filled row by row, as TH_TENSOR_APPLY walks it."""
    turned = np.empty((4, 6), np.float32).T
    Generator(2).fill_uniform(turned)
    assert np.array_equal(turned, Generator(2).rand(6, 4))


def test_float_fills_round_their_parameters_first() -> None:
    """FloatTensor:normal(0, 0.01) draws with the float 0.01 (TensorMath.lua: of the tensor's type)."""
    source = Generator(6)
    words = [source.random() for _ in range(64)]
    expected = np.array(reference_normals(words, 0.0, float(np.float32(0.01)))).astype(np.float32)
    assert np.array_equal(Generator(6).fill_normal(np.empty(64, np.float32), 0.0, 0.01), expected)


@pytest.mark.parametrize(
    ("dtype", "modulus"),
    [
        ("uint8", 256),
        ("int8", 128),
        ("int16", 32768),
        ("int32", 2**31),
        ("int64", 2**63),
        ("float32", 2**24 + 1),
        ("float64", 2**53 + 1),
    ],
)
def test_unbounded_fill_uses_the_types_range(dtype: str, modulus: int) -> None:
    source = Generator(8)
    expected = [source.random() % modulus for _ in range(100)]
    assert Generator(8).fill_random(np.empty(100, dtype)).tolist() == expected


def test_bernoulli_counts_equality_as_success() -> None:
    """THRandom_bernoulli compares with <=."""
    chance = Generator(12).uniform()
    assert Generator(12).bernoulli(chance) == 1
    assert Generator(12).bernoulli(chance - 2.0**-33) == 0
    assert Generator(12).fill_bernoulli(np.empty(1), chance)[0] == 1


def test_bernoulli_with_a_probability_each() -> None:
    chances = np.array([[0.0, 1.0, 0.5], [0.25, 0.75, 0.1]], np.float32)
    source = Generator(12)
    expected = [int(source.uniform() <= chance) for chance in chances.reshape(-1).tolist()]
    assert Generator(12).fill_bernoulli(np.empty((2, 3), np.uint8), chances).reshape(-1).tolist() == expected


# ---- state ----


def test_reads_and_writes_a_torch_generator_of_a_file(golden: Path) -> None:
    raw = (golden / "format_more" / "gen.t7").read_bytes()[-5048:]  # the bare structure ends the file
    generator = Generator.from_t7(TorchObject("torch.Generator", raw))
    assert generator.state == raw
    assert generator.to_t7().typename == "torch.Generator"
    assert generator.to_t7().payload == raw
    assert generator.initial_seed == 0xF8CB97010C135EBC  # first eight bytes of the structure, little-endian


@pytest.mark.parametrize("draws", [0, 1, 2, 3, 623, 624, 625, 1248, 1249])
def test_state_restores_the_stream(draws: int) -> None:
    generator = Generator(21)
    for _ in range(draws):
        generator.random()
    generator.normal()
    kept = generator.state
    expected = [generator.normal(), generator.uniform(), generator.normal()]
    other = Generator(0)
    other.state = kept
    assert other.state == kept
    assert [other.normal(), other.uniform(), other.normal()] == expected
    copy = Generator.from_t7(TorchObject("torch.Generator", kept))
    assert [copy.normal(), copy.uniform(), copy.normal()] == expected
    assert copy.initial_seed == 21


@pytest.mark.parametrize("draws", [0, 1, 623, 624, 625])
def test_counters_of_the_state_are_torch7s(draws: int) -> None:
    """left = 1, next = 0 after seeding; each draw lowers left and raises next; a new block starts at 624, 0
    (THRandom_manualSeed, THRandom_nextState, THRandom_random followed by hand)."""
    left, following = 1, 0
    generator = Generator(1)
    for _ in range(draws):
        generator.random()
        left -= 1
        if left == 0:
            left, following = 624, 0
        following += 1
    seed, actual_left, seeded, actual_following, *_ = STATE_LAYOUT.unpack(generator.state)
    assert (seed, actual_left, seeded, actual_following) == (1, left, 1, following)


def test_seeding_again_starts_over_and_forgets_the_kept_normal() -> None:
    generator = Generator(7)
    first = [generator.normal(), generator.normal(), generator.normal()]
    generator.manual_seed(7)
    assert [generator.normal(), generator.normal(), generator.normal()] == first


def test_only_the_low_32_bits_of_a_seed_count() -> None:
    assert Generator(2**32 + 5).random() == Generator(5).random()
    assert Generator(-1).random() == Generator(2**32 - 1).random()


def test_without_a_seed_streams_differ() -> None:
    assert len({Generator().random() for _ in range(5)}) > 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found 0"),
        (bytes(5047), "5048 bytes"),
        (bytes(5048), "not a valid generator state"),
        (struct.pack("<QiiQ", 1, 625, 1, 0) + bytes(5024), "left 625"),
        (struct.pack("<QiiQ", 1, 10, 1, 3) + bytes(5024), "next 3"),
        (struct.pack("<QiiQQ", 1, 1, 1, 0, 2**32) + bytes(5016), "not a valid"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(data: bytes, message: str) -> None:
    generator = Generator(1)
    before = generator.state
    with pytest.raises(GeneratorError, match=message):
        generator.state = data
    assert generator.state == before


def test_another_object_is_no_generator() -> None:
    with pytest.raises(GeneratorError, match=r"expected a torch\.Generator"):
        Generator.from_t7(TorchObject("nn.Linear", {"bias": 1}))
    with pytest.raises(GeneratorError, match=r"expected a torch\.Generator"):
        Generator.from_t7(TorchObject("torch.Generator", {"bias": 1}))


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.random(0),
        lambda g: g.random(5, 4),
        lambda g: g.random(None, 4),
        lambda g: g.normal(0, 0),
        lambda g: g.log_normal(0, -1),
        lambda g: g.exponential(0),
        lambda g: g.geometric(0),
        lambda g: g.geometric(1),
        lambda g: g.bernoulli(1.5),
        lambda g: g.randperm(0),
        lambda g: g.fill_normal(np.empty(3), 0, 0),
        lambda g: g.fill_normal(np.empty(3, np.int64)),
        lambda g: g.fill_random(np.empty(3, np.float16)),
        lambda g: g.fill_bernoulli(np.empty(3), np.array([0.1, 0.2])),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[Generator], object]) -> None:
    generator = Generator(1)
    with pytest.raises(GeneratorError):
        call(generator)
    assert generator.random() == Generator(1).random()  # and no word was used up


def test_extreme_draws() -> None:
    assert Generator(1).log_normal(1e6, 1.0) == math.inf
    assert Generator(3).randperm(1).tolist() == [1]


def test_a_million_normals_take_well_under_a_second() -> None:
    """Measured 0.03 s (float32) and 0.2 s (float64) of this thread's own time, which a busy machine adds little to."""
    for dtype, bound in (("float32", 0.5), ("float64", 1.0)):
        array = np.empty(1_000_000, dtype)
        generator = Generator(1)
        seconds = []
        for _ in range(3):
            start = time.thread_time()
            generator.fill_normal(array)
            seconds.append(time.thread_time() - start)
        assert min(seconds) < bound
