"""Where the tests find real Torch7's answers.

`tests/golden` is part of the project and always there. The larger set beside a checkout (`../shared`, or the folder
named by XNORNET_SHARED) is used where it exists; tests on it are skipped elsewhere.
"""

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


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
