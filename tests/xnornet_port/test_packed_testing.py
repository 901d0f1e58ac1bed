"""main.py -testOnly -backend xnor: the figures of the float path, from a .t7 and from a packed file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xnornet_port import XnorModel, cli, load_model

TestRun = Callable[..., tuple[int, str, str]]


@pytest.fixture
def test_only(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> TestRun:
    """main.py -testOnly on the 30 validation pictures; returns exit code, output and errors."""
    shutil.copytree(golden / "cache", tmp_path / "cache")

    def go(network: Path, *options: object) -> tuple[int, str, str]:
        arguments = ["-data", golden / "imagenet", "-cache", tmp_path / "cache", "-nClasses", 5, "-nDonkeys", 0,
                     "-device", "cpu", "-batchSize", 8, "-testOnly", "-testAll", "-retrain", network]  # fmt: skip
        code = cli.main([str(argument) for argument in (*arguments, *options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


def figures(out: str) -> list[str]:
    """Loss and top-1 of the summary line."""
    return next(line for line in out.splitlines() if "[TESTING SUMMARY]" in line).split("\t")[1:]


@pytest.mark.parametrize("name", ["models/tiny_xnor.t7", "runs/xnor_adam/after_batch_2.t7"])
def test_the_figures_are_the_float_paths(name: str, test_only: TestRun, golden: Path, tmp_path: Path) -> None:
    _, of_floats, _ = test_only(golden / name, "-binaryWeight")
    code, of_bits, _ = test_only(golden / name, "-backend", "xnor")
    packed = tmp_path / "packed.xnor.safetensors"
    XnorModel.from_model(load_model(golden / name)).save(packed)
    packed_code, of_file, _ = test_only(packed, "-backend", "xnor")
    assert (code, packed_code) == (0, 0)
    assert figures(of_bits) == figures(of_file) == figures(of_floats)
    line = "Testing with packed kernels (cpu): 5 layers with binary inputs; weights"
    assert f"{line} latent (real-valued): binarised" in of_bits
    assert f"{line} packed already" in of_file
    assert "xnornet.XnorConvolution" in of_file  # the network is printed


def test_binary_weight_networks(test_only: TestRun, golden: Path) -> None:
    trained = golden / "runs" / "bwn_sgd" / "after_batch_1.t7"
    _, of_floats, _ = test_only(trained, "-binaryWeight")
    code, of_bits, _ = test_only(trained, "-backend", "xnor")  # mean-centred: the mark of -binaryWeight
    assert code == 0
    assert figures(of_bits) == figures(of_floats)
    assert " layers with real inputs (BWN: weights are bits)" in of_bits


def test_errors_are_one_line(test_only: TestRun, golden: Path, tmp_path: Path) -> None:
    never_trained = golden / "models" / "tiny_bwn.t7"
    code, _, error = test_only(never_trained, "-backend", "xnor")
    assert code == 1
    assert error.startswith("error: the network has no binary inputs, and its weights bear no mark of training")
    assert test_only(never_trained, "-backend", "xnor", "-binaryWeight")[0] == 0
    damaged = tmp_path / "damaged.xnor.safetensors"
    damaged.write_bytes(b"nothing")
    code, _, error = test_only(damaged, "-backend", "xnor")
    assert code == 1
    assert error.startswith(f"error: {damaged}: not a safetensors file")
    assert error.count("\n") == 1
