"""Depths, shortcuts and their refusals."""

import re

import pytest
import torch
from torch import nn

from xnornet_port import build_model
from xnornet_port.errors import XnorNetError
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.models.residual import plan_of, shortcut

DEPTHS = "one of 18, 34, 50, 101, 152, or for pictures of 32x32 6n + 2 (20, 32, 44, 56, 110, 1202)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            NetworkSettings(depth=19),
            f"-depth 19: expected {DEPTHS}",
        ),
        (
            NetworkSettings(depth=18, dataset="cifar10"),
            "-depth 18: expected for -dataset cifar 6n + 2 (20, 32, 44, 56, 110, 1202)",
        ),
        (
            NetworkSettings(depth=2),
            f"-depth 2: expected {DEPTHS}",
        ),
        (NetworkSettings(shortcut_type="D"), "-shortcutType D: expected one of A, B, C"),
    ],
)
def test_refusals(settings: NetworkSettings, message: str) -> None:
    with pytest.raises(XnorNetError, match=f"^{re.escape(message)}$"):
        plan_of(settings)


def test_bottlenecks_have_no_xnor_network() -> None:
    with pytest.raises(XnorNetError, match="-netType resnetxnor -depth 50: has no bottleneck blocks"):
        build_model("resnetxnor", depth=50)


def test_the_data_set_decides_where_the_depth_is_both() -> None:
    """50 = 6 * 8 + 2: bottlenecks for ImageNet, three stages of eight blocks for CIFAR."""
    assert not plan_of(NetworkSettings(depth=50)).is_small
    small = plan_of(NetworkSettings(depth=50, dataset="cifar100"))
    assert small.is_small
    assert [stage.n_blocks for stage in small.stages] == [8, 8, 8]


def test_a_shortcut_of_type_a_takes_every_second_pixel_and_fills_up_with_zeros() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = shortcut("A", 2, 4, 2, nn.Identity)(x)
    wanted = torch.zeros(1, 4, 2, 2)
    wanted[0, 0] = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    wanted[0, 1] = torch.tensor([[16.0, 18.0], [24.0, 26.0]])
    assert torch.equal(y, wanted)


@pytest.mark.parametrize(("kind", "n_projections"), [("A", 0), ("B", 3), ("C", 8)])
def test_which_shortcuts_project(kind: str, n_projections: int) -> None:
    """resnet 18 has eight blocks; three of them change the number of planes."""
    network = NETWORKS["resnet"].build(NetworkSettings(shortcut_type=kind))
    ones = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(ones) == n_projections
