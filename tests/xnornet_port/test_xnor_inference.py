"""XnorModel against the float network it was made of: golden networks, odd topologies, what is refused."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lua_compat.nn import SpatialDropout
from lua_compat.nn.containers import ConcatTable
from lua_compat.nn.normalization import SpatialBatchNormalization
from lua_compat.nn.table import CAddTable
from xnornet_port import XnorModel, load_model
from xnornet_port.binarization import Binarizer, binary_convolutions
from xnornet_port.data import open_data
from xnornet_port.errors import XnorNetError
from xnornet_port.input_scale import InputScaledConvolution
from xnornet_port.kernels import PackedInput
from xnornet_port.layers import BinActiveZ
from xnornet_port.summation import convolution_sums
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution

NETWORKS = ("models/tiny_xnor.t7", "runs/xnor_adam/after_batch_1.t7", "runs/xnor_adam/after_batch_2.t7")
END_STATES = ("xnor_adam/after_batch_3.t7", "xnor_sgd/after_batch_3.t7", "xnor_adam_1thread/after_batch_3.t7")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The 30 validation pictures as testing crops them."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(golden / "cache", cache, dirs_exist_ok=True)
    with open_data(
        str(golden / "imagenet"), str(cache), image_size=256, crop_size=224, n_classes=5, scaling_factor=0,
        n_donkeys=0, manual_seed=2, say=lambda line: None, training=False,
    ) as data:  # fmt: skip
        batches = [torch.from_numpy(batch.inputs) for batch in data.test_batches(10, test_all=True)]
    return torch.cat(batches)


def answers(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the float network with binary weights, and of the packed one."""
    model = XnorModel.from_model(network.eval(), binary_weights=True)
    with torch.no_grad(), convolution_sums(network, CPU), Binarizer(network).binary_weights():
        expected = network(x)
    with convolution_sums(model, CPU):
        return expected, model(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_networks_predict_the_same(name: str, golden: Path, pictures: torch.Tensor) -> None:
    """Same top-1 for every picture; the float path's sums round, so the last bits may differ."""
    expected, found = answers(load_model(golden / name), pictures)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", END_STATES)
def test_golden_end_states_predict_the_same(name: str, shared: Path, pictures: torch.Tensor) -> None:
    path = shared / "golden" / "runs" / name
    if not path.is_file():
        pytest.skip(f"no {name}")
    expected, found = answers(load_model(path), pictures)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_binary_weight_network_answers_to_the_bit(golden: Path, pictures: torch.Tensor) -> None:
    expected, found = answers(load_model(golden / "models" / "tiny_bwn.t7"), pictures[:5])
    assert torch.equal(found, expected)


def test_what_became_of_alexnetxnors_layers(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7")
    before = copy.deepcopy(network.state_dict())
    model = XnorModel.from_model(network, backend="reference")
    layers = model.binary_layers
    places = [name for name, module in network.named_modules() if module in binary_convolutions(network)]
    assert [layer.place for layer in layers] == places
    assert all(isinstance(layer, XnorConvolution) for layer in layers)
    assert [layer.thresholds is not None for layer in layers] == [True] * (len(layers) - 1) + [False]
    assert [layer.pooling is not None for layer in layers] == [True, False, True, False, False]
    assert not any(isinstance(module, BinActiveZ) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(not parameter.requires_grad for parameter in model.parameters())
    ours = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in network.state_dict().values()}


def test_weights_that_are_binary_already(golden: Path, pictures: torch.Tensor) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7")
    of_latent = XnorModel.from_model(network, backend="reference")
    Binarizer(network).binarize()
    of_binary = XnorModel.from_model(network, backend="reference")
    for name, value in of_latent.state_dict().items():
        assert torch.equal(value, of_binary.state_dict()[name]), name


def exact_numbers(network: nn.Module, seed: int = 1) -> nn.Module:
    """Weights of +-1/4 and 1/8ths elsewhere: the float path's sums are exact too, so that answers are equal."""
    generator = torch.Generator().manual_seed(seed)

    def eighths(tensor: torch.Tensor, low: int, high: int) -> None:
        tensor.copy_(torch.randint(low, high, tensor.shape, generator=generator) / 8)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(torch.randint(0, 2, module.weight.shape, generator=generator) / 2 - 0.25)
                if module.bias is not None:
                    eighths(module.bias, -8, 9)
            elif isinstance(module, nn.BatchNorm2d):
                for tensor, low in ((module.weight, -8), (module.bias, -8), (module.running_mean, -9)):
                    eighths(tensor, low, 9)
                eighths(module.running_var, 1, 30)
    return network.eval()


def block(n_inputs: int, n_outputs: int, **sizes: object) -> list[nn.Module]:
    convolution = nn.Conv2d(n_inputs, n_outputs, **{"kernel_size": 3, "padding": 1, **sizes})  # type: ignore[arg-type]
    return [SpatialBatchNormalization(n_inputs), BinActiveZ(), convolution]


def ends(middle: list[nn.Module], n_last: int) -> nn.Sequential:
    first = nn.Conv2d(3, 6, 3, padding=1)
    return nn.Sequential(first, *middle, nn.Conv2d(n_last, 4, 3, padding=1))


class OwnBlock(nn.Module):
    """A module whose forward nobody can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.sign, self.convolution = BinActiveZ(), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.convolution(self.sign(x))
        return y + x


def residual() -> nn.Module:
    branch = nn.Sequential(*block(6, 6), nn.MaxPool2d(3, 1, 1), *block(6, 6))
    return nn.Sequential(ConcatTable([branch, nn.Identity()]), CAddTable())


TOPOLOGIES: dict[str, Callable[[], nn.Module]] = {
    "nested": lambda: ends([nn.Sequential(*block(6, 6)), nn.Sequential(nn.Sequential(*block(6, 8)))], 8),
    "pooling and dropout": lambda: ends(
        [*block(6, 70), nn.MaxPool2d(3, 2, 1, ceil_mode=True), SpatialDropout(0.5), *block(70, 6)], 6
    ),
    "pooling behind the normalisation": lambda: ends(
        [*block(6, 6), SpatialBatchNormalization(6), nn.MaxPool2d(2), BinActiveZ(), nn.Conv2d(6, 6, 3)], 6
    ),
    "average pooling between": lambda: ends([*block(6, 6), nn.AvgPool2d(2), *block(6, 6)], 6),
    "one module in two places": lambda: ends([half := nn.AvgPool2d(2), *block(6, 6), half, *block(6, 6)], 6),
    "a float layer behind": lambda: ends([*block(6, 6), nn.ReLU()], 6),
    "strides and no bias": lambda: ends([*block(6, 8, stride=2, bias=False), *block(8, 6, dilation=2, padding=2)], 6),
    "groups": lambda: ends([*block(6, 6), *block(6, 6, groups=2), *block(6, 6)], 6),
    "residual": lambda: ends([residual(), residual(), SpatialBatchNormalization(6), nn.ReLU()], 6),
    "a module of one's own": lambda: ends([OwnBlock(), *block(6, 6)], 6),
    "no normalisation between": lambda: ends([*block(6, 6), BinActiveZ(), nn.Conv2d(6, 6, 1)], 6),
}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies_answer_to_the_bit(name: str, backend: str) -> None:
    network = exact_numbers(TOPOLOGIES[name]())
    x = torch.randint(-8, 9, (2, 3, 12, 12), generator=torch.Generator().manual_seed(3)) / 8
    model = XnorModel.from_model(network, backend)
    with torch.no_grad():
        expected = network(x)
    assert torch.equal(model(x), expected)
    n_binary = len(binary_convolutions(network))
    assert len(model.binary_layers) == n_binary
    float_inputs = {"groups": 1, "a module of one's own": 1}.get(name, 0)
    assert sum(isinstance(layer, BinaryWeightConvolution) for layer in model.binary_layers) == float_inputs


def test_bits_go_from_layer_to_layer() -> None:
    model = XnorModel.from_model(exact_numbers(TOPOLOGIES["residual"]()), backend="reference")
    seen: list[type] = []
    for layer in model.binary_layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(type(inputs[0])))
    model(torch.randn(1, 3, 8, 8))
    assert seen == [torch.Tensor, PackedInput] * 2


def test_state_and_copies(golden: Path) -> None:
    model = XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7"), backend="reference")
    other = XnorModel.from_model(load_model(golden / "runs" / "xnor_adam" / "after_batch_1.t7"), backend="reference")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    expected = other(x)
    assert not torch.equal(model(x), expected)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(x), expected)
    assert torch.equal(copy.deepcopy(model).to(CPU)(x), expected)


def test_what_is_refused(golden: Path) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7")
    model = XnorModel.from_model(network, backend="reference")
    with pytest.raises(XnorNetError, match="cannot be trained"):
        model.train()
    with pytest.raises(XnorNetError, match="takes float32"):
        model(torch.zeros(3, 224, 224))
    with pytest.raises(XnorNetError, match=r"nothing empty, found torch\.float32 \(0, 3, 224, 224\)$"):
        model(torch.zeros(0, 3, 224, 224))
    with pytest.raises(XnorNetError, match=r"found ndarray: torch\.from_numpy\(x\)$"):
        model(torch.zeros(1, 3, 224, 224).numpy())
    for no_network, message in [
        ("model.t7", r"^model\.t7: a file's name, not a network: XnorModel\.from_model\(load_model\(path\)\)$"),
        (Path("model.t7"), r"^model\.t7: a file's name"),
        (model, "^the network is packed already"),
        (network.state_dict(), r"^a torch\.nn\.Module is packed, not OrderedDict"),
    ]:
        with pytest.raises(XnorNetError, match=message):
            XnorModel.from_model(no_network)  # type: ignore[arg-type]
    with pytest.raises(XnorNetError, match="no binary layer"):
        XnorModel.from_model(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)))
    with pytest.raises(XnorNetError, match="backend 'fast' is not known"):
        XnorModel.from_model(network, backend="fast")
    real = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(3)))
    with pytest.raises(XnorNetError, match="no mark of training with -binaryWeight"):
        XnorModel.from_model(real)
    assert len(XnorModel.from_model(real, "reference", binary_weights=True).binary_layers) == 1
    binary_convolutions(network)[1].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(XnorNetError, match="its weights contain nan"):
        XnorModel.from_model(network)
    odd = ends([*block(6, 6, padding="same")], 6)
    with pytest.raises(XnorNetError, match="only zero padding given in numbers"):
        XnorModel.from_model(odd)
    with pytest.raises(XnorNetError, match=r"^3: stride must be one or two whole numbers of at least 1, not \(0, 0\)$"):
        XnorModel.from_model(ends(block(6, 6, stride=0), 6))
    with pytest.raises(XnorNetError, match=r"found torch\.float32 \(1, 3, 9, 9\), torch\.sparse_coo: x\.to_dense"):
        plain()(torch.ones(1, 3, 9, 9).to_sparse())


def plain() -> XnorModel:
    return XnorModel.from_model(exact_numbers(TOPOLOGIES["nested"]()))


@pytest.mark.parametrize("part", [0, 1, 3, 4, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_are_refused(part: int, dtype: torch.dtype) -> None:
    """Before packing, wherever in the network, and after it."""
    network = ends([*block(6, 6), SpatialBatchNormalization(6, affine=False)], 6)
    network[part].to(dtype)
    with pytest.raises(XnorNetError, match=f"^{len(network) - 1 if part < 0 else part}: only float32 is packed, found"):
        XnorModel.from_model(network, binary_weights=True)
    with pytest.raises(XnorNetError, match=rf"computes in float32, not {re.escape(str(dtype))}"):
        plain().to(dtype)(torch.ones(1, 3, 9, 9))


def test_what_has_diverged_is_refused() -> None:
    """A file of it could not be read again."""
    for change, name in (("bias", "biases"), ("weight", "weights"), ("size", "scales")):
        network = ends(block(6, 6), 6)
        with torch.no_grad():
            if change == "size":
                network[3].weight[0] = 3e38  # its sum is no float32
            else:
                getattr(network[3], change).view(-1)[1] = torch.inf
        with pytest.raises(XnorNetError, match=f"^3: its {name} .*contain nan or infinity; has training diverged"):
            XnorModel.from_model(network)


def test_weights_of_a_binary_and_a_real_layer() -> None:
    """The float network is tested with binary weights wherever they are used."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), BinActiveZ(), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3))
    network[3].weight = network[2].weight
    with pytest.raises(XnorNetError, match=r"^3: stays real, but its weights are those of a binary layer, Conv2d"):
        XnorModel.from_model(network)
    Binarizer(network).binarize()
    assert len(XnorModel.from_model(network).binary_layers) == 1


def test_inference_mode(tmp_path: Path) -> None:
    """Made, copied and called in it and out of it; tensors made in it do not count their changes."""
    network, x = exact_numbers(TOPOLOGIES["nested"]()), torch.ones(1, 3, 12, 12)
    expected = plain()(x)
    plain().save(tmp_path / "a.xnor.safetensors")
    with torch.inference_mode():
        models = [plain(), XnorModel.load(tmp_path / "a.xnor.safetensors"), XnorModel.from_model(network)]
        models += [copy.deepcopy(model) for model in models]
        assert all(torch.equal(model(x), expected) for model in models)
        other = XnorModel.from_model(exact_numbers(TOPOLOGIES["nested"](), seed=2))
    assert all(torch.equal(model(x), expected) for model in models)
    with torch.inference_mode():
        for model in models:
            model.load_state_dict(other.state_dict())
            assert torch.equal(model(x), other(x))
            assert not torch.equal(model(x), expected)


@pytest.mark.parametrize("default", [torch.float64, torch.device("meta")])
def test_defaults_of_torch_do_not_matter(default: torch.dtype | torch.device) -> None:
    network, x = exact_numbers(TOPOLOGIES["nested"]()), torch.ones(1, 3, 12, 12)
    expected = plain()(x)
    try:
        if isinstance(default, torch.dtype):
            torch.set_default_dtype(default)
        else:
            torch.set_default_device(default)
        found = XnorModel.from_model(network)(x)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(found, expected)


def test_an_input_scale_under_autocast() -> None:
    """What comes in is bfloat16 then; K is found in float32, as alpha dot is."""
    layers = [SpatialBatchNormalization(6), InputScaledConvolution(nn.Conv2d(6, 6, 3, bias=False))]
    model, x = XnorModel.from_model(exact_numbers(ends(layers, 6))), torch.ones(1, 3, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x)
    torch.testing.assert_close(found.float(), model(x), rtol=0.02, atol=0.02)  # bfloat16 has 8 bits
