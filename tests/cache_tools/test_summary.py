"""summary against counts worked out by hand, and a made-up measurement."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from torch import nn

import lua_compat
from cache_tools import summary
from cache_tools.__main__ import main
from cache_tools.network_profile import LayerProfile, profile_network, theoretical_speedup, torch7_path
from cache_tools.speed_measurement import Measurement, measure
from lua_compat.nn import from_torch
from lua_compat.nn.simple_shape import View
from xnornet_port.kernels import pack_weights
from xnornet_port.layers import BinActiveZ
from xnornet_port.model import load_model
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.xnor_inference import XnorModel


def test_the_papers_speedup() -> None:
    """Section 4.1 of the paper: c = 256 channels and filters of 3 x 3 give 62.27."""
    assert theoretical_speedup(256, 9) == pytest.approx(62.27, abs=5e-3)
    assert theoretical_speedup(3, 1) == pytest.approx(64 * 3 / 67)


@pytest.fixture(scope="module")
def alexnet_layers() -> list[LayerProfile]:
    network = NETWORKS["alexnetxnor"].build(NetworkSettings(1000, 0.5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.1, 1)
    return profile_network(network, binary_weights=True, size=None)


def test_alexnetxnor_by_hand(alexnet_layers: list[LayerProfile]) -> None:
    """Filters x channels x kernel of the six middle convolutions; the rest has 32 bits."""
    filters = [(256, 96, 25), (384, 256, 9), (384, 384, 9), (256, 384, 9), (4096, 256, 36), (4096, 4096, 1)]
    pixels = [27 * 27, 13 * 13, 13 * 13, 13 * 13, 1, 1]
    binary = [layer for layer in alexnet_layers if layer.weights == "xnor"]
    assert [layer.binary_parameters for layer in binary] == [o * i * k for o, i, k in filters]
    products = [o * i * k * n for (o, i, k), n in zip(filters, pixels, strict=True)]
    assert [layer.multiply_adds for layer in binary] == products
    # 64 channels to a word of 8 bytes: 96 channels need two words; and 4 bytes of alpha per filter. The rest of the
    # layer is its biases.
    words = [256 * 25 * 2, 384 * 9 * 4, 384 * 9 * 6, 256 * 9 * 6, 4096 * 36 * 4, 4096 * 64]
    packed = [8 * n + 4 * f[0] * 2 for n, f in zip(words, filters, strict=True)]
    assert [layer.packed_bytes for layer in binary] == packed
    sums = summary.totals(alexnet_layers, {})
    assert sums["binary_parameters"] == 58_236_928
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    normalised = 96 + 96 + 256 + 384 + 384 + 256 + 4096 + 4096
    assert sums["float_parameters"] == 96 * 3 * 121 + 1000 * 4096 + biases + 2 * normalised == 4_160_744
    assert sums["statistics"] == 2 * normalised
    assert sums["float_bytes"] == 4 * (58_236_928 + 4_160_744 + 2 * normalised)
    assert sums["multiply_adds"] == {
        "xnor": sum(products),
        "binary weights": 0,
        "float": 96 * 3 * 121 * 55 * 55 + 4096 * 1000,
    }
    assert sums["binary_weights_saving"] == pytest.approx(4 * 58_236_928 / (8 * sum(words) + 4 * 9472))


def test_packed_bytes_are_those_of_packed_weights() -> None:
    """Of a layer whose channels do not fill their words, without and with an exact zero."""
    weight = torch.randn(5, 70, 3, 3)
    for zero in (False, True):
        weight[0, 0, 0, 0] = 0.0 if zero else 1.0
        layers = [nn.Conv2d(3, 70, 1), BinActiveZ(), nn.Conv2d(70, 5, 3, bias=False), nn.Conv2d(5, 2, 2)]
        with torch.no_grad():
            layers[2].weight.copy_(weight)
        packed = pack_weights(weight)
        stored = sum(part.nbytes for part in (packed.signs, packed.nonzero, packed.alpha) if part is not None)
        assert profile_network(nn.Sequential(*layers), True, 4)[2].packed_bytes == stored


def test_alexnetxnor_table(alexnet_layers: list[LayerProfile]) -> None:
    names = [(layer.name, layer.kind, layer.output_shape) for layer in alexnet_layers]
    assert names[:3] == [
        ("1", "cudnn.SpatialConvolution", (96, 55, 55)),
        ("2", "nn.SpatialBatchNormalization", (96, 55, 55)),
        ("3", "cudnn.ReLU", (96, 55, 55)),
    ]
    assert ("5.3", "cudnn.SpatialConvolution", (256, 27, 27)) in names
    speedups = [round(layer.speedup, 2) for layer in alexnet_layers if layer.speedup]
    assert speedups == [62.34, 62.27, 62.84, 62.84, 63.56, 63.02]
    lines = list(summary.total_lines(alexnet_layers, {}, 1))
    assert lines[0].startswith("parameters: 62,397,672, of them 58,236,928 of 1 bit and 4,160,744 of 32;")
    assert "31.7 times smaller" in lines[2]
    assert "90.4% XNOR, 9.6% float" in lines[3]


def test_a_file_of_binary_weights(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tiny_bwn: no signs as inputs, so no XNOR; its products are additions."""
    assert main(["summary", str(golden / "models" / "tiny_bwn.t7"), "--binary-weight", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    kinds = [layer["weights"] for layer in report["layers"] if layer["weight_shape"]]
    assert kinds[0] == kinds[-1] == "float"
    assert set(kinds[1:-1]) == {"binary weights"}
    assert report["totals"]["theoretical_speedup"] is None
    assert report["totals"]["multiply_adds"]["xnor"] == 0


def test_a_pipe_gets_every_column(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(golden / "models" / "tiny_xnor.t7")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    row = next(line for line in lines if "5.3 SpatialConvolution" in line)
    assert re.split(r"  +", row.strip()) == [
        # 12 -> 24 channels, 5 x 5, at 27 x 27: 24 * 12 * 25 = 7200 weights; 24 biases; 4 * 7224 bytes; a word of
        # 8 bytes for each of 24 * 25 and 2 * 4 * 24 bytes of alpha and bias; 7200 * 729; 64 * 300 / 364
        *("5.3 SpatialConvolution", "24x27x27", "7.2 k", "24", "28.9 kB", "4.99 kB", "5.25 M", "52.75")
    ]


def test_measured_speeds_are_added_up() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BinActiveZ(), nn.Conv2d(4, 4, 3), BinActiveZ(), nn.Conv2d(4, 4, 1),
                            nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1))  # fmt: skip
    layers = profile_network(network, binary_weights=True, size=8)
    names = [layer.name for layer in layers if layer.weights == "xnor"]
    assert names == ["3", "5"]
    measured = {"3": Measurement(3.0, 0.5), "5": Measurement(1.0, 0.5)}
    assert summary.totals(layers, measured)["measured_speedup"] == 4.0
    assert summary.as_json("x", layers, measured)["layers"][2]["measured"]["speedup"] == 6.0
    found = measure(layers[2], 1, backend="reference")
    assert found.float_seconds > 0
    assert found.xnor_seconds > 0


def test_signs_that_a_later_layer_changes_are_none() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BinActiveZ(), nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Conv2d(4, 4, 1),
                            nn.Conv2d(4, 2, 6))  # fmt: skip
    assert [layer.weights for layer in profile_network(network, True, 8)] == [
        *("float", "float", "float", "binary weights", "float")
    ]


