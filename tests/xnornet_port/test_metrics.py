"""Top-1 and top-5 by hand."""

import pytest
import torch

from xnornet_port.metrics import Scores, ScoreSum, loss_and_hits, scores_of


def batch_scores(loss: float, outputs: torch.Tensor, labels: torch.Tensor) -> Scores:
    """As training and testing take them, but for the journey from the device."""
    return scores_of(loss_and_hits(torch.tensor(loss), outputs, labels).tolist(), len(labels))


def test_top1_and_top5_of_two_pictures() -> None:
    outputs = torch.tensor([[0.1, 0.6, 0.5, 0.4, 0.3, 0.2], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
    # picture 1: class 2 is best and is the label; picture 2: label 6 is the worst of six, not among five
    scores = batch_scores(0.5, outputs, torch.tensor([2, 6]))
    assert scores == Scores(0.5, top1=50.0, top5=50.0, n_batches=1, n_pictures=2)


def test_top5_counts_a_label_in_fifth_place() -> None:
    outputs = torch.tensor([[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
    assert batch_scores(0.0, outputs, torch.tensor([5])).top5 == 100.0


def test_fewer_than_five_classes_do_not_fail() -> None:
    scores = batch_scores(0.0, torch.tensor([[0.1, 0.9, 0.0]]), torch.tensor([1]))
    assert (scores.top1, scores.top5) == (0.0, 100.0)


def test_mean_of_equal_batches_is_the_mean_of_batches() -> None:
    total = ScoreSum()
    total.add(Scores(1.0, 0.0, 50.0, 1, 8))
    total.add(Scores(2.0, 50.0, 100.0, 1, 8))
    assert total.mean() == Scores(1.5, 25.0, 75.0, 2, 16)


def test_a_smaller_last_batch_weighs_by_its_pictures() -> None:
    total = ScoreSum()
    total.add(Scores(1.0, 100.0, 100.0, 1, 3))
    total.add(Scores(5.0, 0.0, 100.0, 1, 1))
    assert total.mean() == Scores((3 * 1.0 + 5.0) / 4, 75.0, 100.0, 2, 4)


def test_the_mean_of_nothing_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        ScoreSum().mean()
