"""predict: answers of real Torch7's -testOnly, the same bits as testing, names, unreadable files, the sheet."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lua_compat
from cache_tools.__main__ import main
from cache_tools.class_names import read_words
from cache_tools.contact_sheet import Tile, write_sheet
from cache_tools.predict import find_pictures
from cache_tools.prediction import network_inputs
from lua_compat import Generator
from xnornet_port.batches import BatchRequest, Loader
from xnornet_port.dataset_cache import read_dataset, read_statistics
from xnornet_port.errors import XnorNetError
from xnornet_port.model import load_model
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing
from xnornet_port.xnor_inference import XnorModel


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


def test_the_sheet(golden: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert predict(golden, *pictures[:5], "--sheet", sheet) == 0
    assert capsys.readouterr().out.endswith(f"{sheet}\n")
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 212 + 12, 2 * (200 + 3 * 17 + 24) + 12)  # five pictures: three columns, two rows
        assert len(picture.getcolors(1 << 20) or []) > 1000
    assert predict(golden, pictures[0], "--sheet", tmp_path / "sheet.jpg") == 1
    assert "should end in .png" in capsys.readouterr().err


def test_a_tile_with_long_and_odd_text(tmp_path: Path) -> None:
    write_sheet(tmp_path / "x.png", [Tile(str(tmp_path / "absent"), ["x" * 500, "日本語 <&>"])])
    with pytest.raises(XnorNetError, match="1 to 600 pictures, these are 0"):
        write_sheet(tmp_path / "x.png", [])


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
    assert predict(golden, pictures[0], "--top", 0) == 1


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
