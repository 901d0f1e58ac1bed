"""A file is replaced as a whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from lua_compat.atomic_file import replace_file, wanted_name


def test_the_new_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replace_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replace_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    """Writing to a file that is open names none."""
    with pytest.raises(OSError, match="No space") as caught, replace_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("name", ["n" * 250, "ü" * 125, "a" + "網" * 84])
def test_a_long_name(tmp_path: Path, name: str) -> None:
    """Of up to 255 bytes, which letters take several of."""
    path = tmp_path / name
    with replace_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "told"), [("model_1.t7", "model_1.t7"), ("two\nlines", "two\nlines"), ("a\udcffb.t7", "ab.t7")]
)
def test_the_name_that_is_written_under_tells_the_wanted_one(tmp_path: Path, name: str, told: str) -> None:
    with replace_file(tmp_path / name):
        (written,) = os.listdir(tmp_path)
    assert written != name
    assert wanted_name(written) == told
    assert wanted_name(name) is None


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, message in (
        (pipe, "a device or pipe, not a file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "a\0b", "embedded null"),
    ):
        with pytest.raises(OSError, match=message) as caught, replace_file(path):
            pass
        assert caught.value.filename == (None if "\0" in str(path) else str(path))
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]
