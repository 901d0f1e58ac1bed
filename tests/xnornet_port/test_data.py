"""Batches of whole runs, bit for bit those of real Torch7 (golden/runs)."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lua_compat
from xnornet_port.batches import Batch
from xnornet_port.data import DataSource, open_data
from xnornet_port.errors import XnorNetError

RUNS = ("bwn_sgd", "bwn_regime", "bwn_testonly", "full_alexnetxnor", "xnor_adam")


def open_golden(golden: Path, **changes: Any) -> DataSource:
    arguments: dict[str, Any] = {
        "data": str(golden / "imagenet"),
        "cache": str(golden / "cache"),
        "image_size": 256,
        "crop_size": 224,
        "n_classes": 5,
        "scaling_factor": 0.0,
        "n_donkeys": 0,
        "manual_seed": 2,
        "say": lambda text: None,
    }
    return open_data(**{**arguments, **changes})


def assert_recorded(batch: Batch, recorded: lua_compat.LuaTable) -> None:
    """Labels and every 2467-th value of each image equal; the sums, of doubles in another order, to 1e-12."""
    np.testing.assert_array_equal(batch.labels, recorded["labels"])
    images = batch.inputs.reshape(len(batch.labels), -1)
    np.testing.assert_array_equal(images[:, :: 150528 // 61], recorded["input"]["samples"])
    np.testing.assert_allclose(images.sum(axis=1, dtype=np.float64), recorded["input"]["sums"], rtol=1e-12)


@pytest.mark.parametrize("run", RUNS)
def test_inputs_and_labels_of_whole_runs(golden: Path, run: str) -> None:
    """Ledger rows 12 to 14: with -nDonkeys 0 training and testing draw from the one data stream."""
    trace = lua_compat.load(golden / "runs" / run / "trace.t7")
    options = trace["options"]
    training = trace.get("train", lua_compat.LuaTable()).to_list()
    testing = trace["test"].to_list()
    n_epochs = len(training) // options["epochSize"] if training else 1
    with open_golden(golden, manual_seed=options["manualSeed"]) as data:
        assert data.n_test_batches(options["batchSize"]) == len(testing) // n_epochs == 3  # 30 pictures by 8
        for _ in range(n_epochs):
            for batch in data.train_batches(options["epochSize"] if training else 0, options["batchSize"]):
                assert_recorded(batch, training.pop(0))
            for batch in data.test_batches(options["batchSize"]):
                assert_recorded(batch, testing.pop(0))
    assert training == testing == []


def test_classes_are_the_recorded_ones(golden: Path) -> None:
    said: list[str] = []
    with open_golden(golden, say=said.append) as data:
        assert data.classes == lua_compat.load(golden / "runs" / "bwn_sgd" / "classes.t7").to_list()
        assert data.n_test == 30
    log = (golden / "runs" / "bwn_sgd" / "stdout.log").read_text()
    block = log[log.index("Loading train metadata") : log.index("==> doing epoch")]
    assert said == [line.rstrip("\t") for line in block.splitlines()]  # print of the `th` program ends in a tab


def test_testing_all_pictures(golden: Path) -> None:
    """Ledger row 12: 30 pictures by 8 are 3 batches, or 4 of which the last has 6."""
    with open_golden(golden) as data:
        dropped = list(data.test_batches(8))
        whole = list(data.test_batches(8, test_all=True))
        assert data.n_test_batches(8, test_all=True) == 4
    assert [len(batch.labels) for batch in dropped] == [8, 8, 8]
    assert [len(batch.labels) for batch in whole] == [8, 8, 8, 6]
    assert np.concatenate([batch.labels for batch in whole]).tolist() == [c for c in range(1, 6) for _ in range(6)]
    for one, other in zip(dropped, whole, strict=False):
        np.testing.assert_array_equal(one.inputs, other.inputs)


def test_workers_give_the_same_twice_and_test_as_the_main_process_does(golden: Path) -> None:
    said: list[str] = []
    runs = []
    for _ in range(2):
        with open_golden(golden, n_donkeys=2, say=said.append) as data:
            runs.append([*data.train_batches(3, 4), *data.test_batches(8), *data.train_batches(3, 4)])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
    with open_golden(golden) as data:
        for one, other in zip(runs[0][3:6], data.test_batches(8), strict=True):
            np.testing.assert_array_equal(one.inputs, other.inputs)
    assert said[3:7] == [
        "Starting donkey with id: 1 seed: 3",
        "Starting donkey with id: 2 seed: 4",
        "nClasses: \t5",
        "nTest: \t30",
    ]


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_unreadable_pictures_are_counted_and_said_once(golden: Path, tmp_path: Path, n_donkeys: int) -> None:
    """Ledger row 15."""
    shutil.copytree(golden / "imagenet", tmp_path / "data")
    broken = tmp_path / "data" / "val" / "n01440764" / "ILSVRC2012_val_00000006.JPEG"  # the first of the cache
    broken.write_bytes(b"no picture")
    said: list[str] = []
    with open_golden(golden, data=str(tmp_path / "data"), n_donkeys=n_donkeys, say=said.append) as data:
        for _ in range(3):
            first = next(iter(data.test_batches(8)))
        assert data.unreadable.counts == {str(broken): 3}
    errors = [line for line in said if line.startswith("ERROR: image can not be loaded!!! ")]
    assert len(errors) == 1
    assert str(broken) in errors[0]
    assert [fault.path for fault in first.faults] == [str(broken)]
    assert [len(np.unique(channel)) for channel in first.inputs[0]] == [1, 1, 1]
    assert first.inputs[0, 0, 0, 0] == 0  # red mean minus red mean


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_streams_resume_in_the_middle_of_an_epoch(golden: Path, n_donkeys: int) -> None:
    with open_golden(golden, n_donkeys=n_donkeys) as data:
        batches = data.train_batches(6, 4)
        for _ in range(3):
            next(batches)
        states = data.streams
        expected = [batch.labels for batch in batches] + [batch.labels for batch in data.train_batches(2, 4)]
    with open_golden(golden, n_donkeys=n_donkeys) as data:
        data.streams = states
        found = [batch.labels for batch in data.train_batches(6, 4, first=3)]
        found += [batch.labels for batch in data.train_batches(2, 4)]
    np.testing.assert_array_equal(found, expected)


def test_streams_of_another_number_of_workers(golden: Path) -> None:
    with open_golden(golden) as data, pytest.raises(XnorNetError, match="2 random streams of data workers"):
        data.streams = [b"", b""]


def test_options_that_do_not_fit(golden: Path) -> None:
    with pytest.raises(
        XnorNetError, match=r"-nClasses is 1000, but .*trainCache\.t7 lists 5 classes \(.*\); use -nClasses 5"
    ):
        open_golden(golden, n_classes=1000)
    with pytest.raises(XnorNetError, match="-nDonkeys is -1"):
        open_golden(golden, n_donkeys=-1)
    with open_golden(golden) as data:
        with pytest.raises(XnorNetError, match="-batchSize 31 is larger than the test set of 30 pictures"):
            data.test_batches(31)
        assert data.n_test_batches(31, test_all=True) == 1
        for batches in (data.train_batches, data.test_batches):
            with pytest.raises(XnorNetError, match="-batchSize is 0"):
                batches(*((1, 0) if batches == data.train_batches else (0,)))
    with (
        open_golden(golden, image_size=224) as data,
        pytest.raises(XnorNetError, match="training needs -imageSize above -cropSize"),
    ):
        data.train_batches(1, 2)


@pytest.mark.parametrize("n_donkeys", [0, 1])
@pytest.mark.parametrize("batch_size", [2**44, 2**62])
def test_a_batch_larger_than_memory(golden: Path, n_donkeys: int, batch_size: int) -> None:
    """2**44 pictures of 602 kB are 2**63 bytes; 2**62 pictures have more bytes than a number in C can count."""
    with (
        open_golden(golden, n_donkeys=n_donkeys) as data,
        pytest.raises(XnorNetError, match=f"no memory for a batch of {batch_size} pictures"),
    ):
        next(data.train_batches(1, batch_size))


def test_one_picture_at_a_time(golden: Path) -> None:
    with open_golden(golden) as data:
        (batch,) = data.train_batches(1, 1)
        assert batch.inputs.shape == (1, 3, 224, 224)
        assert batch.seconds > 0


@pytest.mark.parametrize("n_donkeys", [0, 2])
def test_a_data_folder_that_disappears_ends_the_run(golden: Path, tmp_path: Path, n_donkeys: int) -> None:
    """Not a picture that cannot be read, to be replaced by the mean colour: all that follow would be."""
    shutil.copytree(golden / "imagenet", tmp_path / "data")
    with open_golden(golden, data=str(tmp_path / "data"), n_donkeys=n_donkeys) as data:
        batches = data.train_batches(200, 4)
        next(batches)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        with pytest.raises(XnorNetError, match=r"train: the data folder can no longer be read .*; bring it back"):
            list(batches)
    (tmp_path / "data" / "train").mkdir(parents=True)  # the place where a disk was mounted
    (tmp_path / "data" / "val").mkdir()
    with open_golden(golden, data=str(tmp_path / "elsewhere"), n_donkeys=n_donkeys) as data:
        shutil.rmtree(tmp_path / "elsewhere" / "val")
        (tmp_path / "elsewhere" / "val").mkdir()
        with pytest.raises(XnorNetError, match=r"val: the data folder is empty now"):
            list(data.test_batches(8))


def test_unreadable_pictures_are_listed_in_a_file(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "imagenet", tmp_path / "data")
    broken = tmp_path / "data" / "val" / "n01440764" / "ILSVRC2012_val_00000006.JPEG"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    file = tmp_path / "unreadable.txt"
    warned: list[str] = []
    with open_golden(golden, data=str(tmp_path / "data"), unreadable_file=file, warn=warned.append) as data:
        list(data.test_batches(8))
    reason = "damaged, not a readable JPEG file"
    assert file.read_text() == f"{broken}\t{reason}\n"
    assert warned == [f"ERROR: image can not be loaded!!! {broken}: {reason}; the mean colour stands in for it"]
