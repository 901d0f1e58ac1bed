"""Torch7's random generator, bit for bit, on NumPy's MT19937.

Ports lib/TH/THRandom.c (the scalar draws), generic/THTensorRandom.c and `randperm` of generic/THTensorMath.c
(the fills), and Generator.c (the state in files). A draw takes 32-bit words from one Mersenne Twister stream:
one word each, but two for every other normal (Box-Muller gives a pair and keeps the second).
"""

import math
import secrets
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lua_compat.errors import GeneratorError
from lua_compat.values import TorchObject

__all__ = ["Generator"]

STATE_WORDS = 624
# struct THGenerator on a machine with 8-byte longs: the_initial_seed, left, seeded, next, state, normal_x,
# normal_y, normal_rho, normal_is_valid, padding. Files have it as it lies in memory, whatever their mode.
STATE_LAYOUT = struct.Struct(f"<QiiQ{STATE_WORDS}Q3di4x")
CHUNK = 1 << 16  # elements filled at a time, so that the intermediate arrays stay in the processor's cache
# Bound on how far NumPy's log, cos and sin may take a normal from the C library's, relative to its radius.
# Measured: 1 unit of the 53rd bit; assumed: some 256 units, which costs one repair in half a million draws.
VECTOR_MATH_ERROR = 2.0**-44
# THTensor_(random): what an unbounded draw is taken modulo of, by element type.
RANDOM_MODULUS = {
    "uint8": 2**8,
    "int8": 2**7,
    "int16": 2**15,
    "int32": 2**31,
    "int64": 2**63,
    "float32": 2**24 + 1,
    "float64": 2**53 + 1,
}

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


