"""Every network of -netType: real Torch7's parameters and answers, published sizes, one step of training, its file."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
from lua_compat.generator import Generator
from lua_compat.module_text import module_text
from lua_compat.nn import from_torch
from lua_compat.values import LuaTable
from xnornet_port import XnorModel, build_model, load_model
from xnornet_port.answers import class_scores, criterion_of
from xnornet_port.binarization import Binarizer, binary_convolutions
from xnornet_port.model import check_input
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.summation import convolution_sums
from xnornet_port.train import Learner, train_batch
from xnornet_port.training import OPTIMIZERS
from xnornet_port.xnor_layers import XnorConvolution

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves test folders off the path

from thin import thinned

RESNETS = {
    "resnet_imagenet_18_A": NetworkSettings(1000, depth=18, shortcut_type="A"),
    "resnet_imagenet_18_B": NetworkSettings(1000, depth=18, shortcut_type="B"),
    "resnet_imagenet_50_B": NetworkSettings(1000, depth=50, shortcut_type="B"),
    "resnet_cifar10_20_A": NetworkSettings(10, depth=20, shortcut_type="A", dataset="cifar10"),
    "resnet_cifar10_32_A": NetworkSettings(10, depth=32, shortcut_type="A", dataset="cifar10"),
}
PLAIN = ("googlenet", "squeezenet", "alexnet", "alexnetowtbn", "overfeat", "vgg", "vggbn")


@pytest.fixture(scope="module")
def recorded(golden: Path) -> LuaTable:
    return lua_compat.load(golden / "nets.t7")


def golden_network(key: str) -> nn.Sequential:
    """The network that golden/nets.t7 has under this key."""
    if key in RESNETS:
        s = RESNETS[key]
        return build_model(
            "resnet", s.n_classes, depth=s.depth, shortcut_type=s.shortcut_type, dataset=s.dataset, seed=2
        )
    return build_model("alexnettowers" if key == "alexnet" else key, n_classes=10, seed=2)


def test_all_recorded_networks_are_compared(recorded: LuaTable) -> None:
    assert set(recorded) == {*RESNETS, *PLAIN}


@pytest.mark.parametrize("key", [*RESNETS, *PLAIN])
def test_a_new_network_is_real_torch7s(recorded: LuaTable, key: str) -> None:
    """Parameters bit for bit (first numbers of each, and sums over all), printout, convolutions, answer to an input."""
    theirs, network = recorded[key], golden_network(key)
    assert sum(parameter.numel() for parameter in network.parameters()) == theirs["count"]
    for parameter, wanted in zip(network.parameters(), theirs["parameters"].to_list(), strict=True):
        values = parameter.detach().numpy().ravel()
        assert list(parameter.shape) == wanted["size"].to_list()
        np.testing.assert_array_equal(values[: len(wanted["first"])], wanted["first"])
        # sums of doubles in another order; a single number drawn otherwise would show at 1e-9
        assert values.sum(dtype=np.float64) == pytest.approx(wanted["sum"], abs=1e-11 * max(wanted["abs"], 1))
        assert np.abs(values).sum(dtype=np.float64) == pytest.approx(wanted["abs"], rel=1e-11)
    assert module_text(from_torch(network)) == theirs["text"]
    assert len(binary_convolutions(network)) == theirs["nConv"] - 2
    pictures = torch.from_numpy(Generator(5).randn(1, 3, theirs["crop"], theirs["crop"]))
    with torch.no_grad():
        answer = network.eval()(pictures)
    assert answer.shape == theirs["output"].shape
    torch.testing.assert_close(answer, torch.from_numpy(np.asarray(theirs["output"])), atol=1e-4, rtol=0)


# ---- sizes ----

SIZES = [
    # netType, settings, parameters, binary convolutions; torchvision: its models' counts for 1000 classes
    ("alexnetowt", NetworkSettings(), 61_100_840, 3),  # torchvision alexnet
    ("alexnetowtbn", NetworkSettings(), 61_100_840 + 2 * (64 + 192 + 384 + 256 + 256 + 4096 + 4096), 3),
    # Krizhevsky's 60,965,224 less half of conv3, which sees both towers there
    ("alexnettowers", NetworkSettings(), 60_965_224 - 384 * 256 * 9 // 2, 8),
    ("vgg", NetworkSettings(), 132_863_336, 6),  # torchvision vgg11
    ("vggbn", NetworkSettings(), 132_863_336 + 2 * (4096 + 4096), 6),
    ("squeezenet", NetworkSettings(), 1_248_424, 24),  # torchvision squeezenet1_0
    ("resnet", NetworkSettings(), 11_689_512, 18),  # torchvision resnet18, and so on
    ("resnet", NetworkSettings(depth=34), 21_797_672, 34),
    ("resnet", NetworkSettings(depth=50), 25_557_032, 51),
    ("resnet", NetworkSettings(depth=101), 44_549_160, 102),
    ("resnet", NetworkSettings(depth=152), 60_192_808, 153),
    # by hand: the inception modules normalise 9632 planes, the rest 11680 - 9632; golden/nets.t7 for the others
    ("googlenetbn", NetworkSettings(n_classes=10), 17_348_468 + 2 * 11_680, 70),
    # by hand, block by block: convolution, two of 1x1 and three normalisations of 2 n; then the classifier
    (
        "ninbn",
        NetworkSettings(),
        (364 * 96 + 2 * 97 * 96 + 6 * 96)
        + (2401 * 256 + 2 * 257 * 256 + 6 * 256)
        + (2305 * 384 + 2 * 385 * 384 + 6 * 384)
        + (3457 * 1024 + 2 * 1025 * 1024 + 6 * 1024)
        + 1025 * 1000,
        10,
    ),
    # ninbn's convolutions; normalised: the first 96, the inputs of the binary blocks, the last 1024; same classifier
    (
        "ninxnor",
        NetworkSettings(),
        8_655_336 - 6 * (96 + 256 + 384 + 1024) + 2 * (96 + 3 * 96 + 3 * 256 + 3 * 384 + 2 * 1024 + 1024),
        11,
    ),
    # resnet's convolutions get biases, for 4800 planes; in place of those planes these are normalised: the first 64,
    # the inputs of each stage's convolutions, of the three shortcuts, and the last 512
    (
        "resnetxnor",
        NetworkSettings(),
        (11_689_512 + 4800 - 2 * 4800)
        + 2 * (64 + 4 * 64 + (64 + 3 * 128) + (128 + 3 * 256) + (256 + 3 * 512) + (64 + 128 + 256) + 512),
        19,
    ),
]


@pytest.mark.parametrize(("net_type", "settings", "n_parameters", "n_binary"), SIZES)
def test_sizes(net_type: str, settings: NetworkSettings, n_parameters: int, n_binary: int) -> None:
    network = NETWORKS[net_type].build(settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == n_parameters
    assert len(binary_convolutions(network)) == n_binary


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_sizes_for_cifar_are_the_papers(depth: int, millions: float) -> None:
    """He et al. 2015, table 6, with shortcuts of type A."""
    network = NETWORKS["resnet"].build(NetworkSettings(10, depth=depth, shortcut_type="A", dataset="cifar10"))
    found = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert found == pytest.approx(millions, abs=0.05 if millions > 1 else 0.005)


def test_the_table_of_the_networks_page_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)(?: -depth (\d+))?` \|.*\| ([\d,]+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert {row[0] for row in rows} == set(NETWORKS)
    for net_type, depth, n_parameters, n_convolutions, n_binary in rows:
        network = NETWORKS[net_type].build(NetworkSettings(depth=int(depth or 18)))
        assert sum(parameter.numel() for parameter in network.parameters()) == int(n_parameters.replace(",", ""))
        assert len(convolutions(network)) == int(n_convolutions), net_type
        assert len(binary_convolutions(network)) == int(n_binary), net_type


# ---- one step, saved, loaded ----

SMALL = [(name, NetworkSettings(n_classes=5), 32 if name == "vggsmall" else 224) for name in NETWORKS] + [
    ("overfeat", NetworkSettings(n_classes=5), 221),
    ("resnet", NetworkSettings(5, depth=50, shortcut_type="C"), 224),
    ("resnet", NetworkSettings(5, depth=34, shortcut_type="A"), 224),
    ("resnet", NetworkSettings(5, depth=50, dataset="cifar"), 32),
    ("resnet", NetworkSettings(5, depth=14, shortcut_type="A"), 32),
    ("resnetxnor", NetworkSettings(5, depth=34, shortcut_type="A"), 224),
    ("resnetxnor", NetworkSettings(5, depth=8, shortcut_type="C"), 32),
]


@pytest.mark.parametrize(("net_type", "settings", "crop"), SMALL)
def test_trains_a_step_is_saved_and_loaded_and_answers_the_same(
    net_type: str, settings: NetworkSettings, crop: int, tmp_path: Path
) -> None:
    """With an eighth of the planes; with -binaryWeight, a batch of two, and then one of one."""
    torch.manual_seed(2)
    network = thinned(NETWORKS[net_type].build(settings), settings.n_classes)
    NETWORKS[net_type].initialize(network, Generator(2))
    check_input(network, crop, settings.n_classes)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    train_step(network.train(), torch.randn(2, 3, crop, crop), torch.tensor([1, 5]))
    train_step(network, torch.randn(1, 3, crop, crop), torch.tensor([3]))
    for old, parameter in zip(before, network.parameters(), strict=True):
        assert old.dim() == 1 or not torch.equal(old, parameter)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())

    lua_compat.save(tmp_path / "network.t7", from_torch(network))
    loaded = load_model(tmp_path / "network.t7")
    assert module_text(from_torch(loaded)) == module_text(from_torch(network))
    pictures = torch.randn(2, 3, crop, crop)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(pictures), network.eval()(pictures))
    train_step(loaded.train(), pictures, torch.tensor([2, 4]))


def train_step(network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer_class, rule = OPTIMIZERS["sgd"]
    optimizer = optimizer_class(network.parameters(), lr=0.001, momentum=0.9, dampening=0.0, weight_decay=5e-4)
    binarizer = Binarizer(network)
    binarizer.mean_centre_and_clamp()
    train_batch(Learner(network, criterion_of(network), optimizer, rule, binarizer), pictures, labels)


# ---- which convolutions are binary ----


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_first_and_last_are_those_of_findmodules() -> None:
    """nn/Module.lua findModules goes into the branches of a Concat one after the other; a Linear is no convolution.

    GoogLeNet's last convolution so is the auxiliary classifier's; VGG keeps its last, though three Linear follow.
    """
    googlenet = NETWORKS["googlenet"].build(NetworkSettings(n_classes=10))
    real = set(convolutions(googlenet)) - set(binary_convolutions(googlenet))
    assert {(c.in_channels, c.out_channels, c.kernel_size[0]) for c in real} == {(3, 64, 7), (576, 128, 1)}
    vgg = NETWORKS["vgg"].build(NetworkSettings(n_classes=10))
    assert [c.out_channels for c in binary_convolutions(vgg)] == [128, 256, 256, 512, 512, 512]


@pytest.mark.parametrize("net_type", ["alexnetxnor", "ninxnor", "resnetxnor"])
def test_every_binary_convolution_of_an_xnor_network_has_binary_inputs(net_type: str) -> None:
    network = thinned(NETWORKS[net_type].build(NetworkSettings(n_classes=5)), 5)
    NETWORKS[net_type].initialize(network, Generator(2))
    values: dict[nn.Module, set[float]] = {}

    def note(convolution: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            values[convolution] = set(inputs[0].unique().tolist())

        return hook

    for convolution in convolutions(network):
        convolution.register_forward_pre_hook(note(convolution))
    with torch.no_grad():
        network.eval()(torch.randn(1, 3, 224, 224))
    assert all(values[convolution] <= {-1.0, 0.0, 1.0} for convolution in binary_convolutions(network))
    first, last = convolutions(network)[0], convolutions(network)[-1]
    assert not any(values[convolution] <= {-1.0, 0.0, 1.0} for convolution in (first, last))


PACKED = [
    ("ninxnor", "B", 11),
    ("resnetxnor", "B", 19),
    ("resnetxnor", "A", 16),
    ("googlenet", "B", 0),
    ("squeezenet", "B", 0),
]


@pytest.mark.parametrize(("net_type", "shortcut_type", "n_xnor"), PACKED)
def test_packed_bits_answer_the_same(net_type: str, shortcut_type: str, n_xnor: int) -> None:
    """XnorModel through Concat and ConcatTable, with statistics of real pictures.

    Without them a normalisation does not move its inputs, and a sum that is 0 in bits may be 1e-9 in float: another
    sign. The last layers' sums are in another order.
    """
    torch.manual_seed(2)
    network = thinned(NETWORKS[net_type].build(NetworkSettings(5, shortcut_type=shortcut_type)), 5)
    NETWORKS[net_type].initialize(network, Generator(2))
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 224, 224))
    pictures = torch.randn(2, 3, 224, 224)
    packed = XnorModel.from_model(network, backend="reference", binary_weights=True)
    assert sum(isinstance(layer, XnorConvolution) for layer in packed.binary_layers) == n_xnor
    assert len(packed.binary_layers) == len(binary_convolutions(network))
    with torch.no_grad(), Binarizer(network).binary_weights(), convolution_sums(network, torch.device("cpu")):
        wanted = network.eval()(pictures)
    torch.testing.assert_close(packed(pictures), wanted, atol=1e-5, rtol=1e-5)


# ---- settings ----


def test_dropout_is_the_options() -> None:
    dropouts = [m.p for m in NETWORKS["vgg"].build(NetworkSettings(dropout=0.2)).modules() if hasattr(m, "p")]
    assert dropouts == [0.2, 0.2]


def test_a_file_says_for_which_pictures_a_network_was_made() -> None:
    """model.imageSize, model.imageCrop in soumith's files; main.lua reads them (vggbn.lua sets none)."""
    written = from_torch(thinned(NETWORKS["ninbn"].build(NetworkSettings(n_classes=5)), 5))
    assert (written["imageSize"], written["imageCrop"]) == (256, 224)


def test_the_answer_of_googlenet_is_its_main_classifiers() -> None:
    network = thinned(NETWORKS["googlenet"].build(NetworkSettings(n_classes=5)), 5)
    NETWORKS["googlenet"].initialize(network, Generator(2))
    pictures = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        both, main = network.eval()(pictures), class_scores(network, pictures)
    assert both.shape == (2, 10)
    assert torch.equal(main, both[:, :5])
