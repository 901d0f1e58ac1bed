"""The picture of a run's curves; what is in it is read back from the figure."""

import errno
import math
import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from cache_tools.__main__ import main
from cache_tools.plot import PANELS, draw
from cache_tools.run_folder import read_curves
from xnornet_port.errors import XnorNetError


def test_a_picture_of_a_recorded_run(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "curves.png"
    assert main(["plot", str(golden / "runs" / "bwn_sgd"), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(output)


def test_the_lines_are_the_logs(golden: Path) -> None:
    folder = golden / "runs" / "xnor_adam"  # test.log: top-1 12.5 and 33.333, train.log: 33.333 and 22.917
    figure = draw([folder], [read_curves(folder)])
    test_line, train_line = figure.axes[1].lines
    assert list(test_line.get_xdata()) == [1, 2]
    assert list(test_line.get_ydata()) == [12.5, 33.333]
    assert list(train_line.get_ydata()) == [33.333, 22.917]
    assert [axes.get_title() for axes in figure.axes] == [panel.title for panel in PANELS]


def test_a_run_of_one_epoch(golden: Path, tmp_path: Path) -> None:
    """Dots alone must tell test from training, the rate is a dot, and there is no epoch 0.96."""
    for name in ("train.log", "test.log"):
        lines = (golden / "runs" / "xnor_adam" / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[:2]))
    (tmp_path / "options.json").write_text('{"options": {"epochNumber": 1, "LR": 0.02}}')
    figure = draw([tmp_path], [read_curves(tmp_path)])
    test_line, train_line = figure.axes[0].lines
    assert len(test_line.get_xdata()) == len(train_line.get_xdata()) == 1
    assert test_line.get_marker() != train_line.get_marker()
    (rate,) = figure.axes[3].lines
    assert (list(rate.get_xdata()), list(rate.get_ydata()), rate.get_marker()) == ([1], [0.02], "o")
    figure.savefig(tmp_path / "curves.png", dpi=60)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_a_picture_of_two_runs_lies_in_no_ones_folder(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *(str(golden / "runs" / name) for name in ("bwn_sgd", "xnor_adam")), "--quiet"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_two_runs_in_one_picture(golden: Path) -> None:
    folders = [golden / "runs" / name for name in ("bwn_sgd", "xnor_adam")]
    figure = draw(folders, [read_curves(folder) for folder in folders])
    assert len(figure.axes[0].lines) == 4


@pytest.mark.parametrize("name", ["a$_$b", "_first", "$x", os.fsdecode(b"\xff"), "a\nb"])
def test_names_of_folders_are_no_formulas(name: str, golden: Path, tmp_path: Path) -> None:
    """And a legend leaves out what begins with an underscore."""
    for run in ("date", "date2"):
        shutil.copytree(golden / "runs" / "xnor_adam", tmp_path / name / run, ignore=shutil.ignore_patterns("*.t7"))
    words = ["plot", str(tmp_path / name / "date"), str(tmp_path / name / "date2")]
    assert main([*words, "--output", str(tmp_path / "x.png"), "-q"]) == 0
    figure = draw([tmp_path / name / run for run in ("date", "date2")], [read_curves(tmp_path / name / "date")] * 2)
    assert len(figure.legends[0].get_texts()) == 4


def test_epochs_are_counted_as_the_run_counted_them(golden: Path, tmp_path: Path) -> None:
    shutil.copy(golden / "runs" / "xnor_adam" / "test.log", tmp_path)
    (tmp_path / "options.json").write_text('{"options": {"epochNumber": 27}}')
    assert list(draw([tmp_path], [read_curves(tmp_path)]).axes[0].lines[0].get_xdata()) == [27, 28]


def test_a_name_that_says_no_format_is_refused(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(golden / "runs" / "bwn_sgd"), "--output", str(tmp_path / "x.txt")]) == 1
    assert "x.txt: the name should end in one of" in capsys.readouterr().err


def test_a_folder_without_logs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(tmp_path)]) == 1
    assert "neither train.log nor test.log is there" in capsys.readouterr().err


