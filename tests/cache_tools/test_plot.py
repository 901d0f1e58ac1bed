"""The picture of a run's curves; what is in it is read back from the figure."""

import shutil
from pathlib import Path

import pytest

from cache_tools.__main__ import main
from cache_tools.plot import PANELS, draw, read_curves


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


def test_two_runs_in_one_picture(golden: Path) -> None:
    folders = [golden / "runs" / name for name in ("bwn_sgd", "xnor_adam")]
    figure = draw(folders, [read_curves(folder) for folder in folders])
    assert len(figure.axes[0].lines) == 4


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
