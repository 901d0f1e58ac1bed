"""Residual networks (arXiv 1512.03385; facebook's fb.resnet.torch models/resnet.lua)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lua_compat.nn import View
from xnornet_port.layers import average_pooling, batch_normalization, convolution, linear, relu
from xnornet_port.models.residual import plan_of, shortcut, stages, stem, summed
from xnornet_port.models.settings import NetworkSettings

__all__ = ["resnet"]

Block = Callable[[int, int, int, str], nn.Sequential]  # input planes, features, stride, type of shortcut


def resnet(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) scores; parameters are not initialised.

    -depth 18, 34, 50, 101 or 152; depths of 6n + 2, and all with -dataset cifar..., are the networks for pictures of
    32x32. The scores are no log-probabilities: the criterion is nn.CrossEntropyCriterion. Raises XnorNetError for
    another depth or type of shortcut.
    """
    plan = plan_of(settings)
    block = _bottleneck if plan.is_bottleneck else _basic_block
    n_features = plan.stages[-1].n_features * (4 if plan.is_bottleneck else 1)
    return nn.Sequential(
        *stem(plan, bias=False),
        *stages(plan, lambda n_inputs, n, stride: block(n_inputs, n, stride, settings.shortcut_type)),
        average_pooling(8 if plan.is_small else 7),
        View((n_features,), n_input_dims=3),
        linear(n_features, settings.n_classes),
    )


def _basic_block(n_inputs: int, n: int, stride: int, shortcut_type: str) -> nn.Sequential:
    branch = nn.Sequential(
        _convolution(n_inputs, n, 3, stride, padding=1),
        batch_normalization(n),
        relu(),
        _convolution(n, n, 3, padding=1),
        batch_normalization(n),
    )
    return summed(branch, shortcut(shortcut_type, n_inputs, n, stride, _projection)).append(relu())


def _bottleneck(n_inputs: int, n: int, stride: int, shortcut_type: str) -> nn.Sequential:
    branch = nn.Sequential(
        _convolution(n_inputs, n, 1),
        batch_normalization(n),
        relu(),
        _convolution(n, n, 3, stride, padding=1),
        batch_normalization(n),
        relu(),
        _convolution(n, n * 4, 1),
        batch_normalization(n * 4),
    )
    return summed(branch, shortcut(shortcut_type, n_inputs, n * 4, stride, _projection)).append(relu())


def _projection(n_inputs: int, n_outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_convolution(n_inputs, n_outputs, 1, stride), batch_normalization(n_outputs))


def _convolution(n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Without bias, which facebook's code takes away where cuDNN is version 4 or later."""
    return convolution(n_inputs, n_outputs, kernel, stride, padding, bias=False)