def test_a_layer_used_twice_counts_its_parameters_once() -> None:
    shared = nn.Conv2d(2, 2, 1, bias=False)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), shared, shared, nn.AdaptiveAvgPool2d(1))
    sums = summary.totals(profile_network(network, False, 4), {})
    assert sums["float_parameters"] == 3 * 2 + 2 + 4
    assert sums["multiply_adds"]["float"] == 16 * (6 + 4 + 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overfat"], "no such file, and no -netType (these are alexnet, "),
        (["AlexNetXnorr"], "resnetxnor); did you mean alexnetxnor?\n"),
        (["absent.t7"], "absent.t7: no such file\n"),
        (["tests"], "tests: no file but a folder, and no model_N.t7 in it\n"),
        (["{tiny}", "--size", "20"], "takes no picture of 3x20x20 ("),
        (["{tiny}", "--batch", "0"], "numbers from 1 on"),
    ],
)
def test_mistakes(words: list[str], message: str, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = str(golden / "models" / "tiny_xnor.t7")
    assert main(["summary", *(word.format(tiny=tiny) for word in words)]) == 1
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_a_narrow_terminal_gets_fewer_columns_and_no_broken_line(alexnet_layers: list[LayerProfile]) -> None:
    # With all but float and S: 30 + 9 + 6 + 6 + 7 + 6 + 9 characters and two between each: 85.
    for width, expected in ((120, ()), (90, ("float", "S paper")), (80, ("float", "S paper", "packed"))):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        left_out = summary.columns_to_leave_out(console, "alexnetxnor", alexnet_layers, {})
        assert left_out == expected
        console.print(summary.as_table("alexnetxnor", alexnet_layers, {}, left_out))
        text = console.file.getvalue()
        assert sum("SpatialBatchNormalization" in line for line in text.splitlines()) == 8


def test_members_of_containers_are_numbered() -> None:
    assert torch7_path("4.members.2.0") == "5.3.1"


@pytest.mark.parametrize(("name", "words"), [("tiny_xnor", []), ("tiny_bwn", ["--binary-weight"])])
def test_a_packed_network_is_its_t7_with_thresholds(
    name: str, words: list[str], golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bits and multiply-adds; packed bytes are those in the file, and no folded normalisation is counted."""
    source, packed = golden / "models" / f"{name}.t7", tmp_path / "tiny.xnor.safetensors"
    XnorModel.from_model(load_model(source), "cpu", binary_weights=True).save(packed)
    assert main(["summary", str(source), *words, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main(["summary", str(packed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for key in ("binary_parameters", "multiply_adds", "theoretical_speedup", "binary_weights_float_bytes"):
        assert found["totals"][key] == expected["totals"][key]
    wanted = {layer["weights"] for layer in expected["layers"]}
    for kind in wanted - {"float"}:
        ours, theirs = ([(layer["weight_shape"], layer["multiply_adds"]) for layer in report["layers"]
                         if layer["weights"] == kind] for report in (found, expected))  # fmt: skip
        assert ours == theirs
    with safe_open(packed, framework="numpy") as file:
        stored = sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
    assert found["totals"]["packed_bytes"] == stored - 8  # nn.View's size, a long


def test_a_packed_network_is_measured_and_takes_no_weight_options(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "tiny.xnor.safetensors"
    XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7")).save(packed)
    assert main(["summary", str(packed), "--measure"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "6 XnorConvolution" in line)
    assert re.split(r"  +", row.strip())[:4] == ["6 XnorConvolution", "24x13x13", "7.2 k", "24"]  # pooled from 27x27
    assert lines[-1].startswith("measured here, its XNOR layers together, 1 at a time: ")
    assert main(["summary", str(packed), "--latent-weights"]) == 1
    assert "packed, its weights are bits" in capsys.readouterr().err
    assert main(["summary", str(packed), "--size", "20"]) == 1
    assert "takes no picture of 3x20x20 (" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_a_filter_as_large_as_its_input_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a product of matrices too, which is what it then is."""
    products = []

    def noted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        products.append((tuple(x.shape), tuple(weight.shape)))
        return nn.functional.linear(x, weight)

    monkeypatch.setattr("cache_tools.speed_measurement.linear", noted)
    layers = [nn.Conv2d(3, 4, 3), BinActiveZ(), nn.Conv2d(4, 2, 6), nn.Conv2d(2, 2, 1)]
    layer = profile_network(nn.Sequential(*layers), True, 8)[2]
    assert layer.weight_shape is not None
    assert layer.weight_shape[1:] == layer.input_shape == (4, 6, 6)
    assert measure(layer, 2, backend="reference").float_seconds > 0
    assert set(products) == {((2, 144), (2, 144))}


def one_channel_network(path: Path) -> Path:
    """Filters of 5 x 5 on one channel, pooled to 7 x 7 for pictures of 32, and two scores."""
    layers = [nn.Conv2d(1, 8, 5), nn.MaxPool2d(4), View((8 * 7 * 7,)), nn.Linear(8 * 7 * 7, 2)]
    lua_compat.save(path, from_torch(nn.Sequential(*layers)))
    return path


def test_a_network_of_one_channel_is_given_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an option, and as --size names it: 8 filters of 25 at 28 x 28 places, 392 x 2 products."""
    path = str(one_channel_network(tmp_path / "gray.t7"))
    for words in ([], ["--size", "32"], ["--size", "1,32,32"], ["--size", "1x32x32"]):
        assert main(["summary", path, "--json", *words]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["layers"][0]["input_shape"] == [1, 32, 32]
        assert report["totals"]["multiply_adds"]["float"] == 8 * 25 * 28 * 28 + 392 * 2
    assert main(["summary", path, "--size", "3,32,32"]) == 1
    error = capsys.readouterr().err
    assert "the network takes no picture of 3x32x32 (" in error
    assert "give another --size, N or C,H,W" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["summary", path, "--size", "0"])


def test_a_picture_need_not_be_square(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [nn.Conv2d(2, 3, (2, 5)), View((3,)), nn.Linear(3, 2)]
    lua_compat.save(tmp_path / "flat.t7", from_torch(nn.Sequential(*layers)))
    assert main(["summary", str(tmp_path / "flat.t7"), "--size", "2,2,5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["multiply_adds"]["float"] == 3 * 2 * 10 + 3 * 2
    assert main(["summary", str(tmp_path / "flat.t7")]) == 1
    assert "if it takes one picture at all, name its size with --size C,H,W" in capsys.readouterr().err


def test_a_network_that_ends_in_maps_is_given_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its costs need no class scores: 3 filters of 2 x 3 x 3 at 5 x 4 places. A size cannot be guessed."""
    lua_compat.save(tmp_path / "maps.t7", from_torch(nn.Sequential(nn.Conv2d(2, 3, 3))))
    assert main(["summary", str(tmp_path / "maps.t7"), "--size", "2,7,6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["multiply_adds"]["float"] == 3 * 2 * 9 * 5 * 4
    assert main(["summary", str(tmp_path / "maps.t7")]) == 1
    assert "name its size with --size C,H,W" in capsys.readouterr().err


def test_a_network_of_vectors_is_given_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lua_compat.save(tmp_path / "vector.t7", from_torch(nn.Sequential(nn.Linear(11, 7), nn.Linear(7, 2))))
    assert main(["summary", str(tmp_path / "vector.t7"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["multiply_adds"]["float"] == 11 * 7 + 7 * 2


def test_other_peoples_networks(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A face detector of one channel; and one that takes a table of eleven tensors, which no size can mend."""
    samples = shared / "t7_samples"
    assert main(["summary", str(samples / "torch+demos" / "face-detector" / "model.net"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["input_shape"] == [1, 32, 32]
    assert main(["summary", str(samples / "Cadene+AS_Exam" / "model.t7")]) == 1
    error = capsys.readouterr().err
    assert "if it takes one picture at all" in error
    assert error.count("\n") == 1


def test_a_runs_folder_is_its_newest_model(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (9, 10):  # of which 9 is last by name
        (tmp_path / f"model_{number}.t7").symlink_to(golden / "models" / "tiny_xnor.t7")
    assert main(["summary", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "model_10.t7")


def test_a_device_is_there_but_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "/dev/null"]) == 1
    assert capsys.readouterr().err == "cache_tools summary: /dev/null: a device or pipe, not a file\n"
