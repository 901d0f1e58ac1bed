"""cache_tools parity on small networks: both paths, a doctored file, stopping and going on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import cache_tools.parity
import cache_tools.parity_run
import lua_compat
import lua_compat.nn
from cache_tools.__main__ import main
from cache_tools.parity_layers import FloatConvolutions, signs_as_floats
from cache_tools.parity_run import is_alexnet
from cache_tools.parity_state import Progress, scores_of
from xnornet_port import XnorModel, load_model
from xnornet_port.binarization import Binarizer
from xnornet_port.errors import XnorNetError
from xnornet_port.kernels import Geometry, Thresholds, pack_input, pack_weights, reference
from xnornet_port.kernels.geometry import Pooling
from xnornet_port.models import NETWORKS, NetworkSettings

Parity = Callable[..., tuple[int, str, str]]
XNOR = "models/tiny_xnor.t7"


@pytest.fixture
def parity(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Parity:
    """Run the command on the 30 validation pictures; returns exit code, output and errors."""
    shutil.copytree(golden / "cache", tmp_path / "cache")

    def go(*words: object) -> tuple[int, str, str]:
        given = ["parity", "--data", golden / "imagenet", "--cache", tmp_path / "cache", "--donkeys", 0, *words]
        code = main([str(word) for word in given])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


def recorded_hits(golden: Path) -> tuple[float, int]:
    """Top-1 of real Torch7's own test of tiny_xnor.t7 with binary weights, and the pictures in its whole batches."""
    log = (golden / "runs" / "xnor_testonly" / "test.log").read_text().splitlines()
    return float(log[1].split()[0]), 24


def test_float_and_xnor_paths_agree(parity: Parity, golden: Path) -> None:
    code, out, _ = parity("--model", golden / XNOR, "--json")
    report = json.loads(out)[0]
    assert code == 0
    assert (report["kind"], report["n_pictures"], report["n_same"], report["n_checked"]) == ("XNOR", 30, 30, 30)
    assert report["largest_difference"] < 1e-6
    assert [layer["place"] for layer in report["layers"]] == ["4.2", "5.2", "6.2", "7.2", "8.2"]
    assert all(not layer["wrong_filters"] and not layer["wrong_outputs"] for layer in report["layers"])
    assert all(layer["other_signs"] == 0 and layer["n_signs"] > 0 for layer in report["layers"])
    # 24 filters at 27 x 27 places of 30 pictures
    assert report["layers"][0]["n_dots"] == 24 * 27 * 27 * 30
    assert report["verdict"] == "not comparable"
    assert "latent (real-valued): binarised" in report["weights"]


def test_the_hits_are_torch7s(parity: Parity, golden: Path) -> None:
    percent, n = recorded_hits(golden)
    _, out, _ = parity("--model", golden / XNOR, "--json", "--batch-size", 8, "--pictures", n)
    report = json.loads(out)[0]
    assert report["n_pictures"] == n
    assert report["top1"]["percent"] == pytest.approx(percent, abs=0.005)
    assert report["xnor_top1"]["percent"] == pytest.approx(percent, abs=0.005)


