"""The list of unreadable pictures: each once, on the console only the first."""

import os
from pathlib import Path

import pytest

from xnornet_port.batches import Fault
from xnornet_port.unreadable import SHOWN, UnreadableList


def test_each_is_named_once_and_counted() -> None:
    said: list[str] = []
    pictures = UnreadableList(said.append)
    for path in ("b.jpg", "a.jpg", "b.jpg"):
        pictures.add(Fault(path, f"{path}: damaged"))
    pictures.summarise()
    assert pictures.counts == {"b.jpg": 2, "a.jpg": 1}
    assert said == [
        "ERROR: image can not be loaded!!! b.jpg: damaged; the mean colour stands in for it",
        "ERROR: image can not be loaded!!! a.jpg: damaged; the mean colour stands in for it",
    ]


def test_hundreds_do_not_flood_the_console(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "unreadable.txt"
    pictures = UnreadableList(said.append, file)
    for _ in range(3):  # passes
        for number in range(300):
            pictures.add(Fault(f"{number}.jpg", f"{number}.jpg: the file is empty"))
        pictures.summarise()
    assert len(said) == SHOWN + 1
    assert said[-1] == f"ERROR: 300 images can not be loaded so far, wanted 300 times; all are listed in {file}"
    assert file.read_text() == "".join(f"{number}.jpg\tthe file is empty\n" for number in range(300))


def test_odd_names_take_one_line_each_and_a_resumed_run_lists_only_new_ones(tmp_path: Path) -> None:
    file = tmp_path / "unreadable.txt"
    odd = [b"new\nline.jpg", b"tab\t.jpg", b"\xff\xfe.jpg", "ü ß.jpg".encode(), b"back\\n.jpg"]
    faults = [
        Fault(path, f"{path}: reason\nof two lines")
        for path in (name.decode("utf-8", "surrogateescape") for name in odd)
    ]
    said: list[str] = []
    for again in range(2):
        pictures = UnreadableList(said.append, file)
        for fault in faults[: 4 + again]:
            pictures.add(fault)
    assert file.read_bytes().splitlines() == [
        b"new\\nline.jpg\treason\\nof two lines",
        b"tab\\t.jpg\treason\\nof two lines",
        b"\xff\xfe.jpg\treason\\nof two lines",
        "ü ß.jpg\treason\\nof two lines".encode(),
        b"back\\\\n.jpg\treason\\nof two lines",
    ]
    assert all("\n" not in line and "\udcff" not in line for line in said)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")  # of Python 3.12
def test_several_processes_list_a_picture_once(tmp_path: Path) -> None:
    """Eight processes find the same fifty pictures at the same time, each of them in another order."""
    file = tmp_path / "unreadable.txt"
    children = []
    for rank in range(8):
        child = os.fork()
        if child == 0:
            try:
                pictures = UnreadableList(lambda line: None, file)
                for number in range(50):
                    path = f"{(number * 7 + rank) % 50}.jpg"
                    pictures.add(Fault(path, f"{path}: damaged"))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert sorted(file.read_text().splitlines()) == sorted(f"{number}.jpg\tdamaged" for number in range(50))


def test_a_list_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "gone" / "unreadable.txt"
    pictures = UnreadableList(said.append, file)
    for number in range(20):
        pictures.add(Fault(f"{number}.jpg", f"{number}.jpg: damaged"))
    assert [line for line in said if "cannot be written" in line] == [
        f"{file}: cannot be written (No such file or directory); going on without this list"
    ]
    assert len(pictures.counts) == 20
