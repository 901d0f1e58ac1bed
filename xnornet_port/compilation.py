"""-compile: the network's passes translated by torch.compile, which joins a GPU's small operations into larger ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo import config
from torch._dynamo.exc import TorchDynamoException

from xnornet_port.errors import XnorNetError

__all__ = ["compiled"]

VERSIONS = 256
"""So many versions of one function may be made: a layer's code is compiled for each layer of its kind."""


@contextmanager
def compiled(network: nn.Module, backend: str = "inductor") -> Iterator[None]:
    """While it lasts, calling `network` runs compiled code; its parameters and hooks stay where they are.

    Random numbers that come from lua_compat's generators are drawn as before. Raises XnorNetError, in one line, where
    the network cannot be compiled.
    """
    with config.patch(recompile_limit=VERSIONS, accumulated_recompile_limit=VERSIONS):
        # what network.compile() does, but from a function of ours: frames of torch.nn itself are passed over
        def run(*arguments: object) -> object:
            return network._call_impl(*arguments)  # type: ignore[no-untyped-call]

        network._compiled_call_impl = torch.compile(run, backend=backend, dynamic=False)
        try:
            yield
        except TorchDynamoException as error:
            reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            raise XnorNetError(f"-compile: torch.compile cannot do it here ({reason}); leave -compile out") from error
        finally:
            network._compiled_call_impl = None
