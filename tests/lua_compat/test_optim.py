"""SGD and Adam against 60 steps of real Torch7 (golden/optim.t7), and their state in a table."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lua_compat
from lua_compat.errors import OptimStateError
from lua_compat.optim import SGD, Adam
from lua_compat.values import LuaTable

CASES = [
    "adam_default",
    "adam_eps_decay",
    "adam_xnor",
    "sgd_decay",
    "sgd_default_dampening",
    "sgd_nesterov",
    "sgd_plain",
    "sgd_xnor",
]


def problem(golden: Path, name: str) -> tuple[LuaTable, torch.nn.Parameter, SGD | Adam]:
    """The recorded problem, its start in two parameters' worth of one vector, and the optimiser with its options."""
    case = lua_compat.load(golden / "optim.t7")[name]
    x = torch.nn.Parameter(torch.from_numpy(np.array(case["start"])))
    optimizer = (SGD if case["method"] == "sgd" else Adam)([x])
    optimizer.from_t7(case["config"])
    return case, x, optimizer


def step(case: LuaTable, x: torch.nn.Parameter, optimizer: SGD | Adam) -> float:
    """One step on 0.5 |A x - b|^2, A diagonal, with the gradient A (A x - b) gradScale; returns the loss before it."""
    a, b = torch.from_numpy(np.array(case["A"])), torch.from_numpy(np.array(case["b"]))
    residual = a * x.detach() - b
    x.grad = a * residual * case["gradScale"]
    optimizer.step()
    return 0.5 * float(residual.square().sum())


@pytest.mark.parametrize("name", CASES)
def test_sixty_steps_of_torch7(golden: Path, name: str) -> None:
    case, x, optimizer = problem(golden, name)
    for recorded in case["trace"].to_list():
        loss = step(case, x, optimizer)
        # the matrix product sums in another order than Torch7's; the update itself adds nothing to that
        np.testing.assert_allclose(x.detach().numpy(), recorded["x"], rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(recorded["loss"], rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_table_has_torch7s_fields_and_values(golden: Path, name: str) -> None:
    case, x, optimizer = problem(golden, name)
    for _ in range(len(case["trace"])):
        step(case, x, optimizer)
    table = optimizer.to_t7()
    defaults = {"learningRateDecay": 0.0, "weightDecay": 0.0, "momentum": 0.0}  # written also where not set
    for key, value in case["state"].items():
        np.testing.assert_allclose(np.asarray(table[key], float), np.asarray(value, float), rtol=1e-4, atol=1e-9)
    assert {key: table[key] for key in table if key not in case["state"]}.items() <= defaults.items()


@pytest.mark.parametrize("name", CASES)
def test_going_on_from_a_table_is_going_on(golden: Path, name: str) -> None:
    case, x, optimizer = problem(golden, name)
    for _ in range(5):
        step(case, x, optimizer)
    copy = torch.nn.Parameter(x.detach().clone())
    resumed = type(optimizer)([copy])
    resumed.from_t7(lua_compat.loads(lua_compat.dumps(optimizer.to_t7())))
    for _ in range(5):
        step(case, x, optimizer)
        step(case, copy, resumed)
    assert torch.equal(copy, x)


@pytest.mark.parametrize("name", CASES)
def test_pieces_and_layout_change_no_bit(golden: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole tensor, pieces of five numbers, and numbers that do not lie side by side."""
    results = []
    for piece, is_strided in ((1 << 18, False), (5, False), (5, True)):
        monkeypatch.setattr(lua_compat.optim, "_PIECE", piece)
        case, x, optimizer = problem(golden, name)
        if is_strided:
            x = torch.nn.Parameter(torch.stack([x.detach(), x.detach()], dim=1)[:, 0])
            optimizer = type(optimizer)([x])
            optimizer.from_t7(case["config"])
        for _ in range(5):
            step(case, x, optimizer)
        results.append(x.detach().clone())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", CASES)
def test_all_parameters_at_once_change_no_bit(golden: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of a GPU, lists of all parameters, against one parameter at a time; one without a gradient."""
    config = lua_compat.load(golden / "optim.t7")[name]["config"]
    method = SGD if name.startswith("sgd") else Adam
    results, sizes = [], []
    for at_once in (False, True):
        if at_once:

            def together(rows: Iterable[tuple[torch.Tensor, ...]]) -> list[list[list[torch.Tensor]]]:
                found = list(zip(*rows, strict=True))
                sizes.extend(len(tensors) for tensors in found)
                return [[list(tensors) for tensors in found]] if found else []

            monkeypatch.setattr(lua_compat.optim, "_together", together)
        generator = torch.Generator().manual_seed(1)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 3), (5,), (2, 2))]
        optimizer = method(parameters)
        optimizer.from_t7(config)
        for number in range(4):
            for k, parameter in enumerate(parameters):  # the second begins a step later
                parameter.grad = torch.randn(parameter.shape, generator=generator)
                if (k == 1 and number == 0) or (k == 2 and number == 3):
                    parameter.grad = None
            optimizer.step()
        results.append([parameter.detach().clone() for parameter in parameters])
    assert 3 in sizes
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_going_on_from_torch7s_own_state(golden: Path) -> None:
    case, x, optimizer = problem(golden, "adam_default")
    optimizer.from_t7(case["state"])
    assert optimizer.param_groups[0]["t"] == 60
    np.testing.assert_array_equal(optimizer.state[x]["m"].numpy(), case["state"]["m"])


