"""cache_tools convert to .xnor.safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import cache_tools.convert_packed
import lua_compat
import lua_compat.nn
from cache_tools.__main__ import main
from lua_compat.nn.containers import ConcatTable
from lua_compat.values import LuaTable, TorchObject
from xnornet_port import XnorModel, build_model, load_model
from xnornet_port.layers import BinActiveZ


def test_a_packed_network(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = golden / "models" / "tiny_xnor.t7", tmp_path / "tiny.xnor.safetensors"
    assert main(["convert", str(source), str(target)]) == 0
    out = capsys.readouterr().out
    assert "weights: latent: alpha sign(W) is packed" in out
    assert "binary layers: " in out
    assert "read again to the bit" in out
    assert "the same top-1 for 2 of 2" in out
    assert f"{target}: {target.stat().st_size:,} bytes written" in out
    ours, theirs = XnorModel.load(target), XnorModel.from_model(load_model(source))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert list(tmp_path.iterdir()) == [target]


def test_a_network_without_the_mark(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = golden / "models" / "tiny_bwn.t7", tmp_path / "tiny.xnor.safetensors"
    assert main(["convert", str(source), str(target)]) == 1
    assert "no mark of training with -binaryWeight" in capsys.readouterr().err
    assert main(["convert", str(source), str(target), "--binary-weight", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_wrong_file_is_not_left_behind(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(XnorModel):
        @classmethod
        def load(cls, path: str | Path, backend: str = "cpu") -> Forgetful:
            model = super().load(path, backend)
            model.binary_layers[0].alpha[0] = 7
            return model

    monkeypatch.setattr(cache_tools.convert_packed, "XnorModel", Forgetful)
    source, target = golden / "models" / "tiny_xnor.t7", tmp_path / "tiny.xnor.safetensors"
    assert main(["convert", str(source), str(target)]) == 1
    assert "not written: network.5.alpha would not be read as it was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_checked_on_pictures_of_the_size_the_network_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network for 32x32 pictures would answer 224x224 ones too, with a row of scores for each of 49x49 places."""
    network = build_model("resnetxnor", n_classes=2, depth=8)
    lua_compat.save(tmp_path / "small.t7", lua_compat.nn.from_torch(network))
    assert main(["convert", str(tmp_path / "small.t7"), str(tmp_path / "small.xnor.safetensors")]) == 0
    assert "checked on 2 random inputs of 3x32x32" in capsys.readouterr().out


def odd_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), BinActiveZ(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)).eval()


def converted(network: nn.Module, folder: Path) -> int:
    lua_compat.save(folder / "odd.t7", lua_compat.nn.from_torch(network))
    return main(["convert", str(folder / "odd.t7"), str(folder / "odd.xnor.safetensors"), "--input-size", "3,9,9"])


def test_a_network_that_answers_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = nn.Sequential(*odd_network(), ConcatTable([nn.Identity(), nn.ReLU()]))
    assert converted(network, tmp_path) == 0
    assert "the same top-1 for 4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layer", "message"),
    [(0, "odd.xnor.safetensors: not written: network.0.bias contains nan"), (2, "odd.t7: 2: its biases contain nan")],
)
def test_what_has_diverged(layer: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = odd_network()
    with torch.no_grad():
        network[layer].bias[0] = torch.nan
    assert converted(network, tmp_path) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/{message}" in error
    assert error.endswith("has training diverged?\n")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["odd.t7"]


def test_a_network_without_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes every picture and has no first layer that would say a size."""
    path = tmp_path / "net.t7"
    lua_compat.save(path, TorchObject("nn.ConcatTable", LuaTable({"modules": LuaTable()})))
    assert main(["convert", str(path), str(tmp_path / "net.xnor.safetensors"), "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cache_tools convert: {path}: ")