class Generator:
    """One random stream, equal to Torch7's after `torch.manualSeed(seed)`.

    Scalar draws return Python numbers. `fill_*` write into an existing array of any shape in its row-major
    order, as Torch7's `tensor:normal(...)` does, and return it; parameters of a fill are first rounded to the
    array's element type, as there. Without a seed the system gives one. Bad arguments raise `GeneratorError`.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.manual_seed(secrets.randbits(32) if seed is None else seed)

    # ---- seed and state ----

    def manual_seed(self, seed: int) -> None:
        """THRandom_manualSeed: restart the stream; the low 32 bits of `seed` count. Forgets a kept normal."""
        self._initial_seed = int(seed) % 2**64  # negative seeds wrap as a C unsigned long does
        self._bits = _twister(_seeded_words(self._initial_seed), position=STATE_WORDS)
        self._normal_x = self._normal_y = self._normal_radius = 0.0
        self._has_kept_normal = False

    @property
    def initial_seed(self) -> int:
        """The seed the stream started from (torch.initialSeed)."""
        return self._initial_seed

    @property
    def state(self) -> bytes:
        """The whole state: the 5048 bytes of torch.getRNGState(). Assigning them restores the stream."""
        inner: Any = self._bits.state["state"]
        words, position = inner["key"].tolist(), int(inner["pos"])
        # A stream that was seeded and never drawn from has next = 0; used up to the block's end, next = 624.
        untouched = position == STATE_WORDS and words == _seeded_words(self._initial_seed)
        return STATE_LAYOUT.pack(
            self._initial_seed,
            STATE_WORDS + 1 - position,
            1,
            0 if untouched else position,
            *words,
            self._normal_x,
            self._normal_y,
            self._normal_radius,
            self._has_kept_normal,
        )

    @state.setter
    def state(self, value: bytes) -> None:
        self._restore(value)

    def to_t7(self) -> TorchObject:
        """The torch.Generator that `lua_compat.save` writes: its payload is `state` (Generator.c)."""
        return TorchObject("torch.Generator", self.state)

    @classmethod
    def from_t7(cls, saved: TorchObject) -> "Generator":
        """A generator from a torch.Generator read by `lua_compat.load`; `GeneratorError` where it is none."""
        if saved.typename != "torch.Generator" or not isinstance(saved.payload, bytes):
            raise GeneratorError(f"expected a torch.Generator and its bytes, found {saved!r}")
        generator = cls(0)
        generator.state = saved.payload
        return generator

    def _restore(self, data: bytes) -> None:
        if len(data) != STATE_LAYOUT.size:
            raise GeneratorError(
                f"a generator's state has {STATE_LAYOUT.size} bytes (on a machine with 8-byte longs), found {len(data)}"
            )
        seed, left, seeded, following, *rest = STATE_LAYOUT.unpack(data)
        words, (normal_x, normal_y, radius, has_kept) = rest[:STATE_WORDS], rest[STATE_WORDS:]
        # THGenerator_isValid, and what it leaves out: words have 32 bits, `next` and `left` tell one place.
        consistent = following == STATE_WORDS + 1 - left or (left == 1 and following == 0)
        if seeded != 1 or not 0 < left <= STATE_WORDS or not consistent or max(words) >= 2**32:
            raise GeneratorError(f"not a valid generator state (seeded {seeded}, left {left}, next {following})")
        self._initial_seed = seed
        self._bits = _twister(words, position=STATE_WORDS + 1 - left)
        self._normal_x, self._normal_y, self._normal_radius = normal_x, normal_y, radius
        self._has_kept_normal = bool(has_kept)

    # ---- scalar draws ----

    def random(self, first: int | None = None, last: int | None = None) -> int:
        """random(): a raw 32-bit word; random(b): 1..b; random(a, b): a..b included (THRandom_random)."""
        low, count = _random_range(first, last)
        word = int(self._bits.random_raw())
        return word if count is None else word % count + low

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Uniform in [low, high) with 32 random bits (THRandom_uniform)."""
        return self._unit() * (high - low) + low

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """Box-Muller: cosine of a fresh pair, then the sine of the same pair (THRandom_normal)."""
        _require_positive(std)
        if self._has_kept_normal:
            self._has_kept_normal = False
            wave = math.sin
        else:
            self._normal_x = self._unit()
            self._normal_y = self._unit()
            self._normal_radius = _radius(self._normal_y)
            self._has_kept_normal = True
            wave = math.cos
        return self._normal_radius * wave(2.0 * math.pi * self._normal_x) * std + mean

    def exponential(self, rate: float) -> float:
        """Exponential with mean 1/rate (THRandom_exponential)."""
        return _exponential(rate)(self._unit())

    def cauchy(self, median: float = 0.0, sigma: float = 1.0) -> float:
        """Cauchy with half-width sigma (THRandom_cauchy)."""
        return _cauchy(median, sigma)(self._unit())

    def log_normal(self, mean: float = 1.0, std: float = 2.0) -> float:
        """exp of a normal(mean, std) (THRandom_logNormal); takes part in the pairs of `normal`."""
        return _exp(self.normal(mean, std))

    def geometric(self, p: float) -> int:
        """1, 2, ...: number of the first success (THRandom_geometric)."""
        return _geometric(p)(self._unit())

    def bernoulli(self, p: float = 0.5) -> int:
        """1 with probability p, else 0 (THRandom_bernoulli)."""
        _require(0 <= p <= 1, f"a probability lies between 0 and 1, found {p}")
        return int(self._unit() <= p)

    # ---- whole arrays ----

    def randperm(self, n: int) -> npt.NDArray[np.int64]:
        """The numbers 1..n in random order (torch.randperm); takes n - 1 words."""
        _require(n > 0, f"randperm needs a number above 0, found {n}")
        order = list(range(1, n + 1))
        words = self._bits.random_raw(n - 1).astype(np.int64)
        for place, step in enumerate((words % np.arange(n, 1, -1)).tolist()):
            order[place], order[place + step] = order[place + step], order[place]
        return np.array(order, dtype=np.int64)

    def rand(self, *size: int, dtype: npt.DTypeLike = np.float32) -> Array:
        """A new array of `size`, uniform in [0, 1) (torch.rand); float32 values may round up to 1."""
        return self.fill_uniform(np.empty(size, dtype))

    def randn(self, *size: int, dtype: npt.DTypeLike = np.float32) -> Array:
        """A new array of `size`, standard normal (torch.randn)."""
        return self.fill_normal(np.empty(size, dtype))

    def fill_random(self, array: Array, first: int | None = None, last: int | None = None) -> Array:
        """tensor:random([a,] b); without bounds the range is that of the element type (THTensor_random)."""
        low, count = _random_range(first, last)
        if count is None:
            _require(array.dtype.name in RANDOM_MODULUS, f"Torch7 has no tensor of {array.dtype.name}")
            count = RANDOM_MODULUS[array.dtype.name]
        modulus = np.uint64(count)
        return self._fill(array, lambda n: (self._bits.random_raw(n) % modulus).astype(np.int64) + low)

    def fill_uniform(self, array: Array, low: float = 0.0, high: float = 1.0) -> Array:
        """tensor:uniform(low, high); float32 or float64."""
        low, high = _rounded(array, low), _rounded(array, high)
        return self._fill(array, lambda n: self._units(n) * (high - low) + low)

    def fill_normal(self, array: Array, mean: float = 0.0, std: float = 1.0) -> Array:
        """tensor:normal(mean, std); float32 or float64. A kept second value comes first."""
        mean, std = _rounded(array, mean), _rounded(array, std)
        _require_positive(std)
        exact = array.dtype != np.float32
        return self._fill(array, lambda n: self._normals(n, mean, std, exact))

    def fill_exponential(self, array: Array, rate: float) -> Array:
        """tensor:exponential(rate); float32 or float64."""
        return self._fill_each(array, _exponential(_rounded(array, rate)))

    def fill_cauchy(self, array: Array, median: float = 0.0, sigma: float = 1.0) -> Array:
        """tensor:cauchy(median, sigma); float32 or float64."""
        return self._fill_each(array, _cauchy(_rounded(array, median), _rounded(array, sigma)))

    def fill_log_normal(self, array: Array, mean: float = 1.0, std: float = 2.0) -> Array:
        """tensor:logNormal(mean, std); float32 or float64."""
        mean, std = _rounded(array, mean), _rounded(array, std)
        _require_positive(std)
        return self._fill(array, lambda n: _map(_exp, self._normals(n, mean, std, exact=True)))

    def fill_geometric(self, array: Array, p: float) -> Array:
        """tensor:geometric(p); any element type."""
        return self._fill_each(array, _geometric(p))

    def fill_bernoulli(self, array: Array, p: float | Array = 0.5) -> Array:
        """tensor:bernoulli(p): ones and zeros, any element type; `p` may be an array of the same size."""
        chances = np.asarray(p, dtype=np.float64)
        _require(bool(np.all((chances >= 0) & (chances <= 1))), "a probability lies between 0 and 1")
        if chances.ndim:
            _require(chances.size == array.size, f"{chances.size} probabilities for {array.size} elements")
            array[...] = (self._units(array.size) <= chances.reshape(-1)).reshape(array.shape)
            return array
        return self._fill(array, lambda n: self._units(n) <= chances)

    # ---- from words to numbers ----

    def _unit(self) -> float:
        """The next word as a number in [0, 1)."""
        return int(self._bits.random_raw()) * 2.0**-32

    def _units(self, count: int) -> Doubles:
        return self._bits.random_raw(count).astype(np.float64) * 2.0**-32

    def _fill(self, array: Array, draw: Callable[[int], Array]) -> Array:
        """Write draw(count) chunk after chunk into `array`, in row-major order."""
        flat = array.reshape(-1) if array.flags.c_contiguous else np.empty(array.size, array.dtype)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            part[...] = draw(part.size)
        if not array.flags.c_contiguous:
            array[...] = flat.reshape(array.shape)
        return array

    def _fill_each(self, array: Array, formula: Callable[[float], float]) -> Array:
        return self._fill(array, lambda n: _map(formula, self._units(n)))

    def _normals(self, count: int, mean: float, std: float, exact: bool) -> Doubles:
        """`count` normals, the C library's bit for bit: as doubles if `exact`, else once rounded to float."""
        kept = [self.normal(mean, std)] if self._has_kept_normal and count else []
        fresh = count - len(kept)
        units = self._units(2 * ((fresh + 1) // 2))
        pairs = (_exact_pairs if exact else _float_pairs)(units[0::2], units[1::2], mean, std)
        if fresh:
            self._normal_x, self._normal_y = float(units[-2]), float(units[-1])
            self._normal_radius = _radius(self._normal_y)
            self._has_kept_normal = fresh % 2 == 1
        return np.concatenate([np.array(kept), pairs[:fresh]])


# ---- seeding ----


def _seeded_words(seed: int) -> list[int]:
    """Knuth's initialisation of the Mersenne Twister (init_genrand; THRandom_manualSeed)."""
    words = [seed & 0xFFFFFFFF]
    for place in range(1, STATE_WORDS):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + place) & 0xFFFFFFFF)
    return words


