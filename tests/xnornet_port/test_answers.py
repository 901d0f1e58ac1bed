"""Scores of several classifiers and of none with logarithms."""

import pytest
import torch
from torch import nn

from lua_compat.nn import ClassNLLCriterion, LogSoftMax, View
from lua_compat.nn.containers import Concat
from lua_compat.nn.criterion import CrossEntropyCriterion
from xnornet_port.answers import class_scores, criterion_of, n_classifiers


def ends_in_its_first_layer() -> nn.Sequential:
    softmax = LogSoftMax()
    return nn.Sequential(View((12,)), softmax, nn.Linear(12, 4), softmax)


def classifier() -> nn.Sequential:
    return nn.Sequential(View((3 * 2 * 2,)), nn.Linear(12, 4), LogSoftMax())


def test_of_several_classifiers_the_first_answers() -> None:
    network = nn.Sequential(nn.Identity(), Concat([classifier(), classifier()], dimension=2))
    pictures = torch.randn(2, 3, 2, 2)
    assert n_classifiers(network) == 2
    assert torch.equal(class_scores(network, pictures), network[1].members[0](pictures))
    class_scores(network, pictures)[0, 0].backward()
    auxiliary = network[1].members[1][1].weight
    assert torch.count_nonzero(auxiliary.grad) == 0  # as with the original's criterion, which looks at 1..nClasses


def test_a_concat_of_features_is_one_classifier() -> None:
    network = nn.Sequential(Concat([nn.Linear(12, 4), nn.Linear(12, 4)], dimension=2))
    assert n_classifiers(network) == 1
    assert class_scores(network, torch.randn(2, 12)).shape == (2, 8)


def test_a_batch_of_one_keeps_its_dimension() -> None:
    assert classifier()(torch.randn(1, 3, 2, 2)).shape == (4,)
    assert class_scores(classifier(), torch.randn(1, 3, 2, 2)).shape == (1, 4)


@pytest.mark.parametrize(
    ("network", "criterion"),
    [
        (classifier(), ClassNLLCriterion),
        (ends_in_its_first_layer(), ClassNLLCriterion),
        (nn.Sequential(nn.Conv2d(3, 4, 2), View((4,)), LogSoftMax()), ClassNLLCriterion),
        (nn.Sequential(View((12,)), nn.Linear(12, 4)), CrossEntropyCriterion),
        (nn.Sequential(nn.Conv2d(3, 4, 2), View((4,))), CrossEntropyCriterion),
    ],
)
def test_criterions(network: nn.Sequential, criterion: type[nn.Module]) -> None:
    """Bare scores become log-probabilities in the criterion; by hand: -x[label] + log(sum exp x)."""
    assert type(criterion_of(network)) is criterion
    x = torch.randn(2, 3, 2, 2)
    scores = class_scores(network, x)
    by_hand = (scores.exp().sum(1).log() - scores[torch.arange(2), torch.tensor([0, 2])]).mean()
    torch.testing.assert_close(criterion_of(network)(scores, torch.tensor([1, 3])), by_hand)
