"""Errors in words: the file by the name that was asked for, the system's reason, no number of it."""

import errno

import pytest

from xnornet_port.errors import file_problem, one_line, reason_of

DENIED = "Permission denied"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, DENIED, "run/options.json"), f"run/options.json: {DENIED}"),
        (PermissionError(errno.EACCES, DENIED, b"run/\xff"), f"run/\udcff: {DENIED}"),
        (PermissionError(errno.EACCES, DENIED, "run/.options.json.0123456789ab.tmp"), f"run/options.json: {DENIED}"),
        (PermissionError(errno.EACCES, DENIED, "/"), f"/: {DENIED}"),
        (OSError(errno.EBADF, "Bad file descriptor", 3), "Bad file descriptor"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (OSError("only words"), "only words"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_system_says_of_a_file(error: OSError, text: str) -> None:
    assert file_problem(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, DENIED, "run/options.json"), DENIED),
        (MemoryError(), "MemoryError"),
        (RuntimeError("\nshapes differ\n  at layer 3"), "shapes differ"),
        (RuntimeError("   "), "RuntimeError"),
    ],
)
def test_a_reason_is_one_line_and_never_empty(error: Exception, text: str) -> None:
    assert reason_of(error) == text


def test_odd_names_take_one_line() -> None:
    assert one_line("a\nb\udcffc ü") == "a\\nb\\udcffc ü"
