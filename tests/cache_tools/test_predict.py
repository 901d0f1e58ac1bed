"""predict: answers of real Torch7's -testOnly, the same bits as testing, names, unreadable files, the sheet."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lua_compat
from cache_tools.__main__ import main
from cache_tools.class_names import read_words
from cache_tools.contact_sheet import Tile, write_sheet
from cache_tools.predict import find_pictures
from cache_tools.prediction import network_inputs
from lua_compat import Generator
from lua_compat.nn import from_torch
from xnornet_port.batches import BatchRequest, Loader
from xnornet_port.binarization import Binarizer
from xnornet_port.cifar import open_cifar
from xnornet_port.cli import main as train_and_test
from xnornet_port.dataset_cache import read_dataset, read_statistics
from xnornet_port.errors import XnorNetError
from xnornet_port.model import load_model
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing
from xnornet_port.unreadable import UnreadableList
from xnornet_port.xnor_inference import XnorModel

sys.path.insert(0, str(Path(__file__).parent.parent / "xnornet_port"))  # as tests/xnornet_port/test_cifar.py does

import cifar_distributions as made


@pytest.fixture
def pictures(golden: Path) -> list[str]:
    """The 30 test pictures in the order in which they are tested."""
    file = str(golden / "cache" / "testCache.t7")
    dataset = rebase(read_dataset(file), str(golden / "imagenet" / "val"), file)
    return [os.fsdecode(dataset.path(number)) for number in range(1, len(dataset) + 1)]


def predict(golden: Path, *words: object, model: str = "tiny_xnor") -> int:
    return main(["predict", str(golden / "models" / f"{model}.t7"), "--cache", str(golden / "cache"), *map(str, words)])


@pytest.mark.parametrize(
    ("run", "model", "option"),
    [("xnor_testonly", "tiny_xnor", "--binary-weight"), ("xnor_testonly_real", "tiny_xnor", "--latent-weights"),
     ("bwn_testonly", "tiny_bwn", "--binary-weight")],
)  # fmt: skip
def test_the_answers_of_real_torch7(
    run: str, model: str, option: str, golden: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log-probabilities for 24 pictures, to 1e-5: sums are added in another order."""
    trace = lua_compat.load(golden / "runs" / run / "trace.t7")
    expected = np.exp(np.concatenate([batch["output"] for batch in trace["test"].to_list()]))
    assert predict(golden, *pictures[: len(expected)], option, "--json", model=model) == 0
    answers = json.loads(capsys.readouterr().out)
    classes = lua_compat.load(golden / "runs" / run / "classes.t7").to_list()
    assert [answer["file"] for answer in answers] == pictures[: len(expected)]
    for answer, row in zip(answers, expected, strict=True):
        found = {entry["class"]: entry["probability"] for entry in answer["classes"]}
        np.testing.assert_allclose([found[name] for name in classes], row, rtol=1e-5)
        assert [entry["number"] for entry in answer["classes"]] == list(np.argsort(-row) + 1)


def test_inputs_are_those_of_testing_bit_for_bit(golden: Path, pictures: list[str]) -> None:
    settings = Preprocessing(256, 224, 0.0, read_statistics(str(golden / "cache" / "meanstdCache.t7")))
    file = str(golden / "cache" / "testCache.t7")
    dataset = rebase(read_dataset(file), str(golden / "imagenet" / "val"), file)
    loader = Loader(dataset, dataset, settings, Generator(7))
    inputs, labels = np.empty((30, 3, 224, 224), np.float32), np.empty(30, np.int64)
    loader.fill(BatchRequest("test", 30), inputs, labels)
    ours, faults = network_inputs(pictures, settings)
    assert not any(faults)
    assert ours.tobytes() == inputs.tobytes()


