"""The XNOR-Network of a residual network (XNOR-Net paper, section 4.2: ResNet-18, shortcut type B).

The authors did not publish theirs. This one is facebook's network (resnet.py) with its convolutions, but the first and
the classifier, in the paper's blocks (figure 3), as models/alexnetxnor.lua has them: BNorm, BinActiv, BinConv, no ReLU.
The convolution of a shortcut is a binary block as well, for only the first and the last layer stay real.
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import LogSoftMax, View
from xnornet_port.errors import XnorNetError
from xnornet_port.layers import average_pooling, batch_normalization, convolution, relu
from xnornet_port.models.residual import plan_of, shortcut, stages, stem, summed
from xnornet_port.models.settings import NetworkSettings

__all__ = ["resnetxnor"]


def resnetxnor(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) pictures to (N, n_classes) log-probabilities; parameters are not initialised.

    Depths and shortcuts as `resnet`, but for those with bottlenecks (XnorNetError). With a -scheme that brings
    shortcuts of its own, those take the place of -shortcutType's.
    """
    plan = plan_of(settings)
    if plan.is_bottleneck:
        raise XnorNetError(f"-netType resnetxnor -depth {settings.depth}: has no bottleneck blocks; expected 18 or 34")
    binary, n_features = settings.binary, plan.stages[-1].n_features

    def block(n_inputs: int, n: int, stride: int) -> nn.Sequential:
        branch = nn.Sequential(*binary.block(n_inputs, n, 3, stride, padding=1), *binary.block(n, n, 3, padding=1))
        if binary.has_shortcuts:
            return branch
        return summed(branch, shortcut(settings.shortcut_type, n_inputs, n, stride, projection))

    def projection(n_inputs: int, n_outputs: int, stride: int) -> nn.Sequential:
        return binary.block(n_inputs, n_outputs, 1, stride)

    return nn.Sequential(
        *stem(plan, bias=True),
        *stages(plan, block),
        batch_normalization(n_features),
        relu(),
        average_pooling(8 if plan.is_small else 7),
        convolution(n_features, settings.n_classes, 1),
        View((settings.n_classes,)),
        LogSoftMax(),
    )
