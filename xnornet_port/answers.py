"""What a network answers: scores for the classes, of one classifier or of several, logarithms or not."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn import ClassNLLCriterion, LogSoftMax, View
from lua_compat.nn.containers import Concat
from lua_compat.nn.criterion import CrossEntropyCriterion

__all__ = ["class_scores", "criterion_of", "n_classifiers"]


def class_scores(network: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The network's scores (N, n_classes) for (N, 3, H, W) pictures; of several classifiers the first one's.

    The view restores the batch dimension that Torch7's View drops from a batch of one.
    """
    answers: torch.Tensor = network(pictures).view(len(pictures), -1)
    return answers[:, : answers.shape[1] // n_classifiers(network)]


def n_classifiers(network: nn.Module) -> int:
    """How many classifiers stand side by side at the network's end: two in GoogLeNet, of which the second is auxiliary.

    They are the branches of an nn.Concat that is last and whose branches all end in LogSoftMax.
    """
    for module in _last_modules(network):
        if isinstance(module, Concat) and all(isinstance(_last_leaf(branch), LogSoftMax) for branch in module.members):
            return len(module.members)
    return 1


def criterion_of(network: nn.Module) -> ClassNLLCriterion | CrossEntropyCriterion:
    """ClassNLLCriterion, or CrossEntropyCriterion for a network that ends in bare scores, as facebook's ResNets do."""
    gives_scores = isinstance(_last_leaf(network), nn.Linear | nn.Conv2d | View)
    return CrossEntropyCriterion(ClassNLLCriterion()) if gives_scores else ClassNLLCriterion()


def _last_modules(network: nn.Module) -> list[nn.Module]:
    """The network, its last child, that one's last child, and so on."""
    modules = [network]
    # of a Sequential not children(), which leaves out the second place of a module
    while children := list(modules[-1] if isinstance(modules[-1], nn.Sequential) else modules[-1].children()):
        modules.append(children[-1])
    return modules


def _last_leaf(network: nn.Module) -> nn.Module:
    return _last_modules(network)[-1]
