"""The backends that every test of an operation runs on."""

import pytest

from xnornet_port.kernels import Backend, load_backend


@pytest.fixture(scope="session", params=["reference"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return load_backend(request.param)
