"""One body for all backends: exact integers, one rounding, over hand-made and random cases.

Expected values: sums written out by hand, or torch's convolution of the signs in double, which is exact for integers.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from xnornet_port import XnorNetError
from xnornet_port.kernels import (
    Backend,
    Geometry,
    PackedInput,
    Pooling,
    Thresholds,
    pack_input,
    pack_weights,
    xnor_conv2d,
    xnor_dot,
    xnor_sign,
)


def exact_dot(x: torch.Tensor, weight: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """torch's convolution of the signs in double: every partial sum is a small integer, so nothing is rounded."""
    places = (geometry.stride, geometry.padding, geometry.dilation)
    signs = torch.nan_to_num(x).double().sign()
    return functional.conv2d(signs, weight.double().sign(), None, *places).to(torch.int32)


def bits_of(words: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, H, W, words) to (N, C, H, W) of 0 and 1, one bit at a time; bits past the last channel must be 0."""
    shifts = torch.arange(64)
    bits = (words[..., None] >> shifts & 1).flatten(3).permute(0, 3, 1, 2)
    assert not bits[:, channels:].any()
    return bits[:, :channels]


def values_of(packed: PackedInput) -> torch.Tensor:
    """+1, 0 and -1, (N, C, H, W)."""
    values = 1 - 2 * bits_of(packed.signs, packed.channels)
    return values if packed.nonzero is None else values * bits_of(packed.nonzero, packed.channels)


def has_zero(packed: PackedInput) -> bool:
    """A plane of nonzero bits is not there without a zero, but for CUDA, where finding out would wait for the GPU."""
    return packed.nonzero is not None and not bool(bits_of(packed.nonzero, packed.channels).all())


def test_three_by_three_by_hand(backend: Backend) -> None:
    x = torch.tensor([[1.5, -2.0, 3.0], [-0.5, 4.0, -1.0], [2.0, 2.0, -7.0]]).view(1, 1, 3, 3)
    weight = torch.tensor([[1.0, -3.0], [-2.0, 2.0]]).view(1, 1, 2, 2)
    # signs of x        weights      windows: ++ +- -+ ++, written as products and summed
    # + - +             + -          (0,0): + + + + = 4    (0,1): - - - - = -4
    # - + -             - +          (1,0): - - - + = -2   (1,1): + + - - = 0
    # + + -
    packed = pack_weights(weight)
    assert xnor_dot(x, packed, backend=backend).tolist() == [[[[4, -4], [-2, 0]]]]
    # alpha = (1 + 3 + 2 + 2) / 4 = 2
    assert xnor_conv2d(x, packed, backend=backend).tolist() == [[[[8.0, -8.0], [-4.0, 0.0]]]]
    with_bias = pack_weights(weight, torch.tensor([0.5]))
    assert xnor_conv2d(x, with_bias, backend=backend).tolist() == [[[[8.5, -7.5], [-3.5, 0.5]]]]


def test_padding_adds_nothing(backend: Backend) -> None:
    x = torch.full((1, 2, 2, 2), -1.0)
    packed = pack_weights(torch.ones(1, 2, 3, 3))
    # every window sees all four pixels of both channels: -8
    assert xnor_dot(x, packed, padding=1, backend=backend).tolist() == [[[[-8, -8], [-8, -8]]]]
    # padding 2: corners see one pixel (-2), edges two (-4), the middle four (-8)
    expected = [[-2, -4, -4, -2], [-4, -8, -8, -4], [-4, -8, -8, -4], [-2, -4, -4, -2]]
    assert xnor_dot(x, packed, padding=2, backend=backend).tolist() == [[expected]]


def test_zeros_add_nothing(backend: Backend) -> None:
    x = torch.tensor([0.0, -0.0, 3.0, -2.0, math.nan, -math.nan, math.inf, -math.inf]).view(1, 8, 1, 1)
    weight = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]).view(1, 8, 1, 1)
    # only 3, -2, inf, -inf count: -1 + 1 + 1 - 1 = 0; with the sign of the last weight turned: 2
    assert xnor_dot(x, pack_weights(weight), backend=backend).tolist() == [[[[0]]]]
    weight[0, 7] = -1
    assert xnor_dot(x, pack_weights(weight), backend=backend).tolist() == [[[[2]]]]
    weight[0, 2] = 0  # takes the -1 of the 3 away
    assert xnor_dot(x, pack_weights(weight), backend=backend).tolist() == [[[[3]]]]


def test_subnormals_have_a_sign(backend: Backend) -> None:
    x = torch.tensor([1e-45, -1e-45]).view(1, 2, 1, 1)
    packed = pack_weights(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
    assert xnor_dot(x, packed, backend=backend).item() == 2
    tiny = torch.tensor([1e-300, -1e-300], dtype=torch.float64).view(1, 2, 1, 1)
    assert xnor_dot(tiny, packed, backend=backend).item() == 2


def test_a_result_may_be_subnormal(backend: Backend) -> None:
    """3 times 2^-140 is 3 * 2^-140, and 2^-140 less 2^-126 is no normal number either; none of them 0."""
    x, weight = torch.ones(1, 3, 1, 1), torch.ones(2, 3, 1, 1)
    packed = pack_weights(weight, torch.tensor([0.0, -(2.0**-126)]), torch.tensor([2.0**-140, 2.0**-140]))
    expected = [3 * 2.0**-140, 3 * 2.0**-140 - 2.0**-126]
    assert xnor_conv2d(x, packed, backend=backend).flatten().tolist() == expected


def test_one_rounding(backend: Backend) -> None:
    """alpha * dot + bias as one fused multiply-add: 3 (1 + 2^-23) - 3 is 3 * 2^-23, not the 2^-21 of two roundings.

    In float the product 3 + 3 * 2^-23 lies halfway between 3 + 2 * 2^-23 and 3 + 4 * 2^-23.
    """
    alpha, bias = torch.tensor([1 + 2.0**-23]), torch.tensor([-3.0])
    packed = pack_weights(torch.ones(1, 3, 1, 1), bias, alpha)
    assert xnor_conv2d(torch.ones(1, 3, 1, 1), packed, backend=backend).item() == 3 * 2.0**-23
    # A sum that double cannot hold: 1 + 2^-24 + 2^-60 is above the middle of 1 and 1 + 2^-23.
    alpha, bias = torch.tensor([2.0**-60]), torch.tensor([1 + 2.0**-23])
    packed = pack_weights(torch.ones(1, 1, 1, 1), bias, alpha)
    assert xnor_conv2d(torch.ones(1, 1, 1, 1), packed, backend=backend).item() == 1 + 2.0**-23


def test_bits_have_their_place(backend: Backend) -> None:
    x = torch.ones(1, 70, 1, 2)
    x[0, [0, 5, 63, 64, 69], 0, 0] = -1
    packed = pack_input(x, backend)
    as_unsigned = [[word % 2**64 for word in pixel] for pixel in packed.signs[0, 0].tolist()]
    assert as_unsigned == [[1 + 2**5 + 2**63, 1 + 2**5], [0, 0]]
    assert not has_zero(packed)
    assert packed.channels == 70
    x[0, 66, 0, 1] = 0
    with_zero = pack_input(x, backend)
    assert with_zero.nonzero is not None
    assert with_zero.nonzero[0, 0].tolist() == [[-1, 2**6 - 1], [-1, 2**6 - 1 - 2**2]]


def test_thresholds_both_ways(backend: Backend) -> None:
    """Dots -2, 0, 2 of two channels against rising and falling thresholds with a zero between."""
    x = torch.tensor([[-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]]).view(1, 2, 1, 3)
    packed = pack_weights(torch.ones(4, 2, 1, 1))
    thresholds = Thresholds(
        positive_from=torch.tensor([2, 0, -2, 0], dtype=torch.int32),
        negative_to=torch.tensor([-2, -2, 2, 2], dtype=torch.int32),
        descending=torch.tensor([False, False, True, True]),
    )
    signs = values_of(xnor_sign(x, packed, thresholds, backend=backend))
    assert signs[0, :, 0].tolist() == [[-1, 0, 1], [-1, 1, 1], [1, 0, -1], [1, 1, -1]]


def test_overlapping_thresholds_are_positive(backend: Backend) -> None:
    always = Thresholds(
        torch.tensor([-99], dtype=torch.int32), torch.tensor([99], dtype=torch.int32), torch.tensor([False])
    )
    packed = xnor_sign(-torch.ones(1, 1, 2, 2), pack_weights(torch.ones(1, 1, 1, 1)), always, backend=backend)
    assert not has_zero(packed)
    assert not packed.signs.any()


def test_pooling_is_of_the_integers(backend: Backend) -> None:
    """3 x 3 with stride 2 and padding 1 over dots 1..16 (less 8): the greatest of each window, not its sign's."""
    x = torch.ones(1, 16, 4, 4)
    for pixel in range(16):
        x[0, : 16 - pixel, pixel // 4, pixel % 4] = -1  # dot = 2 * pixel - 16
    packed = pack_weights(torch.ones(1, 16, 1, 1))
    at_least = Thresholds(*(torch.tensor([n], dtype=torch.int32) for n in (-2, -4)), torch.tensor([False]))
    pooled = xnor_sign(x, packed, at_least, pooling=Pooling((3, 3), (2, 2), (1, 1)), backend=backend)
    # greatest pixels of the windows: 5, 7, 13, 15, so dots -6, -2, 10, 14
    assert values_of(pooled)[0, 0].tolist() == [[-1, 1], [1, 1]]
    ceil = xnor_sign(x, packed, at_least, pooling=Pooling((2, 2), (3, 3), ceil_mode=True), backend=backend)
    # windows of 2 x 2 at 0 and 3, the second cut off: greatest pixels 5, 7, 13, 15 again
    assert values_of(ceil)[0, 0].tolist() == [[-1, 1], [1, 1]]


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Geometry]:
    """Input, weights, bias and geometry with sizes on both sides of every word, vector and tile."""
    channels = draw(st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 96, 127, 128, 130, 200])))
    filters = draw(st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 48, 64, 65])))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    height, width = (draw(st.integers(n, n + 12)) for n in least)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(draw(st.integers(1, 3)), channels, height, width, generator=generator)
    weight = torch.randn(filters, channels, *kernel, generator=generator)
    zeros = draw(st.sampled_from(["none", "none", "input", "one picture", "weights", "one weight", "both"]))
    if zeros in ("input", "both"):
        x *= torch.rand(x.shape, generator=generator) < 0.7
    if zeros == "one picture":
        x[-1, -1, -1, -1] = draw(st.sampled_from([0.0, -0.0, math.nan]))
    if zeros in ("weights", "both"):
        weight *= torch.rand(weight.shape, generator=generator) < 0.7
    if zeros == "one weight":
        weight[filters // 2, -1, -1, -1] = 0.0
    bias = torch.randn(filters, generator=generator) if draw(st.booleans()) else None
    return x, weight, bias, Geometry(stride, padding, dilation)


@settings(max_examples=60)
@given(case=cases())
def test_convolution_is_exact(
    backend: Backend, case: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Geometry]
) -> None:
    x, weight, bias, geometry = case
    places = (geometry.stride, geometry.padding, geometry.dilation)
    packed, dot = pack_weights(weight, bias), exact_dot(x, weight, geometry)
    bits = pack_input(x, backend)
    assert torch.equal(values_of(bits), torch.nan_to_num(x).sign().long())
    assert torch.equal(xnor_dot(x, packed, *places, backend=backend), dot)
    assert torch.equal(xnor_dot(bits, packed, *places, backend=backend), dot)
    result = xnor_conv2d(x, packed, *places, backend=backend)
    # alpha * dot is exact in double; a sum in double and then in float may round twice, hence one step of float
    rows = (-1, 1, 1)
    exact = dot.double() * packed.alpha.double().view(rows) + (0 if bias is None else bias.double().view(rows))
    step = torch.finfo(torch.float32).eps * exact.abs()
    assert bool(((result.double() - exact).abs() <= step * (0.5 + 1e-6)).all())
    assert torch.equal(xnor_conv2d(bits, packed, *places, backend=backend), result)


