"""cache_tools convert: each kind of file, what it says, and what it refuses."""

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lua_compat
import lua_compat.nn
from cache_tools.__main__ import main
from lua_compat.values import LuaTable, TorchObject
from xnornet_port.binarization import Binarizer
from xnornet_port.layers import BinActiveZ


@pytest.fixture
def network(golden: Path, tmp_path: Path) -> Path:
    """Convolution, batch norm, ReLU, View, Linear, LogSoftMax on flattened parameters, as a file of its own."""
    case = lua_compat.load(golden / "modules" / "flattened_parameters.t7")
    path = tmp_path / "net.t7"
    lua_compat.save(path, case["module"])
    return path


def test_a_state_dict(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "net.pt"
    assert main(["convert", str(network), str(target), "--input-size", "3,6,6"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("nn.Sequential: 315 parameters in 6 tensors (float32)\n")  # 4*3*9 + 4 + 4 + 4 + 3*64 + 3
    assert "1  nn.SpatialConvolution -> Conv2d" in text
    assert "checked on a random input of 2x3x6x6: largest relative difference 0.0e+00" in text
    loaded = lua_compat.nn.load(network)
    state = torch.load(target, weights_only=True)
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        name: tensor.tolist() for name, tensor in loaded.state_dict().items()
    }


def test_safetensors(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "net.safetensors"
    assert main(["convert", str(network), str(target), "--input-size", "3x6x6"]) == 0
    assert "largest relative difference 0.0e+00" in capsys.readouterr().out
    loaded = lua_compat.nn.load(network)
    for name, tensor in load_file(target).items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_onnx(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    target = tmp_path / "net.onnx"
    assert main(["convert", str(network), str(target), "--input-size", "3,6,6"]) == 0
    assert "checked on a random input of 2x3x6x6" in capsys.readouterr().out
    assert target.stat().st_size > 1000


def test_names_and_tensors_for_a_gpu_and_back(network: Path, tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu.t7", tmp_path / "cpu.t7"
    assert main(["convert", str(network), str(gpu), "--cuda-names", "--input-size", "3,6,6"]) == 0
    written = lua_compat.load(gpu)
    assert [m.typename for m in written["modules"].to_list()][:3] == [
        "cudnn.SpatialConvolution", "cudnn.SpatialBatchNormalization", "cudnn.ReLU"
    ]  # fmt: skip
    assert written["modules"][1]["weight"].typename == "torch.CudaTensor"
    assert main(["convert", str(gpu), str(cpu), "--float"]) == 0
    again = lua_compat.load(cpu)["modules"][1]
    assert (again.typename, again["weight"].typename) == ("nn.SpatialConvolution", "torch.FloatTensor")


def test_double_becomes_float(tmp_path: Path) -> None:
    path, target = tmp_path / "double.t7", tmp_path / "float.t7"
    lua_compat.save(path, TorchObject("nn.Linear", {"weight": np.eye(2), "bias": np.zeros(2)}))
    assert main(["convert", str(path), str(target), "--float"]) == 0
    assert lua_compat.load(target)["weight"].typename == "torch.FloatTensor"


def test_the_size_of_the_input_is_known_from_a_linear_layer(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.t7"
    lua_compat.save(path, lua_compat.load(golden / "modules" / "shared_weights.t7")["module"])
    assert main(["convert", str(path), str(tmp_path / "net.safetensors")]) == 0
    assert "checked on a random input of 2x5" in capsys.readouterr().out


def test_without_a_size_it_says_that_nothing_was_checked(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(network), str(tmp_path / "net.pt")]) == 0
    assert "not checked: the input's size is not known; give it with --input-size" in capsys.readouterr().out


def test_a_network_in_a_table(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, target = tmp_path / "checkpoint.t7", tmp_path / "net.pt"
    lua_compat.save(path, LuaTable({"model": lua_compat.load(network), "epoch": 3}))
    assert main(["convert", str(path), str(target)]) == 1
    assert "name the network's key with --key (objects in it: model)" in capsys.readouterr().err
    assert main(["convert", str(path), str(target), "--key", "net"]) == 1
    assert "holds no network below net; name the network's key with --key (objects in it: model)" in (
        capsys.readouterr().err
    )
    assert main(["convert", str(path), str(target), "--key", "epoch"]) == 1
    assert "holds no network below epoch" in capsys.readouterr().err
    assert main(["convert", str(path), str(target), "--key", "model"]) == 0
    assert main(["convert", str(network), str(target), "--key", "model"]) == 1
    assert "holds no table but nn.Sequential itself; leave --key model out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["net.h5"], "the name should end in one of .safetensors, .pt, .onnx, .t7"),
        (["net.pt", "--cuda-names"], "--cuda-names is about class names, which only a .t7 has"),
        (["net.pt", "--binary-weight"], "net.t7: the network has no binary layer, for all 2-d convolutions but the"),
    ],
)
def test_refusals(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["convert", str(network), str(tmp_path / words[0]), *words[1:]]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / words[0]).exists()


def test_onnx_wants_the_size_of_the_input(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert main(["convert", str(network), str(tmp_path / "net.onnx")]) == 1
    captured = capsys.readouterr()
    assert "net.onnx: give the size of the input with --input-size" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "net.onnx").exists()


def test_what_the_words_alone_say_is_refused_before_loading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there would else be the first problem."""
    absent = str(tmp_path / "absent.t7")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for target, problem in (
        (tmp_path / "net.onnx", "needs the package onnx"),
        (tmp_path / "nowhere" / "net.pt", "nowhere does not exist"),
    ):
        assert main(["convert", absent, str(target), "--input-size", "3,6,6"]) == 1
        assert problem in capsys.readouterr().err
    (tmp_path / "folder.pt").mkdir()
    assert main(["convert", absent, str(tmp_path / "folder.pt")]) == 1
    assert "folder.pt: is a folder, expected the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_every_kind_of_file_has_the_permissions_of_a_new_file(
    golden: Path, network: Path, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        for name in ("net.safetensors", "net.pt", "net.t7x.t7"):
            assert main(["convert", str(network), str(tmp_path / name), "--no-check", "-q"]) == 0
        tiny = str(golden / "models" / "tiny_xnor.t7")
        assert main(["convert", tiny, str(tmp_path / "net.xnor.safetensors"), "--no-check", "-q"]) == 0
    finally:
        os.umask(before)
    written = sorted(tmp_path.glob("net.*"))
    assert len(written) == 5
    modes = {path.name: path.stat().st_mode & 0o777 for path in written if path != network}
    assert set(modes.values()) == {0o666 & ~umask}, modes


def test_a_table_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "preproc.t7"
    lua_compat.save(path, LuaTable({"mean": np.zeros(3), "std": 2.0}))
    for words in ([], ["--key", "mean"]):
        assert main(["convert", str(path), str(tmp_path / "net.pt"), *words]) == 1
        error = capsys.readouterr().err
        assert "preproc.t7: holds no network, but a table without any Torch7 object in it" in error
        assert "--key" not in error


def test_a_missing_package_is_named(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["convert", str(network), str(tmp_path / "net.onnx"), "--input-size", "3,6,6"]) == 1
    assert "needs the package onnx: pip install 'xnornet-port[convert]'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that may not be written to, and a library that fails half-way with an error of its own kind."""
    assert main(["convert", str(network), "/proc/net.pt"]) == 1
    assert capsys.readouterr().err == "cache_tools convert: /proc/net.pt: No such file or directory\n"

    def failing(state: object, target: BinaryIO) -> None:
        target.write(b"a beginning")
        raise RuntimeError("[enforce fail at inline_container.cc:858] . unexpected pos 704 vs 598\nframe #0")

    monkeypatch.setattr(torch, "save", failing)
    assert main(["convert", str(network), str(tmp_path / "other.pt")]) == 1
    assert re.fullmatch(
        r"cache_tools convert: .*/other\.pt: not written \(.*unexpected pos.*\)\n", capsys.readouterr().err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.t7"]


@pytest.mark.parametrize(
    "made",
    [
        TorchObject("nn.LookupTable", {"weight": np.eye(4, dtype=np.float32)}),  # takes whole numbers up to 4
        TorchObject("nn.MSECriterion", {"sizeAverage": True}),  # takes two tensors
    ],
)
@pytest.mark.parametrize("words", [["net.pt", "--input-size", "3"], ["net.xnor.safetensors"]])
def test_what_takes_no_such_input_at_all(
    made: TorchObject, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lua_compat.save(tmp_path / "odd.t7", made)
    assert main(["convert", str(tmp_path / "odd.t7"), str(tmp_path / words[0]), *words[1:]]) == 1
    error = capsys.readouterr().err
    assert "odd.t7: the network cannot take an input of 3" in error
    assert error.count("\n") == 1


def test_an_answer_that_differs_leaves_no_file(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "net.pt"
    monkeypatch.setattr(torch, "load", lambda path, weights_only: lua_compat.nn.load(network).double().state_dict())
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)  # so it stays at zeros
    assert main(["convert", str(network), str(target), "--input-size", "3,6,6"]) == 1
    assert "not written, it would answer differently" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [network]


def test_an_answer_that_is_no_number_is_not_taken_for_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nan.t7"
    lua_compat.save(path, TorchObject("nn.Linear", {"weight": np.full((2, 2), np.nan), "bias": np.zeros(2)}))
    assert main(["convert", str(path), str(tmp_path / "net.pt")]) == 1
    assert "largest relative difference nan" in capsys.readouterr().err
    assert not (tmp_path / "net.pt").exists()


def test_a_network_of_xnor_net(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own layer, nn.BinActiveZ, is known here."""
    source, target = golden / "models" / "tiny_xnor.t7", tmp_path / "net.pt"
    assert main(["convert", str(source), str(target), "--input-size", "3,224,224"]) == 0
    assert "nn.BinActiveZ -> BinActiveZ" in capsys.readouterr().out
    assert len(torch.load(target, weights_only=True)) > 28


@pytest.fixture
def latent(tmp_path: Path) -> Path:
    """A BinActiveZ before the second convolution, which is the binary one of three."""
    torch.manual_seed(7)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), BinActiveZ(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 2)]
    lua_compat.save(tmp_path / "latent.t7", lua_compat.nn.from_torch(nn.Sequential(*layers)))
    return tmp_path / "latent.t7"


def states_of(source: Path) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The network of a file, and its state with binary weights."""
    network = lua_compat.nn.load(source).eval()
    with Binarizer(network).binary_weights():
        return network, {name: tensor.clone() for name, tensor in network.state_dict().items()}


def written_state(target: Path) -> dict[str, torch.Tensor]:
    if target.suffix == ".t7":
        return lua_compat.nn.load(target).state_dict()
    return load_file(target) if target.suffix == ".safetensors" else torch.load(target, weights_only=True)


@pytest.mark.parametrize("ending", ["t7", "pt", "safetensors"])
def test_binary_weights_are_written(
    ending: str, latent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """alpha sign(W): alpha the mean of |w| over a filter. The first and the last convolution stay as they are."""
    target, again = tmp_path / f"binary.{ending}", tmp_path / f"again.{ending}"
    assert main(["convert", str(latent), str(target), "--binary-weight", "--input-size", "3,9,9"]) == 0
    out = capsys.readouterr().out
    assert "weights: alpha sign(W) is written (binary layers: 1)" in out
    assert "largest relative difference 0.0e+00" in out
    network, expected = states_of(latent)
    found = written_state(target)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert torch.equal(found["0.weight"], network[0].weight)
    assert torch.equal(found["5.weight"], network[5].weight)
    w = network[3].weight.detach()
    by_hand = w.abs().mean(dim=(1, 2, 3), keepdim=True) * w.sign()
    torch.testing.assert_close(found["3.weight"], by_hand, rtol=1e-6, atol=0)  # alpha is summed in another order
    if ending == "t7":  # what is binary stays to the bit
        assert main(["convert", str(target), str(again), "--binary-weight", "--input-size", "3,9,9"]) == 0
        assert "weights: binary already (binary layers: 1)" in capsys.readouterr().out
        assert torch.equal(written_state(again)["3.weight"], found["3.weight"])


def test_an_onnx_file_answers_as_the_network_with_binary_weights(latent: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx, reference = pytest.importorskip("onnx"), pytest.importorskip("onnx.reference")
    target = tmp_path / "binary.onnx"
    assert main(["convert", str(latent), str(target), "--binary-weight", "--input-size", "3,9,9"]) == 0
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    evaluator = reference.ReferenceEvaluator(onnx.load(str(target)))
    (found,) = evaluator.run(None, {evaluator.input_names[0]: x.numpy()})
    network = lua_compat.nn.load(latent).eval()
    with torch.no_grad():
        real = network(x).numpy()
        with Binarizer(network).binary_weights():
            binary = network(x).numpy()
    np.testing.assert_allclose(found, binary, rtol=1e-4, atol=1e-5)  # float32, summed in another order
    assert np.abs(found - real).max() > 0.01


def test_sums_that_are_zero_are_named_where_an_onnx_file_adds_otherwise(
    latent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of binary weights behind binary inputs."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("cache_tools.convert.largest_difference", lambda *anything: 0.1)
    words = ["convert", str(latent), str(tmp_path / "net.onnx"), "--input-size", "3,9,9"]
    for more, is_named in (["--binary-weight"], True), ([], False):
        assert main([*words, *more]) == 1
        error = capsys.readouterr().err
        assert ("--no-check writes it all the same" in error) == is_named
        assert error.count("\n") == 1


def test_latent_weights_are_not_written_without_a_word(
    latent: Path, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said of binary inputs and of mean-centred filters; not of weights that are binary, nor of an unmarked network."""
    line = "real-valued (latent) ones are written; --binary-weight writes the binary ones, which -testOnly tests"
    target = tmp_path / "net.t7"
    centred = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        centred[1].weight -= centred[1].weight.mean(dim=1, keepdim=True)
    lua_compat.save(tmp_path / "centred.t7", lua_compat.nn.from_torch(centred))
    for source in (latent, tmp_path / "centred.t7"):
        assert main(["convert", str(source), str(target)]) == 0
        assert capsys.readouterr().out.count(line) == 1
        assert torch.equal(written_state(target)["1.weight"], written_state(source)["1.weight"])
    assert main(["convert", str(latent), str(tmp_path / "binary.t7"), "--binary-weight", "-q"]) == 0
    for source in (tmp_path / "binary.t7", golden / "models" / "tiny_bwn.t7"):
        assert main(["convert", str(source), str(target)]) == 0
        assert "weights:" not in capsys.readouterr().out


def test_a_size_that_the_network_cannot_take(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(network), str(tmp_path / "net.pt"), "--input-size", "1,28,28"]) == 1
    error = capsys.readouterr().err
    assert "net.t7: the network cannot take an input of 1x28x28" in error
    assert error.count("\n") == 1


def test_a_folder_that_is_not_there(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(network), str(tmp_path / "nowhere" / "net.pt"), "--input-size", "3,6,6"]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


ENDINGS = (".t7", ".pt", ".safetensors", ".xnor.safetensors")


def convert_tiny(golden: Path, target: Path) -> int:
    return main(["convert", str(golden / "models" / "tiny_xnor.t7"), str(target), "--no-check", "--quiet"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_link_stays_and_permissions_are_kept(ending: str, golden: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "there", tmp_path / f"net{ending}"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert convert_tiny(golden, link) == 0
    assert link.is_symlink()
    assert target.stat().st_size > 10_000
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pipe_is_not_replaced(ending: str, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / f"net{ending}"
    os.mkfifo(pipe)
    assert convert_tiny(golden, pipe) == 1
    assert capsys.readouterr().err == f"cache_tools convert: {pipe}: a device or pipe, not a file\n"
    assert pipe.is_fifo()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_longest_name(ending: str, golden: Path, tmp_path: Path) -> None:
    target = tmp_path / ("n" * (255 - len(ending)) + ending)
    assert convert_tiny(golden, target) == 0
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_told_and_leaves_the_old_file(
    ending: str, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for it."""
    resource = pytest.importorskip("resource")
    target = tmp_path / f"net{ending}"
    target.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        assert convert_tiny(golden, target) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cache_tools convert: {target}: ")
    assert "File too large" in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {target.name: b"old"}


def test_modules_nested_too_deeply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = TorchObject("nn.Linear", {"weight": np.eye(2), "bias": np.zeros(2)})
    for _ in range(2000):
        network = TorchObject("nn.Sequential", LuaTable({"modules": LuaTable([network])}))
    lua_compat.save(tmp_path / "deep.t7", network)
    assert main(["convert", str(tmp_path / "deep.t7"), str(tmp_path / "net.pt")]) == 1
    assert "deep.t7: its modules are nested more than 250 deep" in capsys.readouterr().err
