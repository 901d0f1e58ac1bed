"""-compile: the same network through torch.compile."""

from pathlib import Path

import pytest
import torch

from lua_compat import Generator
from lua_compat.nn import ClassNLLCriterion, set_generator
from xnornet_port.compilation import compiled
from xnornet_port.errors import XnorNetError
from xnornet_port.model import load_model


@pytest.fixture(autouse=True)
def forgotten_code() -> None:
    """What was compiled, or found impossible to, in another test."""
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch.compile itself
def test_the_same_bits_where_the_backend_keeps_them(golden: Path) -> None:
    """aot_eager traces forward and backward and runs them with the same kernels; dropout draws as before."""
    pictures, labels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 2])
    found = []
    for is_compiled in (False, True):
        network = load_model(golden / "models" / "tiny_bwn.t7").train()
        set_generator(network, Generator(1))
        if is_compiled:
            with compiled(network, "aot_eager"):
                assert network._compiled_call_impl is not None
                ClassNLLCriterion()(network(pictures).view(2, -1), labels).backward()
            assert network._compiled_call_impl is None
        else:
            ClassNLLCriterion()(network(pictures).view(2, -1), labels).backward()
        found.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_cannot_be_compiled_is_one_line() -> None:
    def broken_backend(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler\nhere")

    network = torch.nn.Linear(2, 2)
    with (
        pytest.raises(
            XnorNetError, match=r"^-compile: torch\.compile cannot do it here \(.*no compiler.*leave"
        ) as caught,
        compiled(network, broken_backend),  # type: ignore[arg-type]
    ):
        network(torch.zeros(1, 2))
    assert "\n" not in str(caught.value)
