"""What can happen to a run in days: each ends in one line, with a state to go on from to the same bits.

The rows of docs/reliability.md that no other file tests. kill -9 at random moments: benchmarks/kill_runs.py, here
a few.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import xnornet_port.donkey_process
import xnornet_port.donkeys
import xnornet_port.passes
import xnornet_port.train
from xnornet_port import cli
from xnornet_port.train import train_epoch

ROOT = Path(__file__).parents[2]
FILES = ("train.log", "test.log", "model_1.t7", "optimState_1.t7")

Main = Callable[..., tuple[int, str, str]]


def arguments(golden: Path, cache: Path, *options: object) -> list[str]:
    shutil.copytree(golden / "cache", cache, dirs_exist_ok=True)
    words = ["-data", golden / "imagenet", "-cache", cache, "-nClasses", 5, "-device", "cpu", "-batchSize", 8,
             "-epochSize", 4, "-nEpochs", 1, "-binaryWeight", "-retrain", golden / "models" / "tiny_bwn.t7",
             *options]  # fmt: skip
    return [str(word) for word in words]


@pytest.fixture
def main(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Main:
    def go(*options: object) -> tuple[int, str, str]:
        words = [str(word) for word in options] if "-resume" in options else arguments(golden, tmp_path, *options)
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture(scope="module")
def undisturbed(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    @functools.cache
    def run(n_donkeys: int) -> Path:
        cache = tmp_path_factory.mktemp("undisturbed")
        assert cli.main(arguments(golden, cache, "-nDonkeys", n_donkeys, "-quiet")) == 0
        return next(cache.glob("alexnet*/*/"))

    return run


def after_batch(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something to the run after a batch of training."""

    def acting(*arguments: Any) -> Any:
        *before, on_batch, should_stop = arguments

        def note(batch: Any) -> None:
            on_batch(batch)
            if batch.number == number:
                act()

        return train_epoch(*before, note, should_stop)

    patch.setattr(xnornet_port.passes, "train_epoch", acting)


