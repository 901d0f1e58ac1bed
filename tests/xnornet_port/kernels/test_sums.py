"""Products of real inputs with packed signs, against the same product in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from xnornet_port.kernels.native_library import load_library
from xnornet_port.kernels.sums import can_sum, signed_sums

pytestmark = pytest.mark.skipif(load_library() is None, reason="the C library was not built")


def packed(weight: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits((weight < 0).numpy(), axis=-1, bitorder="little"))


def signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape).float() * 2 - 1


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), inputs=st.integers(1, 70), filters=st.integers(1, 140), seed=st.integers(0, 99),
    has_bias=st.booleans(),
)  # fmt: skip
def test_whole_numbers_are_summed_exactly(rows: int, inputs: int, filters: int, seed: int, has_bias: bool) -> None:
    """Sums of whole numbers, times 1/4, plus a whole number: nothing rounds in float32."""
    torch.manual_seed(seed)
    x, weight = torch.randint(-99, 100, (rows, inputs)).float(), signs(filters, inputs)
    bias = torch.randint(-9, 10, (filters,)).float() if has_bias else None
    found = signed_sums(x, packed(weight), torch.full((filters,), 0.25), bias)
    expected = x.double() @ weight.double().T / 4 + (0 if bias is None else bias)
    assert torch.equal(found.double(), expected)


def test_real_numbers_by_one_and_two_threads() -> None:
    """K = 4096 inputs in eight sums of 512: below 520 roundings, each at most 2^-24 of a sum of magnitudes.

    The error allowed is a twentieth of that bound; chance leaves far less of it.
    """
    x, weight, alpha, bias = torch.randn(6, 4096), signs(300, 4096), torch.rand(300), torch.randn(300)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(signed_sums(x, packed(weight), alpha, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    expected = (x.double() @ weight.double().T) * alpha + bias
    bound = 520 * 2**-24 * x.abs().double().sum(1, keepdim=True) * alpha
    assert bool(((results[0] - expected).abs() <= bound / 20 + 1e-6).all())


def test_what_is_not_finite_stays_so() -> None:
    x = torch.zeros(3, 9)
    x[0, 2], x[1, 8], x[2, 0], x[2, 1] = torch.inf, torch.nan, torch.inf, torch.inf
    weight = torch.ones(2, 9)
    weight[1, 2] = weight[0, 1] = -1
    found = signed_sums(x, packed(weight), torch.ones(2), None)
    assert found[0].tolist() == [torch.inf, -torch.inf]
    assert bool(found[1].isnan().all())
    assert bool(found[2, 0].isnan())  # inf - inf
    assert found[2, 1] == torch.inf


def test_what_it_does_not_take() -> None:
    alpha = torch.ones(2)
    assert can_sum(torch.zeros(1, 3), alpha)
    assert not can_sum(torch.zeros(1, 3, dtype=torch.float64), alpha)
    assert not can_sum(torch.zeros(1, 3), alpha.half())
    assert not can_sum(torch.zeros(1, 3, device="meta"), alpha)
