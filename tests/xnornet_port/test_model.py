"""New networks, networks of files, and parameters of files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
from lua_compat.module_text import module_text
from lua_compat.nn import from_torch
from lua_compat.nn.normalization import BatchNormalization, SpatialBatchNormalization
from lua_compat.values import LuaTable, TorchObject
from xnornet_port import build_model, load_model
from xnornet_port.binarization import binary_convolutions
from xnornet_port.errors import XnorNetError
from xnornet_port.model import check_classes, check_input, load_parameters, uses_binary_inputs
from xnornet_port.models import NETWORKS, NetworkSettings


@pytest.fixture(scope="module")
def xnor() -> nn.Sequential:
    return build_model("alexnetxnor", n_classes=5, seed=2)


def test_a_new_network_prints_as_torch7_prints_it(golden: Path, xnor: nn.Sequential) -> None:
    console = (golden / "runs" / "full_alexnetxnor" / "stdout.log").read_text()
    start = console.index("nn.Sequential {")
    assert console[start:].startswith(module_text(from_torch(xnor)) + "\n")


def test_batch_normalisation_is_affine_with_momentum_a_tenth(xnor: nn.Sequential) -> None:
    """Ledger 4: the original's `false` stands in the momentum's place and switches nothing off."""
    layers = [module for module in xnor.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [layer.eps for layer in layers] == [1e-5, *[1e-4] * 6, 1e-3]
    assert all(layer.affine and layer.momentum == 0.1 for layer in layers)


def test_sizes_of_the_two_networks(xnor: nn.Sequential) -> None:
    """58,321,157 parameters with 5 classes (golden/README.md: 58 million), six binary convolutions in each."""
    assert sum(parameter.numel() for parameter in xnor.parameters()) == 58_321_157
    assert len(binary_convolutions(xnor)) == 6
    assert uses_binary_inputs(xnor)
    with torch.device("meta"):
        bwn = NETWORKS["alexnet"].build(NetworkSettings(n_classes=1000))
    assert not uses_binary_inputs(bwn)
    assert len(binary_convolutions(bwn)) == 6


def test_the_answer_is_a_log_probability_for_each_class(xnor: nn.Sequential) -> None:
    with torch.no_grad():
        output = xnor.eval()(torch.randn(2, 3, 224, 224))
    assert output.shape == (2, 5)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(2))


def test_an_unknown_type_lists_the_known() -> None:
    with pytest.raises(XnorNetError, match=r"-netType vggg: unknown; available are alexnet, .*vgg, vggbn"):
        build_model("vggg")


@pytest.mark.parametrize("n_classes", [0, -3, 2.5, "5", True])
def test_impossible_numbers_of_classes(n_classes: object) -> None:
    with pytest.raises(XnorNetError, match=rf"^-nClasses {n_classes}: a network is built for a whole number"):
        build_model("alexnetxnor", n_classes=n_classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [-0.1, 1, math.nan, "0.5"])
def test_impossible_shares_of_dropout(dropout: object) -> None:
    with pytest.raises(XnorNetError, match=rf"^-dropout {dropout}: the share"):
        build_model("alexnet", 5, dropout)  # type: ignore[arg-type]


def test_files_that_are_no_networks(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(XnorNetError, match=r"nowhere\.t7: cannot be read: No such file"):
        load_model(tmp_path / "nowhere.t7")
    with pytest.raises(XnorNetError, match=r"classes\.t7: holds LuaTable, not a network"):
        load_model(golden / "runs" / "bwn_sgd" / "classes.t7")


@pytest.mark.parametrize("depth", [200, 300, 2000])
def test_modules_nested_deeper_than_pytorch_can_run(depth: int, tmp_path: Path) -> None:
    """A Linear in so many Sequentials: four of Python's 1000 frames for each are enough for 250."""
    network = TorchObject(
        "nn.Linear", LuaTable({"weight": np.eye(2, dtype=np.float32), "bias": np.ones(2, np.float32)})
    )
    for _ in range(depth):
        network = TorchObject("nn.Sequential", LuaTable({"modules": LuaTable([network])}))
    path = tmp_path / "deep.t7"
    lua_compat.save(path, network)
    if depth == 200:
        assert load_model(path)(torch.zeros(1, 2)).tolist() == [[1, 1]]
        return
    with pytest.raises(XnorNetError, match=r"deep\.t7: its modules are nested more than 250 deep"):
        load_model(path)


