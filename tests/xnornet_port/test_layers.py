"""BinActiveZ at and around its borders."""

import pytest
import torch

from xnornet_port.layers import BinActiveZ

# input, sign(input), the gradient's factor: 1 where |input| < 1 (newLayers/BinActiveZ.lua: ge(1), le(-1) are zeroed)
TABLE = [
    (-1.5, -1, 0),
    (-1.0, -1, 0),
    (-0.999, -1, 1),
    (-1e-30, -1, 1),
    (0.0, 0, 1),
    (-0.0, 0, 1),
    (0.5, 1, 1),
    (1.0, 1, 0),
    (1.5, 1, 0),
    (float("inf"), 1, 0),
]


@pytest.mark.parametrize(("x", "output", "passes"), TABLE)
def test_bin_active_z(x: float, output: float, passes: float) -> None:
    value = torch.tensor([x], requires_grad=True)
    result = BinActiveZ()(value)
    result.backward(torch.tensor([3.0]))
    assert result.item() == output
    assert value.grad is not None
    assert value.grad.item() == 3 * passes
