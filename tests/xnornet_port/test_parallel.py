"""Two processes against one: the same pictures, each once, same losses, same gradients; a lost one, a resumed run.

The runs are those of replica_runs.py, started once.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xnornet_port.batches import Batch
from xnornet_port.data import DataSource, open_data
from xnornet_port.errors import XnorNetError
from xnornet_port.parallel import ALONE, Place, Replicas, place_of
from xnornet_port.report import Report
from xnornet_port.run import _stored_state
from xnornet_port.state_files import write_state

FILES = ("train.log", "test.log", "model_1.t7", "model_2.t7", "optimState_1.t7", "optimState_2.t7")


@pytest.fixture(scope="module")
def runs(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicas")
    script = Path(__file__).with_name("replica_runs.py")
    done = subprocess.run([sys.executable, script, golden, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def codes(runs: Path, case: str) -> list[int]:
    found: list[int] = json.loads((runs / "results.json").read_text())[case]
    return found


def lines(runs: Path, case: str, rank: int = 0) -> str:
    return (runs / f"{case}_{rank}.log").read_text()


def seen(runs: Path, case: str, rank: int = 0) -> dict[str, np.ndarray]:
    with np.load(runs / f"{case}_{rank}.npz") as arrays:
        return dict(arrays)


def folder(runs: Path, case: str) -> Path:
    return next((runs / case).glob("alexnet*/*/"))


@pytest.mark.parametrize("case", ["same", "uneven"])
def test_two_processes_are_one(runs: Path, case: str) -> None:
    """Batch normalisation in evaluation mode, dropout on: losses and first gradients agree to rounding.

    "uneven": batches of 7, four and three pictures, loaded by two workers each; binary weights in every replica.
    """
    assert codes(runs, f"{case}1") == [0]
    assert codes(runs, f"{case}2") == [0, 0]
    one, first, second = seen(runs, f"{case}1"), seen(runs, f"{case}2", 0), seen(runs, f"{case}2", 1)
    for phase in ("train", "test"):
        np.testing.assert_allclose(first[phase], one[phase], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(first[phase], second[phase])
    gradients = [name for name in one if name.startswith("gradient")]
    assert len(gradients) == 22  # of 6 convolutions and 5 normalisations
    for name in gradients:
        np.testing.assert_allclose(first[name], one[name], rtol=0, atol=1e-5 * np.abs(one[name]).max())
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(("case", "n_train", "n_test"), [("same", 48, 60), ("uneven", 21, 28)])
def test_every_picture_is_seen_once(runs: Path, case: str, n_train: int, n_test: int) -> None:
    """Crops and flips too: a picture here is the input the network gets."""
    one, first, second = seen(runs, f"{case}1"), seen(runs, f"{case}2", 0), seen(runs, f"{case}2", 1)
    for phase, n_pictures in (("train_pictures", n_train), ("test_pictures", n_test)):
        parts = [*first[phase], *second[phase]]
        assert len(parts) == n_pictures
        assert sorted(parts) == sorted(one[phase])


def test_testing_is_that_of_the_saved_network(runs: Path) -> None:
    """The replicas' running statistics differ; the figures of epoch 2 are those of -testOnly on model_2.t7."""
    assert codes(runs, "tested") == [0]
    np.testing.assert_allclose(seen(runs, "tested")["test"], seen(runs, "plain2")["test"][-4:], rtol=0, atol=1e-5)


def test_only_the_first_prints_and_saves(runs: Path) -> None:
    assert "Running on: cpu, 2 processes" in lines(runs, "same2")
    assert "Epoch: [1][3/3]" in lines(runs, "same2")
    assert lines(runs, "same2", 1) == ""
    assert len(list((runs / "same2").glob("alexnet*/*/"))) == 1
    assert json.loads((folder(runs, "same2") / "options.json").read_text())["processes"] == 2


def test_a_lost_process_ends_the_other_and_the_run_resumes_to_the_same_bits(runs: Path) -> None:
    """The second is killed after the fourth batch, the first batch of epoch 2."""
    assert codes(runs, "killed") == [1, -9]
    error = lines(runs, "killed").splitlines()[-1]
    assert error.startswith("error: process 1 of 2 has lost another one (")
    assert error.endswith(f"go on with -resume {folder(runs, 'killed')}")
    assert json.loads((runs / "results.json").read_text())["seconds"]["killed"] < 600  # not SILENCE
    assert codes(runs, "killed_resumed") == [0, 0]
    assert "epoch 2, 1 of 3 batches trained" in lines(runs, "killed_resumed")
    for name in FILES:
        expected = (folder(runs, "undisturbed") / name).read_bytes()
        assert (folder(runs, "killed") / name).read_bytes() == expected, name


def test_a_notice_to_one_stops_all_after_the_same_batch(runs: Path) -> None:
    assert codes(runs, "stopped") == [143, 143]
    assert "Stopped in epoch 1 (2 of 3 batches): go on with -resume" in lines(runs, "stopped")
    assert codes(runs, "stopped_resumed") == [0, 0]
    for name in FILES:
        expected = (folder(runs, "undisturbed") / name).read_bytes()
        assert (folder(runs, "stopped") / name).read_bytes() == expected, name