def test_classes_are_checked(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_bwn.t7")
    check_classes(network, 5, "tiny.t7")
    with pytest.raises(XnorNetError, match=r"tiny\.t7: the network has 5 classes, -nClasses says 1000"):
        check_classes(network, 1000, "tiny.t7")


def test_the_size_of_the_input_is_checked_and_nothing_changes(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_bwn.t7").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_input(network, 224, 5)
    with pytest.raises(
        XnorNetError, match=r"-cropSize 32: the network cannot take such a picture \(.*\); it takes -cropSize 224$"
    ):
        check_input(network, 32, 5)
    with pytest.raises(
        XnorNetError, match="-cropSize 256: the network gives 20 numbers for such a picture in place of 5; it takes"
    ):
        check_input(network, 256, 5)  # 7x7 in front of the 6x6 layer: 2x2 places with 5 numbers each
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_crop_size_that_a_network_takes_is_named() -> None:
    """vggsmall ends in planes of 1x1 from 32x32; three poolings make 28x28 of 224x224, the 4x4 layer 25 x 25 of it."""
    network = build_model("vggsmall", 10)
    with pytest.raises(XnorNetError, match=r"gives 6250 numbers .* in place of 10; it takes -cropSize 32$"):
        check_input(network, 224, 10)
    with pytest.raises(XnorNetError, match=r"numbers for such a picture in place of 11$"):  # no size mends that
        check_input(network, 32, 11)


def test_parameters_and_statistics_are_copied_in_order(golden: Path, tmp_path: Path) -> None:
    path = golden / "runs" / "bwn_sgd" / "after_batch_1.t7"
    source, network = load_model(path), load_model(golden / "models" / "tiny_bwn.t7")
    load_parameters(network, path)
    for ours, theirs in zip(network.state_dict().items(), source.state_dict().items(), strict=True):
        if "num_batches" not in ours[0]:
            assert torch.equal(ours[1], theirs[1]), ours[0]


def test_parameters_of_another_network_are_refused_before_anything_is_copied(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_bwn.t7")
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(XnorNetError, match=r"tiny_xnor\.t7: parameter \d+ has shape"):
        load_parameters(network, golden / "models" / "tiny_xnor.t7")
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_network_saved_from_a_gpu_is_read_without_one(golden: Path, tmp_path: Path) -> None:
    """The published models hold CudaTensors: the same network with every tensor renamed so."""
    network = lua_compat.load(golden / "models" / "tiny_xnor.t7")
    renamed = on_cuda(network)
    assert renamed["modules"][1]["weight"].typename == "torch.CudaTensor"
    lua_compat.save(tmp_path / "cuda.t7", renamed)
    plain, cuda = (load_model(path).eval() for path in (golden / "models" / "tiny_xnor.t7", tmp_path / "cuda.t7"))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(plain(x), cuda(x))
    assert from_torch(cuda)["modules"][1]["weight"].typename == "torch.FloatTensor"


def on_cuda(value: object) -> object:
    """The value with its float tensors as CudaTensors, as a network after :cuda() is saved."""
    if isinstance(value, TorchObject):
        return TorchObject(value.typename, {key: on_cuda(field) for key, field in value.items()})
    if isinstance(value, LuaTable):
        return LuaTable({key: on_cuda(field) for key, field in value.items()})
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return lua_compat.tensor(value, "torch.CudaTensor")
    return value


def test_a_network_written_and_read_answers_the_same(golden: Path, tmp_path: Path) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7").eval()
    lua_compat.save(tmp_path / "copy.t7", from_torch(network))
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "copy.t7").eval()(x), network(x))


def test_statistics_of_features_are_copied_too(tmp_path: Path) -> None:
    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 3), BatchNormalization(3), SpatialBatchNormalization(3))

    source, target = network(), network()
    for module in source[1:]:
        module.running_mean.fill_(7.0)
        module.running_var.fill_(9.0)
    lua_compat.save(tmp_path / "source.t7", from_torch(source))
    load_parameters(target, tmp_path / "source.t7")
    for module in target[1:]:
        assert module.running_mean.tolist() == [7.0] * 3
        assert module.running_var.tolist() == [9.0] * 3
