"""Damaged networks: whatever a field holds, the error is ours and names the class."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError
from lua_compat.values import LuaTable, TorchObject

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [p for kind in ("modules", "criterions") for p in sorted((GOLDEN / kind).glob("*.t7"))]
VALUES: list[Any] = [
    None,  # the field is missing
    "text",
    -1,
    LuaTable([1, 2]),
    lua_compat.tensor(np.zeros(0, np.float32)),
    TorchObject("nn.Tanh"),
]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_field_of_another_kind_is_refused_by_name_or_does_not_matter(path: Path) -> None:
    problems: list[str] = []
    case = lua_compat.load(path)
    module = case.get("module", case.get("criterion"))
    for name in set(module) - {"output", "gradInput", "_type"}:
        kept = module[name]
        for value in VALUES:
            if value is None:
                del module[name]
            else:
                module[name] = value
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PyTorch's about tensors without elements
                    t7nn.to_torch(module)
            except ModuleError as error:
                problems.append(str(error))
            module[name] = kept
    assert [problem for problem in problems if "\n" in problem or " at " not in problem] == []
