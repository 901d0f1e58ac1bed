"""optim.Logger against the logs that the original wrote (golden/runs)."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lua_compat.errors import LoggerError
from lua_compat.logger import Logger, read_log

RUNS = ["bwn_sgd", "bwn_adam", "bwn_regime", "bwn_testonly", "xnor_testonly", "full_alexnetxnor"]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("log", ["train.log", "test.log"])
def test_golden_logs_are_read_and_written_byte_for_byte(golden: Path, tmp_path: Path, run: str, log: str) -> None:
    original = golden / "runs" / run / log
    columns = read_log(original)
    logger = Logger(tmp_path / log)
    for row in zip(*columns.values(), strict=True):
        logger.add(dict(zip(columns, row, strict=True)))
    assert (tmp_path / log).read_bytes() == original.read_bytes()


def test_values_of_a_golden_log(golden: Path) -> None:
    """The figures on the console of the same run: top-1 25.00 and 33.33, loss 1.62 and 1.59."""
    assert read_log(golden / "runs" / "bwn_sgd" / "test.log") == {
        "% top1 accuracy (test set) ": [25.0, 33.333],
        "% top5 accuracy (test set) ": [100.0, 100.0],
        "avg loss (test set)": [1.6161, 1.5891],
    }


def test_lines_reach_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "train.log"
    logger = Logger(path)
    assert path.read_bytes() == b""  # as in the runs with -testOnly
    logger.add({"loss": 1.6271, "top1": 25})
    logger.add({"top1": -0.5, "loss": math.nan})  # by name: the order of the first line counts
    assert path.read_bytes() == b"loss\ttop1\t\n 1.6271e+00\t 2.5000e+01\t\n        nan\t-5.0000e-01\t\n"


def test_a_log_that_was_deleted_meanwhile_names_its_columns_again(tmp_path: Path) -> None:
    """What is written from then on can be read."""
    logger = Logger(tmp_path / "train.log")
    logger.add({"loss": 1.5})
    (tmp_path / "train.log").unlink()
    logger.add({"loss": 1.25})
    logger.add({"loss": 1.0})
    assert read_log(tmp_path / "train.log") == {"loss": [1.25, 1.0]}


def test_names_first_and_text_entries(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger = Logger(path)
    logger.set_names(["epoch", "state"])
    logger.add([1, "good"])
    assert path.read_bytes() == b"epoch\tstate\t\n 1.0000e+00\tgood\t\n"
    with pytest.raises(LoggerError, match=r"log, line 2, column 'state': expected a number, found 'good'"):
        read_log(path)


def test_lists_without_names_are_numbered(tmp_path: Path) -> None:
    """Lua: the keys of the list are its column names."""
    Logger(tmp_path / "log").add([0.5, 2])
    assert (tmp_path / "log").read_bytes() == b"1\t2\t\n 5.0000e-01\t 2.0000e+00\t\n"


def test_a_log_is_started_anew_unless_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Logger(path, ["a", "b"]).add([1, 2])
    Logger(path, append=True).add({"b": 4, "a": 3})
    Logger(path, ["b", "a"], append=True).add([5, 6])  # in the order of the file
    assert read_log(path) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    Logger(path)
    assert read_log(path) == {}
    Logger(path, ["c"], append=True).add([7])
    assert read_log(path) == {"c": [7]}
    Logger(tmp_path / "new", append=True).add({"d": 1})
    assert read_log(tmp_path / "new") == {"d": [1]}


def test_all_kinds_of_numbers_are_read_back(tmp_path: Path) -> None:
    values = [math.inf, -math.inf, 0.0, -1.5e-300, np.float32(12345.678)]
    logger = Logger(tmp_path / "log", ["x"])
    for value in values:
        logger.add([value])
    expected = [math.inf, -math.inf, 0.0, -1.5e-300, 12346.0]  # four digits after the point
    assert read_log(tmp_path / "log") == {"x": expected}


@pytest.mark.parametrize(
    ("names", "entries", "message"),
    [
        ([], {"a": None}, "can only log numbers and strings, found None"),
        ([], {"a": True}, "can only log numbers and strings, found True"),
        (["a"], [1, 2], "2 values for the 1 columns"),
        (["a"], {"b": 1}, "has the columns ['a'], found ['b']"),
        (["a", "b"], {"a": 1}, "has the columns ['a', 'b'], found ['a']"),
        (["a"], ["x\ty"], "'x\\ty' cannot stand in a log"),
        ([], {"x\n": 1}, "cannot stand in a log"),
        (["a"], ["x\ry"], "'x\\ry' cannot stand in a log"),  # it reads back as two lines
        ([], {}, "column names must differ, found []"),
    ],
)
def test_entries_that_cannot_be_logged(tmp_path: Path, names: list[str], entries: Any, message: str) -> None:
    logger = Logger(tmp_path / "log", names)
    with pytest.raises(LoggerError, match=re.escape(message)):
        logger.add(entries)
    assert len(read_log(tmp_path / "log").get("a", [])) == 0


def test_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LoggerError, match="column names must differ"):
        Logger(tmp_path / "log", ["a", "a"])
    logger = Logger(tmp_path / "log", ["a"])
    with pytest.raises(LoggerError, match="named already: a"):
        logger.set_names(["b"])
    with pytest.raises(LoggerError, match=re.escape("has the columns ['a'], found ['b']")):
        Logger(tmp_path / "log", ["b"], append=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\t\n1\t2\t\n3\t\n", "line 3: expected 2 values, found 1"),
        (b"a\tb\t\n1\t2\t3\t\n", "line 2: expected 2 values, found 3"),
        (b"a\tb\t\n1\ttwo\t\n", "line 2, column 'b': expected a number, found 'two'"),
        (b"a\tb\t\n1\t2", "line 2 is unfinished: '1\\t2'; delete that line"),
        (b"a\ta\t\n1\t2\t\n", "line 1: expected different column names"),
        (b"\n1\n", "line 1: expected different column names"),
        (b"a\t\n\n", "line 2, column 'a': expected a number, found ''"),
        (b"\x80\x00T7", "byte 0 is no text"),
    ],
)
def test_what_is_no_log(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(content)
    with pytest.raises(LoggerError, match="some.log.*" + re.escape(message)):
        read_log(path)


def test_an_unfinished_log_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a\t\n 1.00")
    with pytest.raises(LoggerError, match="line 2 is unfinished"):
        Logger(tmp_path / "log", append=True)
    assert (tmp_path / "log").read_bytes() == b"a\t\n 1.00"


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LoggerError, match=r"cannot read the log \(No such file or directory\)"):
        read_log(tmp_path / "missing")
    with pytest.raises(LoggerError, match=r"cannot write the log \(Is a directory\)"):
        Logger(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LoggerError, match="cannot write the log"):
        Logger(tmp_path / "file" / "train.log")


def test_logs_of_windows_editors_are_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a\tb\r\n1\t2\r\n")
    assert read_log(tmp_path / "log") == {"a": [1], "b": [2]}
