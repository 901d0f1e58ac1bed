"""Packed files: what is written is read again, and what is no packed network is refused in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

import lua_compat
from lua_compat.nn.containers import ConcatTable
from lua_compat.nn.table import CAddTable
from lua_compat.values import TorchObject
from xnornet_port import XnorModel, load_model
from xnornet_port.errors import XnorNetError
from xnornet_port.layers import BinActiveZ
from xnornet_port.packed_file import read_packed

Change = Callable[[dict[str, np.ndarray], dict[str, Any]], None]


@pytest.fixture(scope="module")
def packed(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "tiny.xnor.safetensors"
    XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7"), "reference").save(path, source="tiny_xnor.t7")
    return path


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


@pytest.mark.parametrize("name", ["models/tiny_xnor.t7", "models/tiny_bwn.t7"])
def test_read_as_written(name: str, golden: Path, tmp_path: Path) -> None:
    model = XnorModel.from_model(load_model(golden / name), "reference", binary_weights=True)
    model.save(tmp_path / "a.xnor.safetensors", source=name)
    again = XnorModel.load(tmp_path / "a.xnor.safetensors", "reference")
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert repr(again) == repr(model)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("n_zeros", [1, 500])
@pytest.mark.parametrize("is_binary_input", [True, False])
def test_weights_that_are_zero(n_zeros: int, is_binary_input: bool, tmp_path: Path) -> None:
    """A few zeros are listed, many are a plane of bits; either way they are there again."""
    network = nn.Sequential(nn.Conv2d(3, 70, 1), BinActiveZ(), nn.Conv2d(70, 9, 3), nn.Conv2d(9, 2, 1))
    if not is_binary_input:
        del network[1]
    weight = network[-2].weight.data
    weight.view(-1)[torch.randperm(weight.numel())[:n_zeros]] = 0
    model = XnorModel.from_model(network, "reference", binary_weights=True)
    model.save(tmp_path / "a.xnor.safetensors")
    names = {name.rpartition(".")[2] for name in contents(tmp_path / "a.xnor.safetensors")[0]}
    assert ("zeros" in names, "nonzero" in names) == (n_zeros == 1, n_zeros == 500)
    again = XnorModel.load(tmp_path / "a.xnor.safetensors", "reference")
    assert torch.equal(again.binary_layers[0].unpacked(), weight.sign())
    assert torch.equal(model.binary_layers[0].unpacked(), weight.sign())


@pytest.mark.parametrize("around", [nn.Identity(), nn.Sequential()])
def test_containers(around: nn.Module, tmp_path: Path) -> None:
    branch = nn.Sequential(nn.BatchNorm2d(4), BinActiveZ(), nn.Conv2d(4, 4, 1))
    middle = nn.Sequential(ConcatTable([branch, around]), CAddTable())
    network = nn.Sequential(nn.Conv2d(3, 4, 1), middle, nn.Conv2d(4, 2, 1)).eval()
    model = XnorModel.from_model(network, "reference")
    model.save(tmp_path / "a.xnor.safetensors")
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(XnorModel.load(tmp_path / "a.xnor.safetensors", "reference")(x), model(x))


def test_the_metadata_describes_the_layers(packed: Path) -> None:
    tensors, metadata = contents(packed)
    assert (metadata["format"], metadata["version"]) == ("xnornet packed network", "1")
    assert metadata["source"] == "tiny_xnor.t7"
    objects = json.loads(metadata["network"])["objects"]
    classes = [entry["class"] for entry in objects if "class" in entry]
    assert classes.count("xnornet.XnorConvolution") == 5
    assert classes.count("cudnn.SpatialConvolution") == 2  # the first and the last
    layer = next(entry["fields"] for entry in objects if entry.get("class") == "xnornet.XnorConvolution")
    signs = tensors[layer["signs"]["tensor"]]
    assert (signs.dtype, signs.shape) == (np.int64, (24, 5, 5, 1))
    assert (layer["nInputPlane"], layer["padH"], layer["poolKH"], layer["poolDW"]) == (12, 2, 3, 2)


def test_a_network_of_ones_own_modules_is_not_written(tmp_path: Path) -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    network = nn.Sequential(nn.Conv2d(3, 4, 1), BinActiveZ(), nn.Conv2d(4, 4, 1), Own(), nn.Conv2d(4, 2, 1))
    model = XnorModel.from_model(network, "reference")
    with pytest.raises(XnorNetError, match=r"cannot be written: Own at modules\[3\]: no Torch7 class"):
        model.save(tmp_path / "a.xnor.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(golden: Path, tmp_path: Path) -> None:
    model = XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7"), "reference")
    path = tmp_path / "nodir" / "a.xnor.safetensors"
    with pytest.raises(XnorNetError, match=f"^{re.escape(str(path))}: cannot be written: No such file or directory$"):
        model.save(path)


def first_layer(description: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = next(
        entry["fields"] for entry in description["objects"] if entry.get("class") == "xnornet.XnorConvolution"
    )
    return fields


def with_layer(name: str, value: Any) -> Change:
    return lambda tensors, description: first_layer(description).__setitem__(name, value)


def with_tensor(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
        key = first_layer(description)[name]["tensor"]
        tensors[key] = make(tensors[key])

    return change


def without_tensor(tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    del tensors[first_layer(description)["alpha"]["tensor"]]


def without_thresholds(tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    for name in ("positive_from", "negative_to", "descending"):
        del tensors[first_layer(description).pop(name)["tensor"]]


def without_the_next_layer(tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    modules = next(entry["table"] for entry in description["objects"] if "table" in entry)
    position = next(
        i for i, (_, value) in enumerate(modules)
        if description["objects"][value["object"]].get("class") == "xnornet.XnorConvolution"
    )  # fmt: skip
    modules[position + 1][1] = modules[position + 2][1]


DAMAGE: dict[str, tuple[Change, str]] = {
    "a tensor is missing": (without_tensor, "which is not there"),
    "a tensor too many": (lambda t, d: t.update(more=np.zeros(3)), "no layer uses the tensor more"),
    "another shape": (with_tensor("signs", lambda a: a[:-1]), "field signs should have shape 24x5x5x1, found 23x5x5x1"),
    "another type": (with_tensor("signs", lambda a: a.astype(np.int32)), "field signs should hold int64, found int32"),
    "nan": (with_tensor("alpha", lambda a: a * np.float32(np.nan)), "field alpha holds a number that is not finite"),
    "no planes": (with_layer("nInputPlane", 0), "planes and kernel should be at least 1"),
    "other planes": (with_layer("nInputPlane", 128), "field signs should have shape 24x5x5x2"),
    "a stride of 0": (with_layer("dH", 0), "stride must be one or two whole numbers of at least 1"),
    "a negative padding": (with_layer("padW", -1), "padding must be"),
    "a stride beyond all sizes": (with_layer("dH", 2**52), "stride must be at most 65536, not 4503599627370496"),
    "a huge pooling": (with_layer("poolKW", 2**52), "the pooling's kernel must be at most 65536"),
    "another padding": (with_layer("padW", 1), "its numbers are not those that were written"),
    "another number": (with_tensor("alpha", lambda a: a * 2), "its numbers are not those that were written"),
    "a string for a number": (with_layer("kH", "5"), "field kH should be a number, found str '5'"),
    "an odd pooling": (with_layer("poolPadH", 7), "more than half its kernel"),
    "pooling without thresholds": (without_thresholds, "it pools, but has no thresholds"),
    "an unknown class": (lambda t, d: d["objects"][0].update({"class": "nn.Nothing"}), "nn.Nothing"),
    "a reference to nowhere": (with_layer("place", {"object": 999}), "which is not there"),
    "an object without a form": (lambda t, d: d["objects"].append({}), "is neither a module nor a table"),
    "no objects": (lambda t, d: d.pop("objects"), "its metadata lists no objects"),
    "a table for a network": (lambda t, d: d["objects"].insert(0, {"table": []}), "object 0 of its metadata is not"),
    "bits that no layer takes": (without_the_next_layer, "gives bits of 24 channels"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(name: str, packed: Path, tmp_path: Path) -> None:
    change, expected = DAMAGE[name]
    tensors, metadata = contents(packed)
    description = json.loads(metadata["network"])
    change(tensors, description)
    path = tmp_path / "damaged.xnor.safetensors"
    save_file(tensors, path, metadata={**metadata, "network": json.dumps(description)})
    with pytest.raises(XnorNetError) as caught:
        read_packed(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_bit_that_is_another(place: float, packed: Path, tmp_path: Path) -> None:
    """Wherever in the file, from its header to the last tensor."""
    content = bytearray(packed.read_bytes())
    content[int(len(content) * place)] ^= 4
    path = tmp_path / "damaged.xnor.safetensors"
    path.write_bytes(content)
    with pytest.raises(XnorNetError, match="damaged") as caught:
        read_packed(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_from_before_the_checksum(packed: Path, tmp_path: Path) -> None:
    tensors, metadata = contents(packed)
    del metadata["crc32"]
    save_file(tensors, tmp_path / "old.xnor.safetensors", metadata=metadata)
    ours, theirs = (read_packed(path).state_dict() for path in (packed, tmp_path / "old.xnor.safetensors"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_normalisation_without_statistics_is_not_written(tmp_path: Path) -> None:
    """Read again it would normalise by a mean of 0 and a variance of 1."""
    odd = nn.BatchNorm2d(4, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), odd, BinActiveZ(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    with pytest.raises(XnorNetError, match=r"cannot be written: modules\[2\]: .* keeps no running statistics"):
        XnorModel.from_model(network, "reference").save(tmp_path / "a.xnor.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[", "[1]", "NaN", '{"objects": [[]]}', "[" * 100_000])
def test_metadata_that_is_no_description(text: str, packed: Path, tmp_path: Path) -> None:
    tensors, metadata = contents(packed)
    path = tmp_path / "damaged.xnor.safetensors"
    save_file(tensors, path, metadata={**metadata, "network": text})
    with pytest.raises(XnorNetError, match="a damaged packed network"):
        read_packed(path)


def test_other_files(packed: Path, tmp_path: Path, golden: Path) -> None:
    plain, newer, cut = tmp_path / "plain.safetensors", tmp_path / "newer.safetensors", tmp_path / "cut.safetensors"
    tensors, metadata = contents(packed)
    save_file({"weight": np.zeros(3)}, plain)
    save_file(tensors, newer, metadata={**metadata, "version": "2"})
    cut.write_bytes(packed.read_bytes()[:-10])
    ascii_file = tmp_path / "ascii.t7"
    lua_compat.save(ascii_file, TorchObject("nn.Identity"), "ascii")
    expected = {
        plain: "not a packed network; python -m cache_tools convert",
        newer: "version 2 of the format; this reads 1",
        cut: "not a safetensors file, or a damaged one",
        golden / "models" / "tiny_xnor.t7": "a Torch7 file, not a packed one: XnorModel.from_model",
        ascii_file: "a Torch7 file",
        tmp_path / "nothing.safetensors": "file not found",
        tmp_path: "not a safetensors file",
    }
    for path, problem in expected.items():
        with pytest.raises(XnorNetError, match=problem) as caught:
            read_packed(path)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(XnorNetError, match="is given by its name, not int"):
        read_packed(5)  # type: ignore[arg-type]


LOADING = """
import sys
from pathlib import Path
import xnornet_port.xnor_inference as inference
def peak():  # not getrusage's, which begins with what the process had that started this one
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
inference.read_packed(sys.argv[1])  # imports what it needs
before = peak()
model = inference.XnorModel.load(sys.argv[2], "reference")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for the peak of memory in /proc")
def test_no_float_weights_while_loading(packed: Path, tmp_path: Path) -> None:
    """75 MB of float weights in the binary layer; the whole peak of loading stays below a tenth of that."""
    wide = nn.Conv2d(256, 2048, 6)
    network = nn.Sequential(nn.Conv2d(3, 256, 1), nn.BatchNorm2d(256), BinActiveZ(), wide, nn.Conv2d(2048, 2, 1))
    path = tmp_path / "wide.xnor.safetensors"
    XnorModel.from_model(network, "reference").save(path)
    n_bytes = wide.weight.numel() * 4
    assert path.stat().st_size < n_bytes / 31
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(packed), str(path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert int(done.stdout) * 1024 < n_bytes / 10
