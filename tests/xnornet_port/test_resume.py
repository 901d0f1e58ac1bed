"""A run that is stopped and resumed ends as the undisturbed one: every file of it, byte for byte."""

from __future__ import annotations

import errno
import functools
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn
import xnornet_port.passes
import xnornet_port.run
import xnornet_port.run_state
from xnornet_port import cli
from xnornet_port.errors import XnorNetError
from xnornet_port.evaluate import evaluate
from xnornet_port.folder_lock import folder_lock
from xnornet_port.record import MAY_CHANGE
from xnornet_port.train import train_epoch

Outcome = tuple[int, str, str]
Main = Callable[..., Outcome]

FILES = ["train.log", "test.log", "classes.t7", "model_1.t7", "model_2.t7", "optimState_1.t7", "optimState_2.t7"]


@pytest.fixture(scope="module")
def network(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small XNOR network with a dropout in it, so that all random streams count."""
    net = lua_compat.nn.load(golden / "models" / "tiny_xnor.t7")
    assert isinstance(net, nn.Sequential)
    net.insert(3, lua_compat.nn.SpatialDropout(0.3))
    path = tmp_path_factory.mktemp("network") / "network.t7"
    lua_compat.save(path, lua_compat.nn.from_torch(net))
    return path


def arguments(golden: Path, cache: Path, network: Path, options: tuple[object, ...]) -> list[str]:
    """Of a new run, or with -resume just the options."""
    start: list[object] = [
        "-data", golden / "imagenet", "-cache", cache, "-nClasses", 5, "-device", "cpu", "-nDonkeys", 0,
        "-batchSize", 8, "-epochSize", 3, "-nEpochs", 2, "-binaryWeight", "-optimType", "adam", "-retrain", network,
    ]  # fmt: skip
    return [str(word) for word in (*([] if "-resume" in options else start), *options)]


@pytest.fixture
def main(golden: Path, tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> Main:
    shutil.copytree(golden / "cache", tmp_path / "cache")

    def go(*options: object) -> Outcome:
        code = cli.main(arguments(golden, tmp_path / "cache", network, options))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[], Path]:
    """The run's folder, one in a test."""
    return lambda: next((tmp_path / "cache").glob("*/*/"))


@pytest.fixture(scope="module")
def undisturbed(golden: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Folder of a run that was left alone, by its number of workers; made once."""

    @functools.cache
    def run(n_donkeys: int) -> Path:
        cache = tmp_path_factory.mktemp("undisturbed") / "cache"
        shutil.copytree(golden / "cache", cache)
        assert cli.main(arguments(golden, cache, network, ("-nDonkeys", n_donkeys, "-quiet"))) == 0
        return next(cache.glob("*/*/"))

    return run


def stop_after(patch: pytest.MonkeyPatch, phase: str, batch: int, signal_number: int = signal.SIGTERM) -> None:
    """Raise the signal once, after so many batches of training (or testing), whatever the epoch."""
    name = {"train": "train_epoch", "test": "evaluate"}[phase]
    original: Callable[..., Any] = {"train": train_epoch, "test": evaluate}[phase]
    count = 0

    def interrupting(*arguments: Any) -> Any:
        *before, on_batch, should_stop = arguments

        def note(*report: Any) -> None:
            nonlocal count
            on_batch(*report)
            count += 1
            if count == batch:
                signal.raise_signal(signal_number)

        return original(*before, note, should_stop)

    patch.setattr(xnornet_port.passes, name, interrupting)


def assert_same_files(found: Path, expected: Path) -> None:
    for name in FILES:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize(
    ("n_donkeys", "phase", "batch"),
    [(0, "train", 1), (0, "train", 3), (0, "test", 2), (2, "train", 5)],
)
def test_stopped_and_resumed_is_bit_equal(main: Main, undisturbed: Callable[[int], Path], folder: Callable[[], Path],
                                          n_donkeys: int, phase: str, batch: int) -> None:  # fmt: skip
    expected = undisturbed(n_donkeys)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, phase, batch)
        code, out, _ = main("-nDonkeys", n_donkeys)
    assert code == 143
    assert "SIGTERM: stopping after this batch" in out
    assert f"go on with -resume {folder()}" in out
    code, out, err = main("-resume", folder())
    assert (code, err) == (0, "")
    assert f"Resuming {folder()}: epoch" in out
    assert_same_files(folder(), expected)


def test_a_run_that_made_its_own_caches_is_resumed_from_them(main: Main, folder: Callable[[], Path], golden: Path,
                                                             network: Path, tmp_path: Path) -> None:  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "cache", other)
    for cache in (tmp_path / "cache", other):
        for name in ("trainCache.t7", "testCache.t7"):  # not the mean and deviation, which take 10,000 pictures
            (cache / name).unlink()
    assert cli.main(arguments(golden, other, network, ("-quiet",))) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "train", 2)
        assert main()[0] == 143
    code, _, err = main("-resume", folder())
    assert (code, err) == (0, "")
    assert_same_files(folder(), next(other.glob("*/*/")))


def test_from_a_state_within_an_epoch_after_a_loss_of_everything_since(
    main: Main, undisturbed: Callable[[int], Path], folder: Callable[[], Path]
) -> None:
    """As after kill -9: batches, log lines and a model that came after the last state are done again, not doubled."""
    expected = undisturbed(0)
    states: dict[str, bytes] = {}

    def note(moment: Any) -> None:
        if moment.epoch == 2 and not states:
            states.update({path.name: path.read_bytes() for path in folder().glob("state_*")})

    with pytest.MonkeyPatch.context() as patch:
        original = xnornet_port.run_state.StateKeeper.after_batch
        patch.setattr(xnornet_port.run_state.StateKeeper, "after_batch", lambda self, m: (original(self, m), note(m)))
        assert main("-checkpointEvery", 1)[0] == 0
    assert "state_2_1.json" in states
    for path in folder().glob("state_*"):
        path.unlink()
    for name, data in states.items():
        (folder() / name).write_bytes(data)
    with (folder() / "test.log").open("a") as log:
        log.write(" 1.0\t 2.0")  # a line half written
    _, out, _ = main("-resume", folder())
    assert "epoch 2, 1 of 3 batches trained" in out
    assert_same_files(folder(), expected)


def test_a_damaged_state_costs_the_batches_since_the_one_before(
    main: Main, undisturbed: Callable[[int], Path], folder: Callable[[], Path]
) -> None:
    expected = undisturbed(0)
    assert main("-checkpointEvery", 2)[0] == 0
    (folder() / "state_3_0.safetensors").write_bytes(b"")
    code, out, _ = main("-resume", folder())
    assert code == 0
    assert "state_3_0.json: this state is damaged (state_3_0.safetensors has another size)" in out
    assert "epoch 2, 3 of 3 batches trained" in out
    assert_same_files(folder(), expected)


def test_a_finished_run_has_nothing_left_to_do_but_can_be_made_longer(main: Main, folder: Callable[[], Path]) -> None:
    main("-nEpochs", 1)
    _, out, _ = main("-resume", folder())
    assert "epoch 2, 0 of 3 batches trained" in out
    assert "[2/3]" not in out
    code, out, _ = main("-resume", folder(), "-nEpochs", 2)
    assert code == 0
    assert "Epoch: [2][3/3]" in out
    record = json.loads((folder() / "options.json").read_text())
    assert record["options"]["nEpochs"] == 2
    assert len(record["resumed"]) == 2


def test_killed_before_its_first_state_it_starts_from_the_beginning(main: Main, undisturbed: Callable[[int], Path],
                                                                    folder: Callable[[], Path]) -> None:  # fmt: skip
    expected = undisturbed(0)
    main("-nEpochs", 0)
    _, out, _ = main("-resume", folder(), "-nEpochs", 2)
    assert "no state was kept yet, it starts from the beginning" in out
    assert_same_files(folder(), expected)


def test_the_network_it_was_started_from_may_be_gone(main: Main, folder: Callable[[], Path], network: Path,
                                                     tmp_path: Path) -> None:  # fmt: skip
    shutil.copy(network, tmp_path / "start.t7")
    main("-nEpochs", 1, "-retrain", tmp_path / "start.t7")
    (tmp_path / "start.t7").unlink()
    code, out, _ = main("-resume", folder(), "-nEpochs", 2)
    assert code == 0
    assert f"Loading model from file: {folder() / 'model_1.t7'}" in out


def test_a_full_disk_costs_the_state_not_the_run(main: Main, folder: Callable[[], Path],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def full(folder: Path, epoch: int, batch: int, *rest: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xnornet_port.run_state, "write_state", full)
        code, out, _ = main("-nEpochs", 1, "-checkpointEvery", 2)
    assert code == 0
    assert "State of epoch 1, batch 2 could not be kept" in out
    assert "(No space left on device); the one before is still there, training goes on" in out


def test_what_cannot_be_resumed_is_one_line(main: Main, folder: Callable[[], Path], tmp_path: Path,
                                            golden: Path) -> None:  # fmt: skip
    main("-nEpochs", 1)
    run = folder()
    other = tmp_path / "other"
    shutil.copytree(golden / "imagenet", other)
    last = sorted((other / "val").glob("*/*"))[-1]
    shutil.copy(last, last.with_name("one_more" + last.suffix))
    empty_cache = tmp_path / "other_cache"
    shutil.copytree(golden / "cache", empty_cache)
    (empty_cache / "testCache.t7").unlink()
    cases: list[tuple[tuple[object, ...], str]] = [
        (
            ("-resume", tmp_path / "nowhere"),
            "nowhere/options.json: No such file or directory; -resume needs",
        ),
        (("-resume", run, "-batchSize", 16), f"-batchSize 16 contradicts the run in {run}, which has 8"),
        (("-resume", run, "-batchSize", 128), "-batchSize 128 contradicts the run"),  # the default, but typed
        (("-resume", run, "-testOnly"), "-testOnly True contradicts the run"),
        (("-resume", run, "-data", tmp_path / "gone"), "gone"),
        (("-resume", run, "-data", other, "-cache", empty_cache), "hold other pictures, classes or means"),
    ]
    record = (run / "options.json").read_bytes()
    for options, expected in cases:
        code, _, error = main(*options)
        assert code == 1, options
        assert expected in error, options
        assert error.count("\n") == 1, error
        assert (run / "options.json").read_bytes() == record, "a refused -data would be the next one's default"
    (run / "options.json").write_text("{")
    assert "options.json: damaged" in main("-resume", run)[2]
    (run / "options.json").write_text('{"options": {"batchSize": "x"}}')
    assert "option batchSize is 'x', expected a number" in main("-resume", run)[2]


def test_the_page_names_the_options_that_may_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"only (`-[^.]+`) may be given with others", page)
    assert {"resume", *re.findall(r"`-(\w+)`", named)} == set(MAY_CHANGE)


def test_another_network_in_the_state_is_refused(main: Main, folder: Callable[[], Path], golden: Path,
                                                 network: Path) -> None:  # fmt: skip
    main("-nEpochs", 1)
    record = folder() / "options.json"
    record.write_text(record.read_text().replace(str(network), str(golden / "models" / "tiny_bwn.t7")))
    code, _, error = main("-resume", folder())
    assert code == 1
    assert "state_2_0.json: is of another network" in error


def test_the_state_is_read_when_nobody_else_writes_one(main: Main, folder: Callable[[], Path],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """A cluster may start a run again while it still ends: what that writes last is what to go on from."""
    main("-nEpochs", 1)
    read: list[Path] = []

    def reading(path: Path, warn: Callable[[str], None]) -> Any:
        with pytest.raises(XnorNetError, match="another process runs in this folder"), folder_lock(path):
            pass
        read.append(path)
        return xnornet_port.state_files.read_newest_state(path, warn)

    monkeypatch.setattr(xnornet_port.run, "read_newest_state", reading)
    assert main("-resume", folder())[0] == 0
    assert read == [folder()]


def test_states_hold_plain_data(main: Main, folder: Callable[[], Path]) -> None:
    """They can be looked at: JSON, and tensors under the network's own names."""
    main("-nEpochs", 1)
    stored = xnornet_port.state_files.read_newest_state(folder(), pytest.fail)
    assert stored is not None
    saved = lua_compat.nn.load(folder() / "model_1.t7")
    names = {f"network.{name}" for name in saved.state_dict()}
    assert names <= stored.tensors.keys()
    assert stored.facts["logs"]["train.log"] == (folder() / "train.log").read_text()
    assert isinstance(stored.tensors["optimizer.0.m"], torch.Tensor)
