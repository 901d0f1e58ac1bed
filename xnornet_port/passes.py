"""One pass over training or test pictures, with the lines a user sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from xnornet_port.data import DataSource
from xnornet_port.evaluate import Tester, evaluate
from xnornet_port.plan import TrainingPlan
from xnornet_port.report import Report
from xnornet_port.run_state import Moment
from xnornet_port.train import Learner, TrainedBatch, TrainedEpoch, train_epoch

__all__ = ["test_pass", "train_pass"]


def train_pass(
    plan: TrainingPlan,
    learner: Learner,
    data: DataSource,
    moment: Moment,
    report: Report,
    after_batch: Callable[[], None],
    should_stop: Callable[[], bool],
) -> TrainedEpoch:
    """The training batches of an epoch that `moment` has not yet.

    Raises FloatingPointError where the loss is no longer finite.
    """
    epoch, so_far = moment.epoch, moment.so_far

    def on_batch(batch: TrainedBatch) -> None:
        report.trained_batch(epoch, plan.epoch_size, rate, batch)
        after_batch()

    report.epoch_start("training", epoch)
    rate = learner.optimizer.param_groups[0]["lr"]
    batches = data.train_batches(plan.epoch_size, plan.batch_size, first=so_far.total.n_batches)
    with report.progress(f"epoch {epoch}: training", plan.epoch_size):
        return train_epoch(learner, batches, plan.epoch_size, so_far, on_batch, should_stop)


def test_pass(
    tester: Tester,
    data: DataSource,
    batch_size: int,
    test_all: bool,
    epoch: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> bool:
    """One pass over the test set, with `test_all` an incomplete last batch too; False when it was stopped."""
    report.epoch_start("validation", epoch)
    with report.progress(f"epoch {epoch}: testing", data.n_test):
        evaluation = evaluate(
            tester,
            data.test_batches(batch_size, test_all),
            partial(report.tested_batch, epoch, data.n_test),
            should_stop,
        )
    if not evaluation.finished or evaluation.mean is None:
        return False
    report.test_summary(epoch, evaluation.seconds, evaluation.mean)
    if evaluation.mean.n_pictures < data.n_test:
        report.warn(
            f"Tested {evaluation.mean.n_pictures} of {data.n_test} pictures: the last, incomplete batch is left "
            "out as in the original; -testAll takes them all"
        )
    return True
