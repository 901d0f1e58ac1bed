"""The page of a run: what is in it, that it is whole, needs nothing else, and lets nothing of a file run."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import lua_compat
from cache_tools.__main__ import main
from cache_tools.report_gallery import Gallery, look_at_pictures, worst_confusions
from cache_tools.report_sections import duration, gallery_section
from lua_compat.nn import View, from_torch
from xnornet_port.model import load_model
from xnornet_port.progress import no_progress

VOID = {"meta", "img", "br", "wbr", "line", "path", "circle", "rect"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects them and the text."""

    def __init__(self, markup: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def read_page(path: Path) -> Page:
    """The page, with what makes it self-contained checked."""
    markup = path.read_text(encoding="utf-8")
    page = Page(markup)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "a")
        assert not [name for name in attributes if name.startswith("on")]
        assert all((value or "").startswith("data:image/") for name, value in attributes.items() if name == "src")
    assert not re.search(r"url\(|@import|https?://", markup)
    assert "default-src 'none'" in markup
    assert "prefers-color-scheme: dark" in markup
    return page


@pytest.fixture
def run_folder(golden: Path, tmp_path: Path) -> Path:
    """cache/NAME/DATE as main.py leaves it after two epochs: real Torch7's logs and networks after two batches."""
    cache = Path(shutil.copytree(golden / "cache", tmp_path / "cache"))
    folder = cache / "alexnetxnor,batchSize=8,optimType=adam" / "SatNov21"
    folder.mkdir(parents=True)
    for name in ("train.log", "test.log", "classes.t7"):
        shutil.copy(golden / "runs" / "xnor_adam" / name, folder)
    for number in (1, 2):
        network = load_model(golden / "runs" / "xnor_adam" / f"after_batch_{number}.t7")
        lua_compat.save(folder / f"model_{number + 28}.t7", from_torch(network))
    options = {"data": str(golden / "imagenet"), "batchSize": 8, "binaryWeight": True, "optimType": "adam",
               "netType": "alexnetxnor", "epochNumber": 29, "manualSeed": 2, "LR": 0}  # fmt: skip
    machine = {"processor": "Some CPU", "cores": 2}
    record = {"options": options, "command": ["main.py", "-data", "a b"], "device": "cpu", "machine": machine,
              "versions": {"torch": "2.13"}, "started": "2026-11-21T20:06:01+00:00"}  # fmt: skip
    (folder / "options.json").write_text(json.dumps(record))
    return folder


def test_the_page_of_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_folder)]) == 0
    assert capsys.readouterr().out == f"{run_folder}/report.html\n"
    page = read_page(run_folder / "report.html")
    for words in (
        "alexnetxnor,batchSize=8,optimType=adam",
        "33.33 %best test top-1, epoch 30",  # test.log: 12.5 and 33.333
        "1.635last test loss",
        "Network of epoch 30 on the test pictures (all 30)",
        "layer 5.3",
        "signs that an epoch changed",
        "learning rate",
        "confusions",
        "Some CPU",
        "main.py -data 'a b'",
        "seed2",
    ):
        assert words in page.text, words
    assert sum(tag == "figure" for tag, _ in page.tags) >= 12
    assert (run_folder / "report.html").stat().st_size < 1_000_000


def test_an_original_run_has_logs_only(golden: Path, tmp_path: Path) -> None:
    """Real Torch7's folder: no record, no model_N.t7."""
    output = tmp_path / "page.html"
    assert main(["report", str(golden / "runs" / "bwn_sgd"), "--output", str(output), "--quiet"]) == 0
    page = read_page(output)
    assert "no model_N.t7 is in the folder" in page.text
    assert "The run has no options.json" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 3