@settings(max_examples=40)
@given(case=cases(), data=st.data())
def test_sign_is_exact(
    backend: Backend,
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Geometry],
    data: st.DataObject,
) -> None:
    """Thresholds and pooling on the exact dots, with torch's max_pool2d of doubles as the judge."""
    x, weight, _, geometry = case
    places = (geometry.stride, geometry.padding, geometry.dilation)
    dot, filters = exact_dot(x, weight, geometry), len(weight)
    pooling = None
    if data.draw(st.booleans()):
        kernel = tuple(data.draw(st.integers(1, min(3, size))) for size in dot.shape[2:])
        stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        padding = tuple(data.draw(st.integers(0, n // 2)) for n in kernel)
        pooling = Pooling(kernel, stride, padding, data.draw(st.booleans()))  # type: ignore[arg-type]
        pooled = functional.max_pool2d(dot.double(), kernel, stride, padding, ceil_mode=pooling.ceil_mode)  # type: ignore[arg-type]
        dot = pooled.to(torch.int32)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    middle = torch.randint(-4, 5, (filters,), generator=generator, dtype=torch.int32)
    gap = torch.randint(0, 3, (filters,), generator=generator, dtype=torch.int32)
    descending = torch.rand(filters, generator=generator) < 0.4
    way = torch.where(descending, -1, 1).int()
    thresholds = Thresholds(middle, middle - way * (gap + 1), descending)
    rows = (-1, 1, 1)
    rising = dot * way.view(rows)
    expected = (rising >= (middle * way).view(rows)).int() - (rising <= (thresholds.negative_to * way).view(rows)).int()
    result = xnor_sign(x, pack_weights(weight), thresholds, *places, pooling, backend)
    assert torch.equal(values_of(result), expected.long())
    assert has_zero(result) == bool((expected == 0).any())


def test_mistakes_are_said(backend: Backend) -> None:
    packed = pack_weights(torch.ones(2, 3, 3, 3))
    x = torch.ones(1, 3, 4, 4)
    for dilation in (1, (1, 1)):
        assert xnor_conv2d(x, packed, 1, 0, dilation, backend=backend).shape == (1, 2, 2, 2)
    for arguments, message in [
        ((torch.ones(1, 2, 4, 4), packed), "the input has 2 channels, the filters 3"),
        ((torch.ones(3, 4, 4), packed), r"must be \(N, C, H, W\)"),
        ((torch.ones(0, 3, 4, 4), packed), "nothing empty"),
        ((torch.ones(1, 3, 4, 0), packed), "nothing empty"),
        ((torch.ones(1, 3, 2, 2), packed), "does not fit into an input of 2x2"),
        ((x, packed, 0), "stride must be"),
        ((x, packed, True), "stride must be"),  # 1 has been seen before, and is equal
        ((x, packed, (1.0, 1)), "stride must be"),
        ((x, packed, 1.5), "stride must be one or two whole numbers of at least 1, not 1.5"),
        ((x, packed, torch.tensor(2)), r"stride must be one or two whole numbers of at least 1, not tensor\(2\)$"),
        ((x, packed, torch.ones(2, 2)), r"not tensor\(\[\[1\., 1\.\], \[1\., 1\.\]\]\)$"),
        ((x, packed, None), "stride must be one or two whole numbers of at least 1, not None"),
        ((x, torch.ones(2, 3, 3, 3)), r"the weights must be PackedWeights, not Tensor: pack_weights\(weight\)"),
        ((x, None), "the weights must be PackedWeights, not NoneType$"),
        ((x.numpy(), packed), r"must be a torch.Tensor or packed, not ndarray: torch\.from_numpy\(x\)$"),
        (([1.0], packed), "must be a torch.Tensor or packed, not list$"),
        ((x.to(torch.complex64), packed), r"must be real, not torch\.complex64"),
        ((x, packed, 1, 0, 1, "reference", 2.0), "the factor must be a torch.Tensor, not float"),
        ((x, packed, 1, -1), "padding must be"),
        ((x, packed, 2**62, 2**61), "stride must be at most 65536, not 4611686018427387904"),
        ((x, packed, 1, (0, 2**17)), "padding must be at most 65536, not 131072"),
        ((x, packed, 1, 0, 2**64), "dilation must be at most 65536"),
        ((x, packed, 1, 0, (1, 0)), "dilation must be"),
        ((PackedInput(torch.zeros(1, 4, 4, 2, dtype=torch.int64), None, 3), packed), "cannot have shape"),
    ]:
        with pytest.raises(XnorNetError, match=message):
            xnor_conv2d(*arguments, **{} if len(arguments) > 5 else {"backend": backend})  # type: ignore[arg-type]
    one, two = torch.zeros(1, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    fitting = Thresholds(two, two - 1, two.bool())
    with pytest.raises(XnorNetError, match="the weights must be PackedWeights, not Tensor"):
        xnor_sign(x, torch.ones(2, 3, 3, 3), fitting, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(XnorNetError, match="thresholds must be Thresholds, not Tensor"):
        xnor_sign(x, packed, two, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(XnorNetError, match="the pooling must be a Pooling, not 2"):
        xnor_sign(x, packed, fitting, pooling=2, backend=backend)  # type: ignore[arg-type]
    for _ in range(2):  # after those that fit, too
        with pytest.raises(XnorNetError, match="2 filters need as many thresholds, negative_to has"):
            xnor_sign(x, packed, Thresholds(two, one, two.bool()), backend=backend)
        with pytest.raises(XnorNetError, match="does not fit into an input of 2x4"):
            xnor_sign(x[:, :, :2], packed, fitting, backend=backend)
        xnor_sign(x, packed, fitting, backend=backend)
