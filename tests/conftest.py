"""Where the tests find real Torch7's answers, and what makes them the same every time.

`tests/golden` is part of the project and always there. The larger set beside a checkout (`../shared`, or the folder
named by XNORNET_SHARED) is used where it exists; tests on it are skipped elsewhere.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

# The same examples in every run, however slow the machine. Others: --hypothesis-profile other --hypothesis-seed 5
settings.register_profile("other", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("other"), derandomize=True)
settings.load_profile("same")


# What the tests' own terminal is decides nothing: its width, and whether it, or the user, likes colours.
os.environ.update(COLUMNS="80", LINES="24", TERM="xterm")
for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)

# A job in the background of a shell script starts with Ctrl-C ignored, and what it starts as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def torch_seed() -> None:
    """Random numbers that a test takes from PyTorch do not depend on the tests before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The project's own copy of real Torch7's answers."""
    return TESTS / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The full reference data (golden/, t7_samples/); the test is skipped where it is absent."""
    folder = Path(os.environ.get("XNORNET_SHARED", TESTS.parent.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference data at {folder} (set XNORNET_SHARED)")
    return folder
