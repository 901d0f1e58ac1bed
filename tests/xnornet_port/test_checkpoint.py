"""The files of an epoch: complete, without activations, and read back."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lua_compat
from lua_compat.errors import T7Error
from lua_compat.optim import SGD, Adam
from lua_compat.values import TorchObject
from xnornet_port.checkpoint import (
    latest_epoch,
    load_optimizer_state,
    model_path,
    resumption,
    save_epoch,
    what_is_saved,
)
from xnornet_port.errors import XnorNetError
from xnornet_port.model import load_model


def arrays(module: TorchObject, name: str) -> list[np.ndarray]:
    own = [module[name]] if name in module else []
    return own + [
        a for child in (module["modules"].to_list() if "modules" in module else []) for a in arrays(child, name)
    ]


def test_a_saved_network_has_gradients_but_no_activations(golden: Path, tmp_path: Path) -> None:
    """Ledger 20: as after clearState; output and gradInput are empty, gradWeight as the optimiser left it."""
    network = load_model(golden / "models" / "tiny_xnor.t7")
    network(torch.randn(2, 3, 224, 224)).sum().backward()
    save_epoch(tmp_path, 3, network, SGD(network.parameters()))
    saved = lua_compat.load(tmp_path / "model_3.t7")
    assert {a.size for name in ("output", "gradInput", "indices") for a in arrays(saved, name)} == {0}
    gradients = [
        p.grad.numpy() for name, p in network.named_parameters() if name.endswith("weight") and p.grad is not None
    ]
    for ours, theirs in zip(arrays(saved, "gradWeight"), gradients, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_epoch_without_its_optimiser_state_does_not_count(golden: Path, tmp_path: Path) -> None:
    assert latest_epoch(tmp_path) is None
    network = load_model(golden / "models" / "tiny_bwn.t7")
    for epoch in (2, 10):
        save_epoch(tmp_path, epoch, network, Adam(network.parameters()))
    (tmp_path / "model_11.t7").write_bytes(b"")
    assert latest_epoch(tmp_path) == 10


def test_a_folder_that_is_gone_is_one_line(golden: Path, tmp_path: Path) -> None:
    network = load_model(golden / "models" / "tiny_bwn.t7")
    with pytest.raises(T7Error, match=r"gone/model_1\.t7: cannot be written: No such file"):
        save_epoch(tmp_path / "gone", 1, network, SGD(network.parameters()))


def test_torch7s_own_state_is_read(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_bwn.t7")
    optimizer = SGD(network.parameters())
    load_optimizer_state(optimizer, str(golden / "runs" / "bwn_sgd" / "optimState_2.t7"))
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert optimizer.param_groups[0]["n_steps"] == 12


def test_a_state_of_another_network_is_one_line_with_the_file(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7")
    path = str(golden / "runs" / "bwn_sgd" / "optimState_2.t7")
    with pytest.raises(XnorNetError, match=r"optimState_2\.t7: dfdx holds 61229 numbers, the network has 73469"):
        load_optimizer_state(SGD(network.parameters()), path)


def test_what_to_type_is_quoted_for_a_shell(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my cache" / "alexnet,batchSize=8" / "SunNov2204:14:482026"
    folder.mkdir(parents=True)
    assert what_is_saved(folder) == f"no epoch was finished, no model saved in {folder}"
    network = load_model(golden / "models" / "tiny_bwn.t7")
    save_epoch(folder, 3, network, SGD(network.parameters()))
    assert what_is_saved(folder) == (
        f"to go on: -retrain '{folder}/model_3.t7' -optimState '{folder}/optimState_3.t7' -epochNumber 4"
    )
    assert resumption(folder) == f"-resume '{folder}'"
    assert resumption(Path("cache/alexnet,batchSize=8/DATE")) == "-resume cache/alexnet,batchSize=8/DATE"


def test_paths() -> None:
    assert model_path(Path("run"), 7) == Path("run/model_7.t7")