def test_the_name_of_an_originals_folder_tells_its_options(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alexnet,batchSize=8,LR=0.5,optimType=sgd" / "date"
    folder.mkdir(parents=True)
    shutil.copy(golden / "runs" / "bwn_sgd" / "train.log", folder)
    assert main(["report", str(folder), "--quiet"]) == 0
    page = read_page(folder / "report.html")
    assert "LR0.5" in page.text
    assert "learning rate" in page.text


def test_nothing_of_a_file_becomes_markup(run_folder: Path, tmp_path: Path) -> None:
    """Class names, options, the folder and the command are somebody else's text."""
    bad = "<img src=x onerror=alert(1)>&amp;\"'\n</style><script>alert(2)</script>"
    record = json.loads((run_folder / "options.json").read_text())
    record["options"] |= {"netType": bad, bad: bad}
    record |= {"command": [bad], "machine": {bad: bad}, "versions": {bad: bad}, "device": bad}
    (run_folder / "options.json").write_text(json.dumps(record))
    moved = run_folder.parent.parent / '<script>"x"' / "<b>"
    moved.parent.mkdir()
    run_folder.rename(moved)
    names = tmp_path / "names.txt"
    names.write_text("".join(f'n{n:08d} <script>alert({n})</script> & "x"\n' for n in (1440764, 2119789, 3000684)))
    assert main(["report", str(moved), "--names", str(names), "--quiet"]) == 0
    page = read_page(moved / "report.html")
    assert '<script>alert(2119789)</script> & "x"' in page.text
    assert "onerror=alert(1)" in page.text
    assert "\\n</style>" in page.text


def test_what_is_missing_is_told(run_folder: Path) -> None:
    record = json.loads((run_folder / "options.json").read_text())
    record["options"]["data"] = "/absent"
    (run_folder / "options.json").write_text(json.dumps(record))
    (run_folder / "model_29.t7").unlink()
    assert main(["report", str(run_folder), "--quiet"]) == 0
    text = read_page(run_folder / "report.html").text
    assert "the test pictures are not at hand (/absent); name their folder with --data" in text
    assert "take two saved networks; there is one" in text
    assert main(["report", str(run_folder), "--quiet", "--no-models"]) == 0
    assert "they were left out (--no-models)" in read_page(run_folder / "report.html").text


@pytest.mark.parametrize("n_classes", [3, 7])
def test_pictures_of_another_runs_classes_are_not_shown(n_classes: int, golden: Path, run_folder: Path) -> None:
    """The caches are of 5 classes."""
    network = nn.Sequential(nn.Conv2d(3, n_classes, 224), View((n_classes,)))
    lua_compat.save(run_folder / "model_31.t7", from_torch(network))
    assert main(["report", str(run_folder), "--data", str(golden / "imagenet"), "-q"]) == 0
    text = read_page(run_folder / "report.html").text
    assert f"Not shown: the network knows {n_classes} classes, the pictures are of 5: another run's." in text


def test_the_surest_mistakes_come_first(golden: Path, run_folder: Path) -> None:
    network = load_model(golden / "models" / "tiny_xnor.t7")
    cache = run_folder.parents[1]
    found = look_at_pictures(network, {"binaryWeight": True}, golden / "imagenet", cache, 30, no_progress)
    shares = [one.guess_probability for one in found.wrong]
    assert len(shares) > 2
    assert shares == sorted(shares, reverse=True)
    assert all(one.guess != one.label for one in found.wrong)


def test_a_crop_that_the_network_does_not_take(run_folder: Path) -> None:
    """Its first filter has 11 x 11 elements: the page is written and says why it has no pictures."""
    path = run_folder / "options.json"
    record = json.loads(path.read_text())
    record["options"]["cropSize"] = 1
    path.write_text(json.dumps(record))
    assert main(["report", str(run_folder), "--quiet"]) == 0
    assert "the network takes no picture of 1 pixels" in read_page(run_folder / "report.html").text


def test_pictures_that_are_asked_for(run_folder: Path) -> None:
    assert main(["report", str(run_folder), "--quiet", "--pictures", "10"]) == 0
    assert "test pictures (10 of 30, evenly spread)" in read_page(run_folder / "report.html").text
    assert main(["report", str(run_folder), "--quiet", "--pictures", "0"]) == 0
    assert "no pictures were asked for" in read_page(run_folder / "report.html").text


def test_mistakes(
    tmp_path: Path, run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "neither train.log nor test.log is there" in capsys.readouterr().err
    for words, problem in (
        (["--output", str(tmp_path / "no" / "page.html")], f"the folder {tmp_path}/no does not exist"),
        (["--names", str(tmp_path / "no.txt")], f"{tmp_path}/no.txt: no such file (--names)"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("cache_tools.report.load_model", None)  # told before the networks are read
            assert main(["report", str(run_folder), *words]) == 1
        assert problem in capsys.readouterr().err
    (run_folder / "options.json").write_text("{")
    assert main(["report", str(run_folder)]) == 1
    assert "not the record of a run of main.py" in capsys.readouterr().err


def gallery(confusion: np.ndarray) -> Gallery:
    n = len(confusion)
    names = tuple(f"class_{number}" for number in range(n))
    return Gallery(names, 100, int(confusion.sum()), 0, [], [], int(np.trace(confusion)), confusion)


def test_the_most_frequent_mistakes() -> None:
    confusion = np.array([[5, 2, 0], [0, 4, 0], [7, 1, 3]])
    assert worst_confusions(gallery(confusion)) == [(7, 3, 1), (2, 1, 2), (1, 3, 2)]


def test_a_hundred_classes_are_a_picture_and_more_are_none() -> None:
    from cache_tools.class_names import ClassNames

    many = gallery(np.eye(100, dtype=np.int64))
    assert "class=confusion" in gallery_section(many, 1, ClassNames(many.classes, {}), "")
    more = Gallery(tuple(map(str, range(101))), 1, 1, 0, [], [], 1, None)
    assert "101 classes are more than 100" in gallery_section(more, 1, ClassNames(more.classes, {}), "")


def test_how_long_a_run_took(run_folder: Path) -> None:
    record = {"started": "2026-11-21T20:00:00+00:00"}
    start = 1795291200  # the same in seconds since 1970: 20778 days and 20 hours
    for seconds, text in ((60, "60 s"), (1800, "30 min"), (9000, "2.5 h")):
        for name in ("train.log", "test.log"):
            os.utime(run_folder / name, (start + seconds, start + seconds))
        assert duration(run_folder, record) == text
    assert duration(run_folder, record | {"resumed": [{}]}) is None
    assert duration(run_folder, {}) is None
    assert duration(run_folder, {"started": "yesterday"}) is None