def test_the_steps_of_the_learning_rate(golden: Path, tmp_path: Path) -> None:
    """The recipe's 5e-3 until epoch 29 and 1e-3 from 30 on; adam takes a tenth. As the original names its folders."""
    folder = tmp_path / "alexnetxnor,batchSize=8,epochNumber=29,optimType=adam" / "SatNov21"
    shutil.copytree(golden / "runs" / "xnor_adam", folder, ignore=shutil.ignore_patterns("*.t7"))
    figure = draw([folder], [read_curves(folder)])
    (line,) = figure.axes[3].lines
    assert figure.axes[3].get_title() == "learning rate"
    assert list(line.get_xdata()) == [29, 30]
    assert list(line.get_ydata()) == pytest.approx([5e-4, 1e-4])
    assert line.get_drawstyle() == "steps-post"
    assert list(figure.axes[0].lines[0].get_xdata()) == [29, 30]


def test_a_rate_that_was_typed_stays(golden: Path, tmp_path: Path) -> None:
    shutil.copy(golden / "runs" / "xnor_adam" / "train.log", tmp_path)
    (tmp_path / "options.json").write_text('{"options": {"epochNumber": 1, "LR": 0.02, "optimType": "adam"}}')
    figure = draw([tmp_path], [read_curves(tmp_path)])
    assert list(figure.axes[3].lines[0].get_ydata()) == [0.02, 0.02]
    (tmp_path / "options.json").write_text('{"options": {"LR": "fast"}}')
    with pytest.raises(XnorNetError, match="the run's LR is 'fast', expected a number"):
        draw([tmp_path], [read_curves(tmp_path)])


def test_without_matplotlib_a_line_says_what_to_install(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", str(golden / "runs" / "bwn_sgd"), "--output", "x.png"]) == 1
    assert capsys.readouterr().err == "cache_tools plot: plot needs matplotlib: pip install matplotlib==3.11.2\n"


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(figure: object, file: BinaryIO, **settings: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    output = tmp_path / "curves.png"
    output.write_bytes(b"old")
    assert main(["plot", str(golden / "runs" / "bwn_sgd"), "--output", str(output)]) == 1
    assert capsys.readouterr().err == f"cache_tools plot: {output}: No space left on device\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"curves.png": b"old"}


def test_losses_beyond_all_axes_are_left_out(golden: Path, tmp_path: Path) -> None:
    """Matplotlib warns of 1e308, which overflows in its scales; warnings are errors here."""
    lines = (golden / "runs" / "xnor_adam" / "train.log").read_text().splitlines(keepends=True)
    (tmp_path / "train.log").write_text(lines[0] + "1e308\t" * 3 + "\n" + lines[1])
    assert main(["plot", str(tmp_path), "--quiet"]) == 0
    _, train_line = draw([tmp_path], [read_curves(tmp_path)]).axes[1].lines
    assert [math.isnan(value) for value in train_line.get_ydata()] == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('"epochNumber": 0', "epochNumber is 0, expected 1 or more"),
        ('"epochNumber": true', "epochNumber is True, expected a whole number"),
        ('"LR": -1', "LR is -1, expected a number from 0 on"),
        ('"LR": NaN', "LR is nan, expected a number from 0 on"),
        ('"LR": 1' + "0" * 400, "expected a number from 0 on"),
        ('"LR": ' + "[" * 100_000, "not the record of a run of main.py"),
    ],
)
@pytest.mark.parametrize("command", ["plot", "report"])
def test_records_with_odd_numbers(
    command: str, options: str, message: str, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(golden / "runs" / "xnor_adam" / "train.log", tmp_path)
    (tmp_path / "options.json").write_text(f'{{"options": {{{options}}}}}')
    assert main([command, str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(tmp_path) in line or "epochNumber is True" in line