def test_latent_weights_are_binarised_and_a_line_says_so(
    golden: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    predict(golden, pictures[0], "--binary-weight")
    asked = capsys.readouterr()
    predict(golden, pictures[0])
    found = capsys.readouterr()
    assert found.out == asked.out
    assert asked.err == ""
    assert "tested with binary weights, as --binary-weight does" in found.err
    predict(golden, pictures[0], "--quiet")
    assert capsys.readouterr().err == ""


def test_the_text(golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first picture of xnor_testonly: exp(-1.2062036) = 29.93 % for the fifth class, n02119789."""
    (tmp_path / "synset_words.txt").write_text("n02119789 kit fox, Vulpes macrotis\nn01440764 tench, Tinca tinca\n")
    assert predict(golden, pictures[0], "--names", tmp_path / "synset_words.txt", "--top", 2, "--quiet") == 0
    assert capsys.readouterr().out.splitlines() == [
        pictures[0],
        "   29.93%  kit fox, Vulpes macrotis  (n02119789)",
        "   19.38%  n07753592",  # exp(-1.6411278)
    ]


def test_what_cannot_be_read_is_told_and_the_rest_answered(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = golden / "odd_images"
    assert predict(golden, odd, "--json", "--quiet") == 1
    captured = capsys.readouterr()
    answers = {Path(answer["file"]).name: answer for answer in json.loads(captured.out)}
    assert len(answers) == 14
    bad = {name for name, answer in answers.items() if "error" in answer}
    assert bad == {"empty.JPEG", "text.JPEG"}
    assert captured.err.splitlines() == [answers[name]["error"] for name in ("empty.JPEG", "text.JPEG")]


def test_folders_patterns_and_files(golden: Path, tmp_path: Path) -> None:
    folder = golden / "imagenet" / "val" / "n01440764"
    files = sorted(str(path) for path in folder.iterdir())
    assert find_pictures([str(folder)]) == files
    assert find_pictures([f"{golden}/imagenet/val/n0144*/*.JPEG", files[0]]) == [*files, files[0]]
    assert find_pictures(["absent.jpg"]) == ["absent.jpg"]
    odd = tmp_path / "a[1].jpg"
    shutil.copy(files[0], odd)
    assert find_pictures([str(odd)]) == [str(odd)]
    (tmp_path / "empty").mkdir()
    for word in (tmp_path / "empty", tmp_path / "*.gif"):
        with pytest.raises(XnorNetError, match="no pictures there"):
            find_pictures([str(word)])


def test_the_runs_folder_says_the_rest(
    golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """cache/RUN/DATE/model_1.t7: caches two folders up, sizes from options.json."""
    cache = Path(shutil.copytree(golden / "cache", tmp_path / "cache"))
    run = cache / "alexnetxnor,batchSize=8" / "date"
    run.mkdir(parents=True)
    shutil.copy(golden / "models" / "tiny_xnor.t7", run / "model_1.t7")
    (run / "options.json").write_text(json.dumps({"options": {"imageSize": 240, "cropSize": 224}}))
    assert main(["predict", str(run / "model_1.t7"), pictures[0], "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert predict(golden, pictures[0], "--image-size", 240, "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_a_runs_folder_is_its_newest_model(
    golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(golden / "cache", tmp_path / "cache")) / "alexnetxnor,batchSize=8" / "date"
    run.mkdir(parents=True)
    assert main(["predict", str(run), pictures[0]]) == 1
    assert f"{run}: no file but a folder, and no model_N.t7 in it" in capsys.readouterr().err
    (run / "model_9.t7").write_text("an older one")
    shutil.copy(golden / "models" / "tiny_xnor.t7", run / "model_10.t7")
    assert main(["predict", str(run), pictures[0], "--json", "--latent-weights"]) == 0
    captured = capsys.readouterr()
    assert f"{run}/model_10.t7: the newest model of the run\n" in captured.err
    assert main(["predict", str(run / "model_10.t7"), pictures[0], "--json", "--latent-weights"]) == 0
    assert capsys.readouterr().out == captured.out


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [nn.Conv2d(1, 2, 5), nn.AdaptiveMaxPool2d(1)],
            "takes pictures of 1 channel, and is given 3: red, green",
        ),
        ([nn.Linear(11, 2)], "takes no picture of 224 pixels"),
    ],
)
def test_what_takes_no_coloured_picture(
    layers: list[nn.Module], message: str, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said at once, and not after a search for mean and deviation."""
    lua_compat.save(tmp_path / "m.t7", from_torch(nn.Sequential(*layers)))
    assert main(["predict", str(tmp_path / "m.t7"), pictures[0]]) == 1
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_the_sheet(golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert predict(golden, *pictures[:5], "--sheet", sheet) == 0
    assert capsys.readouterr().out.endswith(f"{sheet}\n")
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 212 + 12, 2 * (200 + 3 * 17 + 24) + 12)  # five pictures: three columns, two rows
        assert len(picture.getcolors(1 << 20) or []) > 1000
    for name, problem in (("sheet.jpg", "should end in .png"), ("no/sheet.png", "no does not exist")):
        assert predict(golden, pictures[0], "--sheet", tmp_path / name) == 1
        captured = capsys.readouterr()
        assert captured.out == ""  # told before the pictures are looked at
        assert problem in captured.err


def test_a_tile_with_long_and_odd_text(tmp_path: Path) -> None:
    write_sheet(tmp_path / "x.png", [Tile(str(tmp_path / "absent"), ["x" * 500, "日本語 <&>"])])
    with pytest.raises(XnorNetError, match="1 to 600 pictures, these are 0"):
        write_sheet(tmp_path / "x.png", [])
    with pytest.raises(XnorNetError, match="1 to 600 pictures, these are 601"):
        write_sheet(tmp_path / "x.png", [Tile("absent", [])] * 601)


def test_words(golden: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("tench\ngoldfish\n")
    assert read_words(file, 2) == {1: "tench", 2: "goldfish"}
    with pytest.raises(XnorNetError, match="nor one for each of the 3 classes"):
        read_words(file, 3)
    assert read_words(golden / "runs" / "bwn_sgd" / "classes.t7", 5)[2] == "n07753592"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(XnorNetError, match="not a text file"):
        read_words(file, 2)


def test_mistakes(golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(golden / "models" / "tiny_xnor.t7", tmp_path / "m.t7")
    assert main(["predict", str(tmp_path / "m.t7"), pictures[0]]) == 1
    assert "name the folder of the caches with --cache" in capsys.readouterr().err
    lua_compat.save(tmp_path / "classes.t7", lua_compat.LuaTable(["a", "b"]))
    shutil.copy(golden / "cache" / "meanstdCache.t7", tmp_path)
    assert main(["predict", str(tmp_path / "m.t7"), pictures[0]]) == 1
    assert "classes.t7: has 2 classes, the network 5" in capsys.readouterr().err
    assert predict(golden, pictures[0], "--crop-size", 20) == 1
    assert "takes no picture of 20 pixels" in capsys.readouterr().err
    assert predict(golden, pictures[0], "--data", tmp_path) == 1
    assert f"--data {tmp_path}: for a network of CIFAR, and this one is of imagenet" in capsys.readouterr().err
    assert main(["predict", "alexnetxnor", pictures[0], "--cache", str(golden / "cache")]) == 1  # it would be untrained
    assert "alexnetxnor: cannot be read: No such file or directory" in capsys.readouterr().err
    (tmp_path / "options.json").write_text(json.dumps({"options": {"imageSize": "large"}}))
    assert main(["predict", str(tmp_path / "m.t7"), pictures[0]]) == 1
    assert "the run's imageSize is 'large', expected a whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        predict(golden, pictures[0], "--top", 0)


def test_a_packed_network(
    golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that `convert` writes gives the classes of the .t7 it was made of."""
    pytest.importorskip("safetensors")
    packed = tmp_path / "tiny.xnor.safetensors"
    XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7"), "reference").save(packed)
    assert main(["predict", str(packed), *pictures[:3], "--cache", str(golden / "cache"), "--json", "-q"]) == 0
    found = capsys.readouterr()
    predict(golden, *pictures[:3], "--json", "-q")
    expected = json.loads(capsys.readouterr().out)
    for ours, theirs in zip(json.loads(found.out), expected, strict=True):
        assert [entry["class"] for entry in ours["classes"]] == [entry["class"] for entry in theirs["classes"]]
    assert main(["predict", str(packed), pictures[0], "--cache", str(golden / "cache"), "--binary-weight"]) == 1
    assert "packed, its weights are bits" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """CIFAR-10's files with made pictures, a run on them, and six of the test pictures."""
    folder = tmp_path_factory.mktemp("cifar")
    train, test = [made.pictures(seed, 10, 10) for seed in range(1, 6)], made.pictures(9, 20, 10)
    data = made.binary_10(folder, train, test)
    words = "-dataset cifar10 -netType resnetxnor -depth 8 -binaryWeight -optimType adam -nEpochs 1 -epochSize 1"
    assert train_and_test(["-data", str(data), "-cache", str(folder / "cache"), "-batchSize", "4", *words.split()]) == 0
    model = next((folder / "cache").glob("*/*/model_1.t7"))
    paths = [str(folder / f"{number}.png") for number in range(6)]
    for path, pixels in zip(paths, test[0], strict=False):
        Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(path)
    return data, model, paths


def test_a_run_on_cifar(
    golden: Path, cifar: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers of testing to the same pictures, with CIFAR's mean and deviation though ImageNet's are in --cache."""
    data, model, paths = cifar
    network = load_model(model).eval()
    with open_cifar(str(data), "cifar10", 2, lambda line: None, UnreadableList(lambda line: None, None)) as opened:
        (batch,) = opened.test_batches(20)
        with torch.no_grad(), Binarizer(network).binary_weights():
            expected = network(torch.from_numpy(np.array(batch.inputs[:6]))).softmax(dim=1).numpy()
        names = opened.classes
    shutil.copy(golden / "cache" / "meanstdCache.t7", tmp_path)
    shutil.copy(model.parent / "classes.t7", tmp_path)
    capsys.readouterr()
    for words in ([], ["--cache", str(tmp_path)]):
        assert main(["predict", str(model), *paths, "--json", "-q", "--top", "10", *words]) == 0
        for answer, row in zip(json.loads(capsys.readouterr().out), expected, strict=True):
            found = {entry["class"]: entry["probability"] for entry in answer["classes"]}
            np.testing.assert_allclose([found[name] for name in names], row, rtol=1e-4)


def test_cifars_files_may_have_moved(
    cifar: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model, paths = cifar
    shutil.copy(model, tmp_path / "m.t7")  # nothing says any more what it was trained on
    words = ["predict", str(tmp_path / "m.t7"), paths[0], "-q"]
    assert main([*words, "--dataset", "cifar10"]) == 1
    assert "mean and deviation of cifar10 are found from its files: name their folder with --data" in (
        capsys.readouterr().err
    )
    assert main([*words, "--dataset", "cifar10", "--data", str(tmp_path)]) == 1
    assert f"are found from its files (--data): {tmp_path}: no cifar10 in it" in capsys.readouterr().err
    assert main([*words, "--dataset", "cifar10", "--data", str(data)]) == 0
    assert main(["predict", str(model), paths[0], "-q"]) == 0
    moved, run = capsys.readouterr().out.split(paths[0])[1:]
    shares = [[line.split()[0] for line in text.splitlines()[1:]] for text in (moved, run)]
    assert shares[0] == shares[1]


def test_the_size_that_a_copied_network_takes_is_named(
    golden: Path, cifar: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 224 pixels it gives ten scores at 49 x 49 places: 24010. So it does packed."""
    _, model, paths = cifar
    shutil.copy(golden / "cache" / "meanstdCache.t7", tmp_path)
    shutil.copy(model.parent / "classes.t7", tmp_path)
    shutil.copy(model, tmp_path / "m.t7")
    XnorModel.from_model(load_model(model), "reference").save(tmp_path / "m.xnor.safetensors")
    for name in ("m.t7", "m.xnor.safetensors"):
        words = ["predict", str(tmp_path / name), paths[0], "-q"]
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "classes.t7: has 10 classes, the network 24010: it takes --crop-size 32, and not 224 (" in error
        assert error.count("\n") == 1
        assert main([*words, "--crop-size", "32", "--image-size", "32"]) == 0
    lua_compat.save(tmp_path / "classes.t7", lua_compat.LuaTable(["a", "b"]))
    assert main([*words, "--crop-size", "32", "--image-size", "32"]) == 1
    assert "has 2 classes, the network 10: it is another network's" in capsys.readouterr().err


def test_the_page_of_a_run_on_cifar(cifar: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(cifar[1].parent), "-q"]) == 0
    page = (cifar[1].parent / "report.html").read_text()
    assert "Not shown: the pictures of cifar10 are not files that could be opened one by one." in page


def test_a_link_to_itself_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "model.t7"
    link.symlink_to(link)
    assert main(["predict", str(link), "a.jpg"]) == 1
    assert (
        capsys.readouterr().err == f"cache_tools predict: {link}: cannot be read: Too many levels of symbolic links\n"
    )