def _twister(words: list[int], position: int) -> np.random.MT19937:
    bits = np.random.MT19937()
    bits.state = {
        "bit_generator": "MT19937",
        "state": {"key": np.array(words, dtype=np.uint32), "pos": position},
    }
    return bits


# ---- formulas of one draw, on the C library's functions (Python's math calls them) ----


def _radius(y: float) -> float:
    return math.sqrt(-2.0 * math.log(1.0 - y))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:  # C gives infinity
        return math.inf


def _exponential(rate: float) -> Callable[[float], float]:
    _require(rate != 0, "the rate of an exponential cannot be 0")
    return lambda unit: -1.0 / rate * math.log(1 - unit)


def _cauchy(median: float, sigma: float) -> Callable[[float], float]:
    return lambda unit: median + sigma * math.tan(math.pi * (unit - 0.5))


def _geometric(p: float) -> Callable[[float], int]:
    _require(0 < p < 1, f"geometric needs a probability above 0 and below 1, found {p}")
    return lambda unit: int(math.log(1 - unit) / math.log(p)) + 1


# ---- many at once ----


def _map(formula: Callable[[float], float], values: Array) -> Doubles:
    return np.fromiter(map(formula, values.tolist()), np.float64, values.size)


def _exact_pairs(x: Array, y: Array, mean: float, std: float) -> Array:
    """Interleaved cosine and sine normals, every function the C library's: 0.2 microseconds a value."""
    radius = np.sqrt(-2.0 * _map(math.log, 1.0 - y))  # sqrt is exact everywhere (IEEE 754)
    angle = 2.0 * math.pi * x
    return _interleaved(radius, _map(math.cos, angle), _map(math.sin, angle), mean, std)


