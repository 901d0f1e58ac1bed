"""Memory that runs out is one line; what is no lack of memory stays as it is."""

import pytest
import torch

from xnornet_port.errors import XnorNetError
from xnornet_port.memory import memory_errors

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1 GiB is free."
)


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (torch.OutOfMemoryError(CUDA), " (the last piece wanted: 2.00 GiB)"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at another place"), ""),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ""),
        (MemoryError(), ""),
    ],
)
def test_every_kind_of_it(error: Exception, size: str) -> None:
    with pytest.raises(XnorNetError) as caught, memory_errors("batches of 8 pictures", "use fewer"):
        raise error
    assert str(caught.value) == f"no memory for batches of 8 pictures{size}; use fewer"


def test_the_hosts_own() -> None:
    """2**46 bytes, half of what a process can address."""
    with pytest.raises(XnorNetError, match=r"wanted: 70368744177664 bytes\); fewer"), memory_errors("it", "fewer"):
        torch.empty(2**46, dtype=torch.uint8)


def test_another_error_stays() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("it", "fewer"):
        raise RuntimeError("the shapes differ")
