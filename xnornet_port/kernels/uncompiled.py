"""What torch.compile leaves out of its graphs: the kernels take tensors by addresses, which a graph does not have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["uncompiled"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def uncompiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The same function, at which a graph of torch.compile breaks and goes on behind it.

    Outside of torch.compile it costs a third of what torch.compiler.disable does, for that is part of quick calls.
    """
    outside: Callable[Arguments, Result] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if torch.compiler.is_dynamo_compiling():
            return outside(*arguments, **named)
        return function(*arguments, **named)

    return call