def test_unreadable_pictures_are_counted(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(golden / "imagenet" / "val", tmp_path / "data" / "val")
    for path in sorted((tmp_path / "data" / "val").glob("*/*"))[::10]:
        path.write_bytes(b"no picture")
    shutil.copytree(golden / "cache", tmp_path / "cache")
    words = ["parity", "--data", tmp_path / "data", "--cache", tmp_path / "cache", "--donkeys", 0, "--json"]
    assert main([*map(str, words), "--model", str(golden / XNOR)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["n_unreadable"] == 3


def test_a_doctored_file_is_caught_and_named(parity: Parity, golden: Path, tmp_path: Path) -> None:
    packed = tmp_path / "tiny.xnor.safetensors"
    model = XnorModel.from_model(load_model(golden / XNOR))
    model.save(packed)
    code, out, _ = parity("--model", golden / XNOR, "--packed", packed, "--pictures", 8)
    assert code == 0
    layer = model.binary_layers[2]
    layer.signs[6] ^= (1 << layer.in_channels) - 1  # every sign of one filter
    model.save(packed)
    code, out, _ = parity("--model", golden / XNOR, "--packed", packed, "--pictures", 8, "--html", tmp_path / "p.html")
    assert code == 1
    assert ": differs: layer 6.2, filter 7 (counted from 1): " in out.splitlines()[-1]
    page = (tmp_path / "p.html").read_text()
    assert '<p class="verdict differs">differs: layer 6.2, filter 7' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    layer.signs[6] ^= (1 << layer.in_channels) - 1
    layer.alpha[3] *= 2
    model.save(packed)
    code, out, _ = parity("--model", golden / XNOR, "--packed", packed, "--pictures", 8)
    assert code == 1
    assert "differs: 7.alpha of the packed file" in out


def test_kinds_of_networks_are_said(parity: Parity, golden: Path, tmp_path: Path) -> None:
    binary, packed = tmp_path / "binary.t7", tmp_path / "packed.xnor.safetensors"
    network = load_model(golden / XNOR)
    XnorModel.from_model(network).save(packed)
    Binarizer(network).binarize()
    lua_compat.save(binary, lua_compat.nn.from_torch(network))
    trained_bwn, other_bwn = golden / "runs" / "bwn_sgd" / "after_batch_1.t7", golden / "models" / "tiny_bwn.t7"
    expected = {
        binary: "XNOR, 5 classes; weights binary already",
        packed: "XNOR, 5 classes; weights packed; the float path unpacks them",
        trained_bwn: "BWN, 5 classes; weights latent (real-valued, mean-centred): binarised; main.py "
        "-testOnly needs -binaryWeight",
        other_bwn: "real-valued, 5 classes; weights real-valued, without a mark",
    }  # fmt: skip
    words = [word for path in expected for word in ("--model", path)]
    code, out, _ = parity(*words, "--pictures", 4, "--dots", 4)
    assert code == 0
    for path, text in expected.items():
        assert f"{path}: {text}" in out
    code, out, _ = parity("--model", other_bwn, "--binary-weight", "--pictures", 4)
    assert "BWN, 5 classes; weights real-valued: binarised, as --binary-weight asks" in out


def test_a_stopped_run_goes_on(parity: Parity, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _ = parity("--model", golden / XNOR, "--batch-size", 4, "--dots", 6)
    test = cache_tools.parity_run._test
    seen: list[int] = []

    def stopping(subject: object, inputs: torch.Tensor, *rest: object) -> None:
        seen.append(len(inputs))
        if len(seen) == 4:
            raise KeyboardInterrupt
        test(subject, inputs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_tools.parity_run, "_test", stopping)
    words = ("--model", golden / XNOR, "--batch-size", 4, "--dots", 6, "--restart")
    code, out, error = parity(*words)
    assert (code, out, error) == (130, "", "cache_tools parity: stopped\n")
    monkeypatch.setattr(cache_tools.parity_run, "_test", test)
    code, again, _ = parity(*words[:-1])
    first, rest = again.split("\n", 1)
    assert first.endswith("12 of 30 pictures were tested before")
    assert (code, rest) == (0, whole)


def test_alexnet_is_known_by_its_convolutions(golden: Path) -> None:
    with torch.device("meta"):
        networks = {
            name: NETWORKS[name].build(NetworkSettings(1000))
            for name in ("alexnet", "alexnetxnor", "resnetxnor", "vgg")
        }
    assert [name for name, network in networks.items() if is_alexnet(network)] == ["alexnet", "alexnetxnor"]
    network = load_model(golden / XNOR)
    assert not is_alexnet(network)  # tiny: seven convolutions
    first = network[0]
    filters = (
        torch.nn.Conv2d(3, 96, 11, 4, 2),
        torch.nn.Conv2d(96, first.out_channels, 1),
    )  # now there are eight
    larger = torch.nn.Sequential(*filters, *list(network)[1:])
    assert is_alexnet(larger)
    assert is_alexnet(XnorModel.from_model(larger))


def test_a_run_that_has_ended_leaves_nothing_behind(parity: Parity, golden: Path, tmp_path: Path) -> None:
    """Its state stays while a later model or the page is to come, and where --state names its file."""
    before = sorted(os.listdir(tmp_path / "cache"))
    words = ("--model", golden / XNOR, "--pictures", 4)
    assert parity(*words)[0] == 0
    assert sorted(os.listdir(tmp_path / "cache")) == before
    assert parity(*words, "--state", tmp_path / "kept")[0] == 0
    assert (tmp_path / "kept").is_file()
    assert parity(*words, "--model", tmp_path / "gone.t7")[0] == 1
    assert len(list((tmp_path / "cache").glob("parity-tiny_xnor-*.safetensors"))) == 1
    _, out, _ = parity(*words, "--model", golden / XNOR)
    assert "4 of 4 pictures were tested before" in out
    assert sorted(os.listdir(tmp_path / "cache")) == before


def test_what_cannot_be_written_is_told_before_the_test(
    parity: Parity, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("pictures were tested")

    monkeypatch.setattr(cache_tools.parity, "run_pictures", never)
    code, out, error = parity("--model", golden / XNOR, "--html", tmp_path / "no" / "page.html")
    assert (code, out) == (1, "")
    assert "the folder" in error
    code, out, error = parity("--model", golden / XNOR, "--state", "/proc/state")
    assert (code, out, error) == (1, "", "cache_tools parity: /proc/state: No such file or directory\n")


def test_errors_are_one_line(parity: Parity, golden: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.xnor.safetensors"
    network = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1) for _ in range(3)))
    XnorModel.from_model(network, binary_weights=True).save(other)
    bwn = golden / "models" / "tiny_bwn.t7"
    state = tmp_path / "state"
    state.write_bytes(b"nothing")
    for words, problem in (
        (("--model", tmp_path / "gone.t7"), "gone.t7"),
        (("--model", golden / XNOR, "--packed", other), f"not made of {golden / XNOR}: its layer 1"),
        (("--model", other, "--packed", other), "packed itself"),
        (("--model", bwn, "--packed", other), "has no binary inputs"),
        (("--model", bwn, "--model", bwn, "--packed", other), "go with one --model"),
        (("--model", bwn, "--state", state), f"{state}: a damaged state"),
    ):
        code, _, error = parity(*words)
        assert (code, error.count("\n")) == (1, 1), error
        assert problem in error


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    progress = Progress(4, has_xnor=True)
    progress.write(tmp_path / "state", "one")
    assert Progress(4, has_xnor=True).read(tmp_path / "state", "one")
    assert not Progress(4, has_xnor=True).read(tmp_path / "nothing", "one")
    with pytest.raises(XnorNetError, match="of another run"):
        Progress(4, has_xnor=True).read(tmp_path / "state", "two")
    with pytest.raises(XnorNetError, match="a damaged state"):
        Progress(5, has_xnor=True).read(tmp_path / "state", "one")


def test_places_among_the_best_five() -> None:
    outputs = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]])
    scores = scores_of(outputs, torch.tensor([5, 1]))
    assert scores.predicted.tolist() == [1, 6]
    assert scores.place.tolist() == [4, 5]
    assert scores_of(outputs[:, :2], torch.tensor([2, 2])).place.tolist() == [1, 0]


@pytest.mark.parametrize("zeros", [False, True])
def test_float_convolutions_are_a_backend(zeros: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((2, 70, 6, 6), (9, 70, 3, 3)))
    if zeros:
        x[0, 3], weight[2, 5] = 0, 0
    packed, geometry, backend = (
        pack_weights(weight, torch.ones(9)),
        Geometry((2, 1), (1, 1), (1, 1)),
        FloatConvolutions(),
    )
    assert torch.equal(signs_as_floats(pack_input(x, backend)), x.sign())
    assert torch.equal(backend.xnor_dot(x, packed, geometry), reference.xnor_dot(x, packed, geometry))
    assert torch.equal(backend.xnor_conv2d(x, packed, geometry), reference.xnor_conv2d(x, packed, geometry))
    limits = torch.arange(-4, 5, dtype=torch.int32)
    thresholds = Thresholds(limits + 1, limits, torch.zeros(9, dtype=torch.bool))
    pooling = Pooling((2, 2), (1, 1))
    ours = backend.xnor_sign(x, packed, thresholds, geometry, pooling)
    theirs = reference.xnor_sign(x, packed, thresholds, geometry, pooling)
    assert np.array_equal(signs_as_floats(ours), signs_as_floats(theirs))