def assert_resumes_to(expected: Path, main: Main, folder: Path) -> None:
    code, _, error = main("-resume", folder)
    assert (code, error) == (0, "")
    for name in FILES:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def children() -> list[int]:
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """A disk without room: writing beyond `size` bytes fails as on a full one, but with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_killed_worker_costs_nothing(main: Main, undisturbed: Callable[[int], Path], tmp_path: Path) -> None:
    """As by the system when memory runs out: another one takes its place, and the run comes to the same bits."""
    expected = undisturbed(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnornet_port.donkeys, "DEATHS_IN_A_PICTURE", 99)  # of 50, both may be at the same by chance
        after_batch(patch, 2, lambda: [os.kill(child, signal.SIGKILL) for child in children()])
        code, out, error = main("-nDonkeys", 2)
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert (code, error) == (0, "")
    assert out.count("was killed by SIGKILL (no memory left? Try a smaller -nDonkeys or -batchSize); a new one") == 2
    assert children() == []
    for name in FILES:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_workers_that_are_killed_again_and_again_stop_the_run(
    main: Main, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    """The state of the last whole batch is kept on the way out."""
    expected = undisturbed(2)
    killing = tmp_path / "python"
    killing.write_text("#!/bin/sh\nkill -9 $$\n")
    killing.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnornet_port.donkeys, "DEATHS_IN_A_PICTURE", 99)

        def kill_all() -> None:
            patch.setattr(xnornet_port.donkey_process.sys, "executable", str(killing))
            for child in children():
                os.kill(child, signal.SIGKILL)

        after_batch(patch, 2, kill_all)
        code, out, error = main("-nDonkeys", 2)
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert code == 1
    assert "was killed by SIGKILL (no memory left? Try a smaller -nDonkeys or -batchSize)" in error
    assert error.endswith(f"go on with -resume {folder}\n")
    assert error.count("\n") == 1
    assert "Epoch: [1][2/4]" in out
    assert children() == []
    assert_resumes_to(expected, main, folder)


def test_a_full_disk_stops_when_a_model_cannot_be_saved(main: Main, undisturbed: Callable[[int], Path],
                                                        tmp_path: Path) -> None:  # fmt: skip
    """State and model do not fit; what was complete before stays, nothing half written is left."""
    expected = undisturbed(0)
    with pytest.MonkeyPatch.context() as patch:
        limit = no_file_longer_than(100_000)
        after_batch(patch, 2, limit.__enter__)
        code, out, error = main("-nDonkeys", 0, "-checkpointEvery", 1)
        limit.__exit__(None, None, None)
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert code == 1
    assert "State of epoch 1, batch 3 could not be kept" in out
    assert "model_1.t7: cannot be written: File too large" in error
    assert error.endswith(f"go on with -resume {folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["classes.t7", "options.json", "train.log", "test.log"]
        + [f"state_1_{batch}.{kind}" for batch in (1, 2) for kind in ("json", "safetensors")]
    )
    assert_resumes_to(expected, main, folder)


def test_a_reader_of_the_output_that_goes_away_costs_nothing(main: Main, undisturbed: Callable[[int], Path],
                                                             tmp_path: Path) -> None:  # fmt: skip
    """As with `main.py ... | head`: printing fails after a batch, whose state is kept."""
    expected = undisturbed(0)

    def gone() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.MonkeyPatch.context() as patch:
        after_batch(patch, 2, gone)
        code, _, error = main("-nDonkeys", 0)
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert code == 1
    assert error == f"error: Broken pipe; when that is mended, go on with -resume {folder}\n"
    assert (folder / "state_1_2.json").is_file()
    assert_resumes_to(expected, main, folder)


def test_no_memory_left_is_one_line(main: Main, undisturbed: Callable[[int], Path], tmp_path: Path) -> None:
    """In the middle of batch 3: its pictures are drawn already, so the state to go on from is the one before."""
    expected = undisturbed(0)

    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4")

    with pytest.MonkeyPatch.context() as patch:
        after_batch(patch, 2, lambda: patch.setattr(xnornet_port.train, "class_scores", full))
        code, _, error = main("-nDonkeys", 0, "-checkpointEvery", 1)
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert code == 1
    assert error == (
        "error: no memory for batches of 8 pictures (the last piece wanted: 2.00 GiB); use a smaller -batchSize, or "
        f"where there is more, as with a larger -nGPU, go on with -resume {folder}\n"
    )
    assert not (folder / "state_1_3.json").exists()
    assert_resumes_to(expected, main, folder)


def test_after_the_last_batch_of_an_epoch_no_state_is_kept_within_it(main: Main, undisturbed: Callable[[int], Path],
                                                                     tmp_path: Path) -> None:  # fmt: skip
    """It would lack the parameters from before the last update; the run starts again from the state before."""
    expected = undisturbed(0)

    def gone() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.MonkeyPatch.context() as patch:
        after_batch(patch, 4, gone)
        assert main("-nDonkeys", 0, "-checkpointEvery", 3)[0] == 1
    folder = next(tmp_path.glob("alexnet*/*/"))
    assert [path.name for path in folder.glob("state_*.json")] == ["state_1_3.json"]
    assert_resumes_to(expected, main, folder)


def test_a_loss_of_nan_is_not_told_to_resume(main: Main, tmp_path: Path) -> None:
    """It would come to nan again."""
    code, _, error = main("-nDonkeys", 0, "-LR", 1e30)
    assert code == 1
    assert "the loss is" in error
    assert "training stopped before this update (a smaller -LR may help); no epoch was finished" in error
    assert "-resume" not in error


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/task").exists(), reason="needs Linux")
def test_killed_at_random_moments_every_run_ends_as_the_undisturbed_one() -> None:
    """200 of these are recorded in benchmarks/results/kill_runs.md."""
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "kill_runs.py", "--kills", "3",
                           "--donkeys", "2", "--seed", "3"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| 2 |")]
    assert int(row[2]) == 3  # kills
    assert int(row[6]) == 0  # mistakes
