"""Filters, distributions and sign changes of small networks, by hand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cache_tools.weight_pictures import filter_picture, layer_weights, sign_flips


def network(middle: torch.Tensor) -> nn.Module:
    """Three convolutions; the one in the middle is binary, with these weights (4, 2, 1, 1)."""
    layers = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sequential(nn.Conv2d(2, 4, 1)), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        layers[1][0].weight.copy_(middle)
        layers[0].weight.copy_(torch.arange(54.0).view(2, 3, 3, 3))
    return layers


WEIGHTS = torch.tensor([[0.5, -0.5], [0.25, 0.75], [-1.0, 1.0], [-0.125, -0.125]]).view(4, 2, 1, 1)


def test_distributions() -> None:
    (layer,) = layer_weights(network(WEIGHTS))
    assert layer.name == "2.1"
    assert layer.shape == (4, 2, 1, 1)
    assert sum(layer.counts) == 8
    assert layer.limit == 1.0
    assert layer.mean_magnitude == pytest.approx(4.25 / 8)
    assert layer.at_limit == 2 / 8
    assert layer.alpha_limit == 1.0
    # alphas 0.5, 0.5, 1 and 0.125 in thirtieths: 15, 15, 29 (the last bin takes its end) and 3
    assert {bar: count for bar, count in enumerate(layer.alpha_counts) if count} == {3: 1, 15: 2, 29: 1}


def test_a_network_that_has_diverged() -> None:
    """Six of eight weights are finite, and two of four means of magnitudes."""
    weights = WEIGHTS.clone()
    weights[0, 0], weights[1, 1] = math.nan, math.inf
    (layer,) = layer_weights(network(weights))
    assert layer.not_finite == 2
    assert (sum(layer.counts), layer.limit) == (6, 1.0)
    assert layer.mean_magnitude == pytest.approx(3.0 / 6)
    assert (sum(layer.alpha_counts), layer.alpha_limit) == (2, 1.0)
    (layer,) = layer_weights(network(torch.full((4, 2, 1, 1), math.nan)))
    assert (layer.not_finite, sum(layer.counts), sum(layer.alpha_counts)) == (8, 0, 0)
    (layer,) = layer_weights(network(torch.full((4, 2, 1, 1), 3e38)))
    assert sum(layer.counts) == 8
    assert filter_picture(nn.Sequential(nn.Conv2d(3, 2, 3))) is not None


def test_sign_changes() -> None:
    """Three of eight signs change, then none; a larger weight of the same sign is no change."""
    changed = WEIGHTS.clone()
    changed[0], changed[1, 0] = -changed[0], -changed[1, 0]
    flips = sign_flips([(7, network(WEIGHTS)), (8, network(changed)), (10, network(changed * 2))])
    assert flips.epochs == [7, 8, 10]
    first, second, third = flips.layers["2.1"]
    assert math.isnan(first)
    assert (second, third) == (37.5, 0.0)


def test_a_layer_of_another_size_has_no_changes() -> None:
    """Models of another network in one folder."""
    other = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sequential(nn.Conv2d(2, 10, 1)), nn.Conv2d(10, 2, 1))
    assert all(math.isnan(share) for share in sign_flips([(1, network(WEIGHTS)), (2, other)]).layers["2.1"])


def test_filters() -> None:
    """Weights 0..26 of the first filter become 0..255; tiles are 3 x 3 with one pixel between, three times as large."""
    found = filter_picture(network(WEIGHTS))
    assert found is not None
    data, caption = found
    assert caption == "2 of 2 filters, 3 x 3 pixels each"
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (9, 21, 4)
    expected = np.round(np.arange(27).reshape(3, 3, 3) / 26 * 255)  # red, green, blue planes
    np.testing.assert_array_equal(pixels[1:9:3, 1:9:3, :3], expected.transpose(1, 2, 0))
    assert not pixels[:, 9:12, 3].any()  # transparent between tiles


def test_a_network_without_pictures() -> None:
    assert filter_picture(nn.Sequential(nn.Linear(2, 2))) is None
    assert layer_weights(nn.Sequential(nn.Linear(2, 2))) == []