def test_state_is_flat_over_the_parameters_in_order() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2, 1)), torch.nn.Parameter(torch.zeros(3))
    optimizer = SGD([a, b], lr=1.0, momentum=0.5)
    a.grad, b.grad = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 4.0, 5.0])
    optimizer.step()
    assert optimizer.to_t7()["dfdx"].tolist() == [1, 2, 3, 4, 5]


def test_state_of_another_network_is_refused() -> None:
    optimizer = Adam([torch.nn.Parameter(torch.zeros(3))])
    with pytest.raises(OptimStateError, match="m holds 2 numbers, the network has 3 parameters"):
        optimizer.from_t7(LuaTable({"t": 1, "m": np.zeros(2), "v": np.zeros(2)}))


def test_an_option_that_is_no_number_is_refused() -> None:
    optimizer = Adam([torch.nn.Parameter(torch.zeros(3))])
    with pytest.raises(OptimStateError, match="learningRate should be a number, found str"):
        optimizer.from_t7(LuaTable({"learningRate": "fast"}))


@pytest.mark.parametrize(
    ("method", "state", "message"),
    [
        (Adam, {"t": -1}, "t should count the steps, found -1"),
        (Adam, {"t": 0.5}, "t should count the steps, found 0.5"),
        (SGD, {"evalCounter": math.inf}, "evalCounter should be a number, found inf"),
        (SGD, {"learningRate": math.nan}, "learningRate should be a number, found nan"),
        (Adam, {"beta1": 1}, "beta1 should be from 0 to below 1, found 1"),
        (Adam, {"beta2": 1.5}, "beta2 should be from 0 to below 1"),
        (SGD, {"nesterov": True, "momentum": 0.9}, "Nesterov momentum requires"),  # as sgd.lua's assert
    ],
)
def test_options_that_cannot_be_are_refused(method: Any, state: dict[str, Any], message: str) -> None:
    optimizer = method([torch.nn.Parameter(torch.zeros(3))])
    before = dict(optimizer.param_groups[0])
    with pytest.raises(OptimStateError, match=message):
        optimizer.from_t7(LuaTable(state))
    assert optimizer.param_groups[0] == before


def test_a_table_of_something_else_is_refused() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(3))])
    with pytest.raises(OptimStateError, match="no optimiser state: none of learningRate"):
        optimizer.from_t7(LuaTable(["n01440764", "n02119789"]))


def test_a_state_of_another_optimiser_is_refused(golden: Path) -> None:
    state = lua_compat.load(golden / "optim.t7")["adam_default"]["state"]
    with pytest.raises(OptimStateError, match="a state with m, v is of another optimiser than SGD"):
        SGD([torch.nn.Parameter(torch.zeros(12))]).from_t7(state)


def test_two_groups_do_not_fit_one_table() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]}, {"params": [torch.nn.Parameter(torch.zeros(1))]}]
    with pytest.raises(OptimStateError, match="has one group of parameters, this has 2"):
        SGD(groups).to_t7()


def test_nesterov_needs_momentum_without_dampening() -> None:
    with pytest.raises(ValueError, match="Nesterov"):
        SGD([torch.nn.Parameter(torch.zeros(1))], nesterov=True, momentum=0.9, dampening=0.1)
