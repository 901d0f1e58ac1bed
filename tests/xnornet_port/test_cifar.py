"""-dataset cifar10 and cifar100: batches, and whole runs that are tested, resumed and refused."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lua_compat.generator import Generator
from xnornet_port.batches import BatchRequest
from xnornet_port.cifar import CifarLoader, CifarSet, CifarSettings, open_cifar
from xnornet_port.cifar_files import CifarPart
from xnornet_port.cli import main
from xnornet_port.data import DataSource
from xnornet_port.errors import XnorNetError
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.options import parse_options
from xnornet_port.parallel import Place, Replicas
from xnornet_port.preprocessing import ChannelStatistics
from xnornet_port.unreadable import UnreadableList

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves test folders off the path

import cifar_distributions as made

TRAIN, TEST = [made.pictures(seed, 10, 10) for seed in range(1, 6)], made.pictures(9, 20, 10)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.binary_10(tmp_path_factory.mktemp("cifar"), TRAIN, TEST)


def opened(folder: Path, replicas: Replicas | None = None) -> DataSource:
    part = replicas.part if replicas else None
    return open_cifar(str(folder), "cifar10", 2, lambda line: None, UnreadableList(lambda line: None, None), part)


# ---- batches ----


def test_a_training_batch_by_hand() -> None:
    """Pixel values tell where they were: row * 8 + column // 4 is in reach of a byte; mean 0, deviation 1/255."""
    picture = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 8, (32, 32)) + np.arange(32, dtype=np.uint8) // 4
    pixels = np.stack([np.stack([picture + 0] * 3)] * 2).astype(np.uint8)
    part = CifarSet(CifarPart(pixels, np.array([1, 2])), ("a", "b"))
    unit = ChannelStatistics((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    loader = CifarLoader(part, part, CifarSettings(unit), Generator(7))
    inputs, labels = np.empty((6, 3, 32, 32), np.float32), np.empty(6, np.int64)
    assert loader.fill(BatchRequest("train", 6), inputs, labels) == ()

    stream = Generator(7)
    padded = np.pad(picture, 4)
    for made_picture, label in zip(inputs, labels, strict=True):
        class_number, _ = stream.random(1, 2), stream.random(1, 1)
        top, left = stream.random(1, 9) - 1, stream.random(1, 9) - 1
        crop = padded[top : top + 32, left : left + 32]
        wanted = crop[:, ::-1] if stream.uniform() > 0.5 else crop
        assert label == class_number
        np.testing.assert_allclose(made_picture, np.stack([wanted] * 3), rtol=1e-6)
    assert loader.stream.state == stream.state


def test_mean_and_deviation(cifar10: Path) -> None:
    """Test pictures are normalised by the mean and the deviation of all training pixels of a channel."""
    with opened(cifar10) as data:
        (batch,) = data.test_batches(20)
    values = np.concatenate([pixels for pixels, _ in TRAIN]).reshape(-1, 3, 1024) / 255
    mean, std = values.mean(axis=(0, 2))[:, None], values.std(axis=(0, 2))[:, None]
    wanted = (TEST[0].reshape(-1, 3, 1024) / 255 - mean) / std
    np.testing.assert_allclose(np.asarray(batch.inputs).reshape(-1, 3, 1024), wanted, atol=2e-6)
    assert batch.labels.tolist() == list(range(1, 11)) * 2


def test_several_processes_share_a_batch(cifar10: Path) -> None:
    one, two = Replicas(Place(0, 2)), Replicas(Place(1, 2))
    with opened(cifar10) as whole, opened(cifar10, one) as first, opened(cifar10, two) as second:
        for all_of_it, *parts in zip(
            whole.train_batches(3, 7), first.train_batches(3, 7), second.train_batches(3, 7), strict=True
        ):
            np.testing.assert_array_equal(np.concatenate([p.inputs for p in parts]), all_of_it.inputs)
            assert np.concatenate([p.labels for p in parts]).tolist() == all_of_it.labels.tolist()
            assert {p.stream for p in parts} == {all_of_it.stream}


def test_a_class_without_pictures(tmp_path: Path) -> None:
    made.two_t7(tmp_path, [made.pictures(1, 9, 10)], TEST)
    with pytest.raises(XnorNetError, match="class truck of cifar10 has no training picture"):
        opened(tmp_path)


# ---- runs ----

RESNET = "-netType resnet -depth 8 -dataset cifar10 -batchSize 4 -epochSize 2 -nEpochs 1 -device cpu -quiet"


def run(data: Path, cache: Path, words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["-data", str(data), "-cache", str(cache), *words.split()])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def summary(text: str) -> str:
    return next(line for line in text.splitlines() if "TESTING SUMMARY" in line).split("\t", 1)[1]


def test_trained_tested_and_resumed(cifar10: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(cifar10, tmp_path / "a", RESNET, capsys)
    assert code == 0, text
    folder = next((tmp_path / "a").glob("*/*"))
    code, tested = run(cifar10, tmp_path / "b", f"{RESNET} -testOnly -retrain {folder / 'model_1.t7'}", capsys)
    assert (code, summary(tested)) == (0, summary(text))
    code, longer = run(cifar10, tmp_path / "a", f"-resume {folder} -nEpochs 2", capsys)
    assert code == 0, longer
    whole_code, whole = run(cifar10, tmp_path / "c", RESNET.replace("-nEpochs 1", "-nEpochs 2"), capsys)
    assert whole_code == 0
    assert whole.strip().splitlines()[-1].split("\t", 1)[1:] == longer.strip().splitlines()[-1].split("\t", 1)[1:]
    assert (folder / "model_2.t7").read_bytes() == next((tmp_path / "c").glob("*/*/model_2.t7")).read_bytes()


def test_an_xnor_network_of_cifar100(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made.python_100(tmp_path, made.pictures(1, 100, 100), made.pictures(2, 8, 100))
    words = RESNET.replace("cifar10", "cifar100").replace("-netType resnet", "-netType resnetxnor -binaryWeight")
    code, text = run(data, tmp_path / "cache", words, capsys)
    assert code == 0, text
    assert "accuracy" in summary(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-cropSize 224", "None"),  # the default, typed
        ("-cropSize 28", "-cropSize 28: with -dataset cifar10 it is 32; leave it out"),
        ("-nClasses 100", "-nClasses 100: with -dataset cifar10 it is 10; leave it out"),
        ("-dataset cifar", "-dataset cifar: expected imagenet, cifar10 or cifar100"),
        ("-netType alexnet", "-cropSize 32: the network cannot take such a picture"),
    ],
)
def test_options(words: str, message: str, cifar10: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(cifar10, tmp_path, f"{RESNET} {words}", capsys)
    assert code == (0 if message == "None" else 1)
    assert message == "None" or message in text


def test_no_files_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(tmp_path, tmp_path / "cache", RESNET, capsys)
    assert code == 1
    assert "no cifar10 in it (-data; looked for one of the files" in text


def test_sizes_follow_the_dataset() -> None:
    options = parse_options(["-dataset", "cifar100", "-netType", "resnet"])
    assert (options.crop_size, options.image_size, options.n_classes) == (32, 32, 100)
    assert "resnet,dataset=cifar100/" in options.save
    assert parse_options(["-dataset", "places"]).crop_size == 224  # as ever: any other name has no effect


def test_the_small_vgg() -> None:
    """Parameters by hand: 3x3 convolutions with biases, their normalisations, a 4x4 classifier."""
    network = NETWORKS["vggsmall"].build(NetworkSettings(10))
    planes = [3, 128, 128, 256, 256, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in pairwise(planes)) + 16 * 512 * 10 + 10
    normalisations = 2 * (128 + 128 + 256 + 256 + 512 + 512)
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + normalisations
