"""Every module and criterion real Torch7 was asked about: the same answers, and its fields when written back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.generator import Generator
from lua_compat.values import LuaTable, TorchObject

GOLDEN = Path(__file__).parents[2] / "golden"
MODULES = sorted(path.stem for path in (GOLDEN / "modules").glob("*.t7"))
CRITERIONS = sorted(path.stem for path in (GOLDEN / "criterions").glob("*.t7"))

# float32 sums in another order: 1e-5 relative, and near 0 a millionth of the largest number.
RELATIVE = 1e-5
LOOSER: dict[str, float] = {}


def tensors(value: Any) -> Any:
    """Tables as lists, arrays as tensors of their own."""
    if isinstance(value, LuaTable):
        return [tensors(entry) for entry in value.to_list()]
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for entry in value:
            yield from leaves(entry)
    else:
        yield value


def compare(ours: Any, theirs: Any, tolerance: float, largest: float = 0.0) -> None:
    """Numbers, tensors and nested tables of them; `largest` is the largest number they are computed from."""
    theirs = tensors(theirs)
    if isinstance(theirs, list):
        assert isinstance(ours, list | tuple)
        for a, b in zip(ours, theirs, strict=True):
            compare(a, b, tolerance)
    else:
        expected = torch.as_tensor(theirs, dtype=torch.float64)
        assert ours.shape == expected.shape
        absolute = tolerance / 10 * max(largest, float(expected.abs().max()) if expected.numel() else 0.0)
        torch.testing.assert_close(ours.detach().double(), expected, rtol=tolerance, atol=absolute)


def input_gradients(x: Any) -> Any:
    """As Torch7 gives them: zeros for an input that got none."""
    if isinstance(x, list):
        return [input_gradients(entry) for entry in x]
    return torch.zeros_like(x) if x.grad is None else x.grad


def trainable(value: Any) -> Any:
    """The inputs as leaves that get gradients."""
    if isinstance(value, list):
        return [trainable(entry) for entry in value]
    return value.requires_grad_() if value.is_floating_point() else value


def copies(value: Any) -> Any:
    """Inputs that in-place modules may overwrite."""
    return [copies(entry) for entry in value] if isinstance(value, list) else value.clone()


def check_module(module: nn.Module, case: LuaTable, tolerance: float) -> None:
    module.eval()
    with torch.no_grad():
        compare(module(tensors(case["input"])), case["evaluateOutput"], tolerance)
    module.train()
    t7nn.set_generator(module, Generator(7))
    x = trainable(tensors(case["input"]))
    output = module(copies(x))
    compare(output, case["trainingOutput"], tolerance)
    if not any(leaf.requires_grad for leaf in leaves(output)):
        assert not [g for g in leaves(tensors(case["gradInput"])) if g.any()]  # a constant
        return
    torch.autograd.backward(list(leaves(output)), list(leaves(tensors(case["gradOutput"]))))
    if case["hasBackward"]:
        compare(input_gradients(x), case["gradInput"], tolerance)
    if "gradParameters" in case:
        compare_parameters(module, case["gradParameters"].to_list(), tolerance)


def compare_parameters(module: nn.Module, expected: list[np.ndarray], tolerance: float) -> None:
    ours = [parameter for _, parameter in module.named_parameters(remove_duplicate=False)]
    if isinstance(module, t7nn.containers.MapTable):
        ours *= len(expected) // len(ours)  # Torch7 lists the parameters of its clones, which are shared, once for each
    sizes = [float(np.abs(gradient).max()) for gradient in expected]
    largest = max(sizes, default=0.0)  # the bias before a batch norm has a gradient of rounding only
    for parameter, gradient in zip(ours, expected, strict=True):
        if parameter.shape != gradient.shape:  # depth-wise convolutions keep theirs transposed
            gradient = regrouped(gradient, parameter.shape)
        compare(parameter.grad, gradient, tolerance, largest)


def regrouped(gradient: np.ndarray, shape: torch.Size) -> np.ndarray:
    if len(shape) == 4 and shape[1] == 1:
        return gradient.swapaxes(0, 1).reshape(shape)
    return gradient.T.reshape(shape) if gradient.ndim == 2 and len(shape) == 1 else gradient.reshape(shape)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_answers_as_torch7(golden: Path, name: str) -> None:
    """Evaluation, training (masks from a generator with seed 7), gradients of input and parameters."""
    case = lua_compat.load(golden / "modules" / f"{name}.t7")
    check_module(t7nn.to_torch(case["module"]), case, LOOSER.get(name, RELATIVE))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_written_back_answers_as_torch7(golden: Path, name: str) -> None:
    case = lua_compat.load(golden / "modules" / f"{name}.t7")
    written = t7nn.from_torch(t7nn.to_torch(case["module"]))
    again = lua_compat.loads(lua_compat.dumps(written))
    check_module(t7nn.to_torch(again), case, LOOSER.get(name, RELATIVE))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_written_back_has_torch7s_fields(golden: Path, name: str) -> None:
    source = lua_compat.load(golden / "modules" / f"{name}.t7")["module"]
    same_fields(t7nn.from_torch(t7nn.to_torch(source)), source, name)


@pytest.mark.parametrize("name", CRITERIONS)
def test_a_criterion_written_back_has_torch7s_fields(golden: Path, name: str) -> None:
    source = lua_compat.load(golden / "criterions" / f"{name}.t7")["criterion"]
    same_fields(t7nn.from_torch(t7nn.to_torch(source)), source, name)


# Fields that Torch7 makes or resizes when it runs: their content, and for the last two even their size, says nothing.
STATE = {"output", "gradInput", "coef", "norm", "scale", "_norm", "_scale", "batchsize", "inShape", "outShape"}
GRAPH = {"fg", "bg", "forwardnodes", "backwardnodes", "innode", "outnode"}  # test_graph.py


def same_fields(ours: Any, theirs: Any, place: str) -> None:
    assert lua_type(ours) is lua_type(theirs), place
    if isinstance(theirs, TorchObject):
        assert ours.typename == theirs.typename, place
        for name in set(theirs) - GRAPH:
            assert name in ours, f"{place}.{name} is not written"
            is_state = name in STATE or (str(name).startswith("grad") and name != "gradInputEl")
            compare_field(ours[name], theirs[name], f"{place}.{name}", is_state)
    elif isinstance(theirs, LuaTable):
        assert len(ours) == len(theirs), place
        for key, value in theirs.items():
            same_fields(ours[key], value, f"{place}[{key}]")
    elif isinstance(theirs, np.ndarray):
        assert ours.typename == theirs.typename, place
        np.testing.assert_array_equal(ours, theirs, err_msg=place)
    else:
        assert ours == theirs, place


def lua_type(value: Any) -> type:
    return float if type(value) is int else type(value)  # Lua has one type of number


def compare_field(ours: Any, theirs: Any, place: str, is_state: bool) -> None:
    if not is_state:
        same_fields(ours, theirs, place)
    else:
        assert lua_type(ours) is lua_type(theirs), place
        if isinstance(theirs, LuaTable):
            assert len(ours) == len(theirs), place  # Torch7 writes into the tensors of a gradInput that it made itself
        if place.rpartition(".")[2] not in ("output", "gradInput") and isinstance(theirs, np.ndarray) and theirs.size:
            assert ours.shape == theirs.shape or ours.size == theirs.size, place


@pytest.mark.parametrize("name", CRITERIONS)
@pytest.mark.parametrize("is_written_back", [False, True])
def test_a_criterion_answers_as_torch7(golden: Path, name: str, is_written_back: bool) -> None:
    case = lua_compat.load(golden / "criterions" / f"{name}.t7")
    criterion = t7nn.to_torch(case["criterion"])
    if is_written_back:
        criterion = t7nn.to_torch(lua_compat.loads(lua_compat.dumps(t7nn.from_torch(criterion))))
    x = trainable(tensors(case["input"]))
    loss = criterion(x, tensors(case["target"]))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE)
    compare(input_gradients(x), case["gradInput"], RELATIVE)
