"""Runs of main.py on the small networks and the 80 pictures of tests/golden: order, options, errors, files."""

from __future__ import annotations

import errno
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lua_compat
import lua_compat.nn
import xnornet_port.passes
import xnornet_port.run
import xnornet_port.training
from xnornet_port import cli
from xnornet_port.binarization import Binarizer, binary_convolutions
from xnornet_port.errors import XnorNetError
from xnornet_port.parallel import Place
from xnornet_port.run import choose_device, run
from xnornet_port.train import Learner, train_epoch

MainRun = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> MainRun:
    """Run main.py with some options and the recorded caches; returns exit code, output and errors."""
    shutil.copytree(golden / "cache", tmp_path / "cache")

    def go(*options: object, network: str = "tiny_bwn.t7") -> tuple[int, str, str]:
        arguments = ["-data", golden / "imagenet", "-cache", tmp_path / "cache", "-nClasses", 5, "-nDonkeys", 0,
                     "-device", "cpu", "-batchSize", 8, "-epochSize", 2, "-nEpochs", 1]  # fmt: skip
        if network:
            arguments += ["-retrain", golden / "models" / network]
        code = cli.main([str(argument) for argument in (*arguments, *options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[], Path]:
    """The folder of the run that was started last."""
    return lambda: max((tmp_path / "cache").glob("*/*/"), key=lambda folder: folder.stat().st_mtime)


def test_files_and_lines_of_a_run(main: MainRun, saved: Callable[[], Path]) -> None:
    code, out, error = main("-binaryWeight")
    assert code == 0
    names = {path.name for path in saved().iterdir()}
    states = {f"state_{place}.{kind}" for place in ("1_2", "2_0") for kind in ("json", "safetensors")}
    files = {"classes.t7", "model_1.t7", "optimState_1.t7", "options.json", "test.log", "train.log"}
    assert names == files | states
    assert not error
    record = json.loads((saved() / "options.json").read_text())
    assert {"options", "command", "started", "device", "machine", "versions"} <= set(record)
    lines = out.splitlines()
    assert lines[0] == "-- ignore option cache\t"
    assert "nClasses: \t5\t" in lines
    start = next(line for line in lines if line.startswith("Epoch: [1][1/2]"))
    words = start.split("\t")
    assert words[0] == "Epoch: [1][1/2]"
    assert words[1].startswith("Time ")
    assert words[-2].split(" LR ")[0].endswith(")")


def test_a_run_that_leaves_large_states_says_what_may_go(main: MainRun, saved: Callable[[], Path],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(xnornet_port.training, "size_of_states", lambda folder: 1_634_000_000)
    for quiet in ((), ("-quiet",)):
        code, out, error = main("-epochSize", 1, *quiet)
        assert code == 0
        assert "state_*" not in out
        expected = f"Done. The files state_* (1.6 GB) serve only to add epochs with -resume {saved()} -nEpochs N; "
        assert error == ("" if quiet else f"{expected}delete them when no more are wanted\n")


def test_the_console_is_the_originals_but_for_numbers(main: MainRun, golden: Path) -> None:
    """Line by line against real Torch7's console: same words in the same order, figures left out."""
    _, out, _ = main("-binaryWeight", "-epochSize", 6, "-nEpochs", 2)
    ours, theirs = (console(text) for text in (out, (golden / "runs" / "bwn_sgd" / "stdout.log").read_text()))
    first = ours.index("==> Converting model to CUDA\t")
    # the first is main.lua's, the recording left it out; the others are ours
    extra = ("Saving everything to", "Running on", "Tested N of N pictures")
    ours_after = [line for line in ours[first:] if not line.startswith(extra)]
    table_end = ours_after.index("}")
    assert ours_after[table_end:] == theirs[theirs.index("}", theirs.index("==> Converting model to CUDA\t")) :]
    model = ours.index("=> Model\t")
    assert ours[model:first] == theirs[theirs.index("=> Model\t") : theirs.index("==> Converting model to CUDA\t")]


def console(text: str) -> list[str]:
    """Lines with numbers replaced: figures of time, loss and accuracy differ from machine to machine."""
    import re

    is_network = False
    lines = []
    for line in text.splitlines():
        is_network = line.startswith("=> Model") or (is_network and not line.startswith("==> Conv"))
        lines.append(line if is_network else re.sub(r"\d+\.\d+|\d+", "N", line))
    return lines


def test_the_saved_network_tests_as_the_trained_one(main: MainRun, saved: Callable[[], Path]) -> None:
    _, out, _ = main("-binaryWeight", network="tiny_xnor.t7")
    model = saved() / "model_1.t7"
    _, again, _ = main("-binaryWeight", "-testOnly", "-retrain", model, network="")
    assert figures(out, "TESTING") == figures(again, "TESTING")


@pytest.mark.parametrize(("net_type", "criterion"), [("resnet", "CrossEntropyCriterion"), ("resnetxnor", "ClassNLL")])
def test_a_residual_network_of_our_own_is_trained_saved_and_tested(
    main: MainRun, saved: Callable[[], Path], net_type: str, criterion: str
) -> None:
    """A depth of 6n + 2 is the network for pictures of 32x32; -depth and -shortcutType are its own."""
    options = ("-depth", 8, "-shortcutType", "A", "-imageSize", 40, "-cropSize", 32)
    code, out, _ = main("-netType", net_type, *options, "-binaryWeight", network="")
    assert code == 0
    assert f"=> Criterion\t\nnn.{criterion}" in out
    model = saved() / "model_1.t7"
    _, again, _ = main("-binaryWeight", "-testOnly", "-retrain", model, *options, network="")
    assert figures(out, "TESTING") == figures(again, "TESTING")


def test_a_depth_that_cannot_be_is_one_line(main: MainRun) -> None:
    code, _, errors = main("-netType", "resnet", "-depth", 19, network="")
    assert code == 1
    assert errors.startswith("error: -depth 19: expected one of 18, 34, 50, 101, 152")
    assert errors.count("\n") == 1


def figures(out: str, phase: str) -> list[str]:
    """Loss and top-1 of a summary line."""
    line = next(line for line in out.splitlines() if f"[{phase} SUMMARY]" in line)
    return line.split("\t")[1:]


def test_a_new_network_takes_parameters_from_a_file(main: MainRun, golden: Path, saved: Callable[[], Path],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    tiny = lua_compat.nn.load(golden / "models" / "tiny_bwn.t7")
    fresh = lua_compat.nn.load(golden / "models" / "tiny_bwn.t7")
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    monkeypatch.setattr(xnornet_port.run, "build_model", lambda *arguments, **settings: fresh)
    code, _, _ = main("-testOnly", "-loadParams", golden / "models" / "tiny_bwn.t7", network="")
    assert code == 0
    for ours, theirs in zip(fresh.parameters(), tiny.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_last_update_is_lost_for_the_next_epoch(main: MainRun, saved: Callable[[], Path],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Ledger 5: model_1.t7 has the update of the last batch, the second epoch starts without it."""
    starts: list[list[np.ndarray]] = []

    def noting(learner: Learner, *arguments: Any) -> Any:
        starts.append([parameter.detach().numpy().copy() for parameter in learner.network.parameters()])
        return train_epoch(learner, *arguments)

    monkeypatch.setattr(xnornet_port.passes, "train_epoch", noting)
    main("-binaryWeight", "-nEpochs", 2)
    after_update = [p.detach().numpy() for p in lua_compat.nn.load(saved() / "model_1.t7").parameters()]
    last = -2  # the last convolution's weight: never binarised, so only the update changes it
    assert not np.array_equal(starts[1][last], after_update[last])
    starts.clear()
    main("-nEpochs", 2)  # without -binaryWeight nothing is put back
    after_update = [p.detach().numpy() for p in lua_compat.nn.load(saved() / "model_1.t7").parameters()]
    np.testing.assert_array_equal(starts[1][last], after_update[last])


@pytest.mark.parametrize(
    ("options", "rate"),
    [  # ledger 10 and train.lua: the recipe's rate, a tenth of it for adam; -LR as given
        (("-epochNumber", 1), "1e-02"),
        (("-epochNumber", 1, "-optimType", "adam"), "1e-03"),
        (("-epochNumber", 1, "-optimType", "adamax"), "1e-03"),
        (("-epochNumber", 25), "5e-03"),
        (("-epochNumber", 54), "1e-04"),
        (("-LR", 0.5), "5e-01"),
        (("-LR", 0.5, "-optimType", "adam"), "5e-01"),
    ],
)
def test_learning_rates(main: MainRun, options: tuple[object, ...], rate: str) -> None:
    _, out, _ = main("-epochSize", 1, *options)
    assert f"LR {rate} " in out


def test_options_without_effect_are_said(main: MainRun) -> None:
    _, out, _ = main("-epochSize", 1, "-weightDecay", 0.1)
    assert "-weightDecay 0.1 has no effect without -LR" in out
    assert "Running on: cpu\t" in out
    _, out, _ = main("-epochSize", 1, network="tiny_xnor.t7")
    assert "without -binaryWeight its weights are trained real-valued" in out
    _, out, _ = main("-epochSize", 1, "-LR", 0.1, "-optimType", "adam")
    assert "-LR 0.1 is used as it is" in out


def test_a_run_goes_on_from_its_files(main: MainRun, saved: Callable[[], Path]) -> None:
    main("-optimType", "adam", "-binaryWeight")
    before = saved()
    code, out, _ = main("-optimType", "adam", "-binaryWeight", "-retrain", before / "model_1.t7", "-optimState",
                        before / "optimState_1.t7", "-epochNumber", 2, network="")  # fmt: skip
    assert code == 0
    assert "Epoch: [2][2/2]" in out
    assert lua_compat.load(saved() / "optimState_2.t7")["t"] == 4


def test_the_last_incomplete_batch_is_left_out_unless_asked_for(main: MainRun) -> None:
    _, out, error = main("-testOnly")
    assert "Tested 24 of 30 pictures" in out
    assert not error
    _, out, _ = main("-testOnly", "-testAll")
    assert "Tested" not in out


def test_a_batch_of_one_trains_and_tests(main: MainRun) -> None:
    """Where the original's computeScore stops with an index error."""
    code, out, _ = main("-batchSize", 1, "-binaryWeight")
    assert code == 0
    assert "Epoch: [1][2/2]" in out
    assert "TESTING SUMMARY" in out


def test_errors_are_one_line(main: MainRun, tmp_path: Path, golden: Path) -> None:
    text = tmp_path / "model.t7"
    text.write_text("<html>Not found</html>")
    cases = {
        ("-data", tmp_path / "nowhere"): "nowhere",
        ("-retrain", text): "expected a .t7 file, found",
        ("-nClasses", 7): "the network has 5 classes, -nClasses says 7",
        ("-cropSize", 32): "-cropSize 32: the network cannot take such a picture",
        ("-data", golden): "there is no folder train in it",
        ("-batchSize", 31): "larger than the test set of 30 pictures",
        ("-optimState", golden / "runs" / "bwn_sgd" / "classes.t7"): "classes.t7",
        ("-loadParams", text, "-retrain", "none"): "model.t7",
        ("-imageSize", 224): "training needs -imageSize above -cropSize",
        ("-scalingFactor", 1e9): "-imageSize 256 with -scalingFactor 1e+09 gives pictures of",
    }
    for options, expected in cases.items():
        code, _, error = main(*options)
        assert code == 1, options
        assert error.startswith("error: "), options
        assert expected in error, options
        assert "-resume" not in error, "nothing has begun, and the options of a run that is resumed are its own"
        assert error.count("\n") == 1, options
        left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".t7"]
        assert not left, f"{options}: an empty folder is left"


def test_classes_are_counted_before_a_network_is_drawn(main: MainRun, tmp_path: Path, golden: Path) -> None:
    """In the cache or, where there is none, the folders; a network of 1000 classes takes seconds to draw and print."""
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "val").mkdir()
    for number in range(11):
        (tmp_path / "many" / "train" / f"class{number}").mkdir(parents=True)
    (tmp_path / "many" / "val").mkdir()
    names = ", ".join(sorted(path.name for path in (golden / "imagenet" / "train").iterdir()))
    new = ("-cache", tmp_path / "new")
    cases: dict[tuple[object, ...], str] = {
        ("-nClasses", 7): "-nClasses is 7, but CACHE/trainCache.t7 lists 5 (CLASSES); use -nClasses 5, or delete",
        ("-nClasses", 10**12, *new): f"-nClasses is {10**12}, but {golden}/imagenet/train has 5 (CLASSES); use",
        ("-data", tmp_path / "many", *new): f"{tmp_path}/many/train has 11 classes; use -nClasses 11\n",
        ("-data", tmp_path / "empty", *new): "empty/train: no class folders in it",
    }
    for options, message in cases.items():
        code, out, error = main(*options, network="")
        assert code == 1
        expected = message.replace("CACHE", str(tmp_path / "cache")).replace("(CLASSES)", f"classes ({names})")
        assert expected in error
        assert "=> Creating model" not in out, options
        assert not (tmp_path / "new").exists()


def test_no_memory_for_a_network_is_one_line(main: MainRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xnornet_port.run, "check_class_count", lambda *_: None)  # as if the data had so many
    code, _, error = main("-nClasses", 10**12, network="")
    assert code == 1
    assert error.startswith("error: no memory for the network (the last piece wanted: 16384")
    assert error.count("\n") == 1


def test_a_failed_start_takes_no_folder_that_was_there(main: MainRun, tmp_path: Path, golden: Path) -> None:
    cache = tmp_path / "new" / "cache"
    cache.parent.mkdir()
    data = tmp_path / "data"
    (data / "val").mkdir(parents=True)
    (data / "train").symlink_to(golden / "imagenet" / "train")
    code, _, error = main("-cache", cache, "-data", data)  # makes a cache first
    assert code == 1
    assert "data/val: no class folders in it" in error
    assert {path.name for path in cache.iterdir()} == {"trainCache.t7"}
    assert main("-cache", tmp_path / "new" / "other", "-optimState", tmp_path, network="")[0] == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]


def test_a_loss_of_nan_stops_and_keeps_the_last_model(main: MainRun, saved: Callable[[], Path],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The second epoch's first batch gives nan: model_1.t7 is kept, and the error says how to go on from it."""
    epochs = 0

    def poisoned(learner: Learner, *arguments: Any) -> Any:
        nonlocal epochs
        epochs += 1
        if epochs == 2:
            with torch.no_grad():
                next(learner.network.parameters()).fill_(float("nan"))
        return train_epoch(learner, *arguments)

    monkeypatch.setattr(xnornet_port.passes, "train_epoch", poisoned)
    code, _, error = main("-nEpochs", 3)
    assert code == 1
    assert error.startswith("error: epoch 2: the loss is nan")
    assert "model_1.t7" in error
    assert "-epochNumber 2" in error
    assert not (saved() / "model_2.t7").exists()
    assert all(torch.isfinite(p).all() for p in lua_compat.nn.load(saved() / "model_1.t7").parameters())


def test_a_full_disk_is_one_line(main: MainRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "options.json")

    monkeypatch.setattr(xnornet_port.run, "write_record", full)
    code, _, error = main()
    assert code == 1
    assert error == "error: options.json: No space left on device\n"


def test_ctrl_c_ends_after_the_batch(main: MainRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(learner: Learner, *arguments: Any) -> Any:
        *before, on_batch, should_stop = arguments

        def note(batch: Any) -> None:
            on_batch(batch)
            signal.raise_signal(signal.SIGINT)

        return train_epoch(learner, *before, note, should_stop)

    monkeypatch.setattr(xnornet_port.passes, "train_epoch", interrupting)
    code, out, _ = main("-epochSize", 5)
    assert code == 130
    assert "Epoch: [1][1/5]" in out
    assert "Epoch: [1][2/5]" not in out
    assert "Ctrl-C: stopping after this batch" in out
    assert "Stopped in epoch 1 (1 of 5 batches): go on with -resume" in out


def test_latent_weights_of_an_xnor_network_are_binarised_for_a_test(main: MainRun) -> None:
    """Ledger 22: `-retrain alexnet_XNOR.t7 -testOnly` gives what -binaryWeight gives, and says so."""
    _, asked, _ = main("-testOnly", "-binaryWeight", network="tiny_xnor.t7")
    _, plain, _ = main("-testOnly", network="tiny_xnor.t7")
    _, latent, _ = main("-testOnly", "-latentWeights", network="tiny_xnor.t7")
    assert figures(plain, "TESTING") == figures(asked, "TESTING") != figures(latent, "TESTING")
    assert "holds latent (real-valued) weights" in plain
    assert "latent (real-valued)" not in asked + latent


def test_binary_weights_in_the_file_are_tested_as_they_are(main: MainRun, golden: Path, tmp_path: Path) -> None:
    network = lua_compat.nn.load(golden / "models" / "tiny_xnor.t7")
    Binarizer(network).binarize()
    lua_compat.save(tmp_path / "binary.t7", lua_compat.nn.from_torch(network))
    _, out, _ = main("-testOnly", "-retrain", tmp_path / "binary.t7", network="")
    _, asked, _ = main("-testOnly", "-binaryWeight", network="tiny_xnor.t7")
    assert "latent" not in out
    assert figures(out, "TESTING") == figures(asked, "TESTING")


def test_a_bwn_network_trained_with_binary_weights_is_noticed(main: MainRun, golden: Path) -> None:
    trained = golden / "runs" / "bwn_sgd" / "after_batch_1.t7"
    _, out, _ = main("-testOnly", "-retrain", trained, network="")
    assert "mean-centred" in out
    assert "-binaryWeight" in out
    _, out, _ = main("-testOnly")  # tiny_bwn.t7 was never trained
    assert "mean-centred" not in out


def test_testing_leaves_the_weights_as_they_were(golden: Path, main: MainRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledger 6: the test binarises the weights as they are, uncentred, and only while it lasts."""
    network = lua_compat.nn.load(golden / "models" / "tiny_bwn.t7")
    before = [parameter.detach().clone() for parameter in network.parameters()]
    during: list[torch.Tensor] = []
    convolution = binary_convolutions(network)[0]
    convolution.register_forward_pre_hook(lambda module, inputs: during.append(module.weight.detach().clone()))
    monkeypatch.setattr(xnornet_port.run, "load_model", lambda path: network)
    main("-testOnly", "-binaryWeight")
    latent = before[[id(p) for p in network.parameters()].index(id(convolution.weight))]
    alpha = latent.abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(during[-1], alpha * latent.sign())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_quiet_prints_summaries_only(main: MainRun) -> None:
    _, out, error = main("-quiet")
    assert not error
    assert [line.split("]")[1] for line in out.splitlines() if "SUMMARY" in line] == [
        "[TRAINING SUMMARY", "[TESTING SUMMARY"]  # fmt: skip
    assert "=> Model" not in out
    assert "Err" not in out


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 1) == choose_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(XnorNetError, match="-device cuda: PyTorch finds no CUDA GPU"):
        choose_device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 2) == torch.device("cuda", 1)
    with pytest.raises(XnorNetError, match="-GPU 3: there are GPUs 1 to 2"):
        choose_device("cuda", 3)
    assert choose_device("auto", 1, Place(5, 6, local_rank=1, local_size=2)) == torch.device("cuda", 1)
    with pytest.raises(XnorNetError, match="-GPU 1 for 4 processes, each with a GPU of its own"):
        choose_device("auto", 1, Place(0, 4, local_rank=0, local_size=4))


def test_help_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-help"]) == 0
    assert "-binaryWeight" in capsys.readouterr().out
    assert cli.main(["-nosuchoption"]) == 1
    assert "invalid argument: -nosuchoption" in capsys.readouterr().err


def test_run_is_what_main_calls() -> None:
    assert run.__module__ == "xnornet_port.run"