def test_a_run_goes_on_with_another_number_of_processes(runs: Path) -> None:
    """As a cluster may give them; a line says that its sums are others from there on."""
    assert codes(runs, "longer_alone") == [0]
    assert "Not the same to the last bit any more: processes was 2, is 1" in lines(runs, "longer_alone")
    assert "Epoch: [3][3/3]" in lines(runs, "longer_alone")


class SecondOfTwo(Replicas):
    """A process on another machine than the first, which has found the state `firsts`."""

    def __init__(self, firsts: str) -> None:
        super().__init__(Place(1, 2))
        self._firsts = firsts

    def firsts_text(self, own: str) -> str:
        return self._firsts

    def wait(self) -> None:
        pass


def test_processes_that_would_go_on_from_different_states_are_refused(tmp_path: Path) -> None:
    """A copy of the run's folder on another machine that is older: its gradients would be of other weights."""
    report = Report(stream=io.StringIO())
    with pytest.raises(
        XnorNetError, match=r"process 2 of 2 finds the state none, the first one state_1_4 \(0a\); copy"
    ):
        _stored_state(tmp_path, SecondOfTwo("state_1_4 (0a)"), report)
    write_state(tmp_path, 1, 2, {"a": torch.zeros(3)}, {})
    digest = hashlib.sha256((tmp_path / "state_1_2.safetensors").read_bytes()).hexdigest()
    own = f"state_1_2 ({digest[:8]})"
    stored = _stored_state(tmp_path, SecondOfTwo(own), report)
    assert stored is not None
    assert stored.path.name == "state_1_2.json"
    with pytest.raises(XnorNetError, match="process 2 of 2 finds the state state_1_2"):
        _stored_state(tmp_path, SecondOfTwo("state_1_2 (00000000)"), report)


def test_parts_are_dataparalleltables() -> None:
    """sliceRange of 8 over 3 gives 1 to 3, 4 to 6, 7 to 8; here counted from 0."""
    assert [Replicas(Place(rank, 3)).part(8) for rank in range(3)] == [(0, 3), (3, 6), (6, 8)]
    assert [Replicas(Place(rank, 3)).part(1) for rank in range(3)] == [(0, 1), (1, 1), (1, 1)]
    assert ALONE.part(8) == (0, 8)


def test_weights_of_parts() -> None:
    """Mean losses a and b of 4 and 3 pictures: (4 a + 3 b) / 7 is the mean of 8/7 a and 6/7 b."""
    two = Replicas(Place(0, 2))
    assert (two.loss_weight(4, 3), two.loss_weight(3, 4)) == (8 / 7, 6 / 7)
    assert ALONE.loss_weight(8, 0) == 1


def test_place_of_a_process() -> None:
    assert place_of({}) is None
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert place_of(environment) == Place(5, 8, 1, 4)
    for rank, size in (("2", "2"), ("-1", "2"), ("x", "2")):
        with pytest.raises(XnorNetError, match=r"RANK.* of the environment"):
            place_of({"RANK": rank, "WORLD_SIZE": size})


def source(golden: Path, data: Path, rank: int | None, n_donkeys: int) -> DataSource:
    part = None if rank is None else Replicas(Place(rank, 3)).part
    said: list[str] = []
    return open_data(str(data), str(golden / "cache"), image_size=256, crop_size=224, n_classes=5,
                     scaling_factor=0.5, n_donkeys=n_donkeys, manual_seed=2, say=said.append,
                     part=part)  # fmt: skip


def some_batches(data: DataSource) -> list[Batch]:
    return [*data.train_batches(2, 5), *data.test_batches(29, test_all=True), *data.train_batches(1, 5)]


@pytest.mark.parametrize("n_donkeys", [0, 1])
def test_parts_of_batches_together_are_the_batches(golden: Path, n_donkeys: int) -> None:
    """Bit for bit; the last test batch has one picture, so two of three processes have none of it."""
    with source(golden, golden / "imagenet", None, n_donkeys) as data:
        whole = [(b.inputs.copy(), b.labels) for b in some_batches(data)]
        streams = data.streams
    parts = []
    for rank in range(3):
        with source(golden, golden / "imagenet", rank, n_donkeys) as data:
            parts.append([(b.inputs.copy(), b.labels, b.n_others) for b in some_batches(data)])
            assert data.streams == streams
    for k, (inputs, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[k][0] for part in parts]), inputs)
        np.testing.assert_array_equal(np.concatenate([part[k][1] for part in parts]), labels)
        assert [len(part[k][1]) + part[k][2] for part in parts] == [len(labels)] * 3


def test_an_unreadable_picture_leaves_the_processes_together(golden: Path, tmp_path: Path) -> None:
    """One process draws a word less for it, as the original; several draw as for any other picture."""
    shutil.copytree(golden / "imagenet", tmp_path / "data")
    for path in sorted((tmp_path / "data").glob("*/*/*"))[::3]:
        path.write_bytes(b"no picture")
    streams: list[Any] = []
    for rank in range(3):
        with source(golden, tmp_path / "data", rank, 0) as data:
            batches = some_batches(data)
            streams.append(data.streams)
            assert any(batch.faults for batch in batches)
    assert streams[0] == streams[1] == streams[2]