def _float_pairs(x: Array, y: Array, mean: float, std: float) -> Array:
    """Interleaved cosine and sine normals that are right once rounded to float32.

    NumPy's vectorised log (and on some machines cos and sin) differs from the C library's in the last of 53
    bits. That shows in float32 only next to the middle of two floats; those few pairs are computed again.
    """
    angle = 2.0 * math.pi * x
    radius = np.sqrt(-2.0 * np.log(1.0 - y))
    values = _interleaved(radius, np.cos(angle), np.sin(angle), mean, std)
    doubt = np.repeat(radius * (std * VECTOR_MATH_ERROR) + abs(mean) * VECTOR_MATH_ERROR, 2)
    unsure = np.flatnonzero((values - doubt).astype(np.float32) != (values + doubt).astype(np.float32)) // 2
    if unsure.size:
        pairs = values.reshape(-1, 2)
        pairs[unsure] = _exact_pairs(x[unsure], y[unsure], mean, std).reshape(-1, 2)
    return values


def _interleaved(radius: Array, cosine: Array, sine: Array, mean: float, std: float) -> Array:
    pairs = np.empty((radius.size, 2))
    pairs[:, 0] = radius * cosine * std + mean
    pairs[:, 1] = radius * sine * std + mean
    return pairs.reshape(-1)


# ---- checks ----


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GeneratorError(message)


def _require_positive(std: float) -> None:
    _require(std > 0, f"the standard deviation must be above 0, found {std}")


def _rounded(array: Array, value: float) -> float:
    """`value` as Torch7's wrapper hands it to a fill: of the tensor's element type (TensorMath.lua)."""
    is_real = array.dtype.name in ("float32", "float64")
    _require(is_real, f"this fill needs an array of float32 or float64, found {array.dtype}")
    return float(array.dtype.type(value))


def _random_range(first: int | None, last: int | None) -> tuple[int, int | None]:
    """(low, how many) of random(), random(b), random(a, b); None: unbounded."""
    if first is None:
        _require(last is None, "random needs its lower bound too")
        return 0, None
    low, high = (1, int(first)) if last is None else (int(first), int(last))
    _require(high >= low, f"random({low}, {high}): the upper bound must not be below the lower one")
    return low, high - low + 1
