"""Torch7's optim.sgd and optim.adam as torch.optim.Optimizer classes: same arithmetic, same state in a .t7 file.

The order of operations is that of torch/optim sgd.lua and adam.lua, on each parameter; as there, weight decay is added
to the gradients in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import Optimizer

import lua_compat
from lua_compat.errors import OptimStateError
from lua_compat.values import LuaTable

__all__ = ["SGD", "Adam"]

# So many numbers of each tensor fit into a processor's cache together: three times faster than one whole pass per
# operation, and the same bits.
_PIECE = 1 << 18

_NESTEROV = "Nesterov momentum requires a momentum and zero dampening"

ParametersAndGradients = list[tuple[torch.Tensor, torch.Tensor]]
Parameters = Iterable[torch.Tensor] | Iterable[dict[str, Any]]


class _Torch7Optimizer(Optimizer):
    """What the two share: the closure of `step`, and the state as one table with flat tensors over all parameters.

    `_CONFIG` maps a parameter group's option to the table's key and Torch7's default, `_VECTORS` a parameter's state
    to its key, `_COUNTER` names the counter of steps.
    """

    _CONFIG: ClassVar[Mapping[str, tuple[str, Any]]]
    _VECTORS: ClassVar[Mapping[str, str]]
    _COUNTER: ClassVar[tuple[str, str]]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update from the gradients in place; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                self._update(group, [(p, p.grad) for p in group["params"] if p.grad is not None])
        return loss

    def to_t7(self) -> LuaTable:
        """The state as optim keeps it in one table: options, counter, and each vector flat over all parameters.

        Raises OptimStateError for several parameter groups, which one table cannot hold.
        """
        group = self._only_group()
        table = LuaTable({key: group[name] for name, (key, _) in self._CONFIG.items() if group[name] is not None})
        counter, counter_key = self._COUNTER
        if group[counter]:
            table[counter_key] = group[counter]
        for name, key in self._VECTORS.items():
            if any(name in self.state[p] for p in group["params"]):
                parts = [self.state[p][name] if name in self.state[p] else torch.zeros_like(p) for p in group["params"]]
                table[key] = lua_compat.tensor(torch.cat([part.reshape(-1) for part in parts]).cpu().numpy())
        return table

    def from_t7(self, table: LuaTable) -> None:
        """Take options and state from a table as `to_t7` or real Torch7 wrote it.

        Raises OptimStateError where a vector has another length than the parameters, an option is no number or none
        the method can have, or the table has nothing of an optimiser.
        """
        group = self._only_group()
        known = [*(key for key, _ in self._CONFIG.values()), *self._VECTORS.values(), self._COUNTER[1]]
        if not any(key in table for key in known):
            raise OptimStateError(f"no optimiser state: none of {', '.join(known)} is there")
        options = {name: _option(table, key, default) for name, (key, default) in self._CONFIG.items()}
        self._check(options)
        counter, counter_key = self._COUNTER
        group.update(options, **{counter: _step_count(table, counter_key)})
        others = [key for key in ("dfdx", "m", "v") if key in table]
        if others and not any(key in table for key in self._VECTORS.values()):
            raise OptimStateError(
                f"a state with {', '.join(others)} is of another optimiser than {type(self).__name__}"
            )
        for name, key in self._VECTORS.items():
            vector = table.get(key)
            if vector is not None:
                self._set_vector(group["params"], name, key, vector)

    def _set_vector(self, parameters: list[torch.Tensor], name: str, key: str, vector: object) -> None:
        n_elements = sum(p.numel() for p in parameters)
        if not isinstance(vector, np.ndarray) or vector.size != n_elements:
            found = f"{vector.size} numbers" if isinstance(vector, np.ndarray) else type(vector).__name__
            raise OptimStateError(
                f"{key} holds {found}, the network has {n_elements} parameters: this state belongs to another network"
            )
        flat = torch.from_numpy(np.array(vector).reshape(-1))
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            self.state[parameter][name] = part.view_as(parameter).to(parameter)

    def _only_group(self) -> dict[str, Any]:
        if len(self.param_groups) != 1:
            raise OptimStateError(
                f"a Torch7 optimiser state has one group of parameters, this has {len(self.param_groups)}"
            )
        return self.param_groups[0]

    def _check(self, options: dict[str, Any]) -> None:
        """Refuse options of a table with which the method does not work."""

    def _update(self, group: dict[str, Any], parameters: ParametersAndGradients) -> None:
        raise NotImplementedError


class SGD(_Torch7Optimizer):
    """optim.sgd: weight decay, momentum (dampening defaults to the momentum, as in Torch7), Nesterov, rate decay.

    d = grad + weight_decay x;  v = momentum v + (1 - dampening) d (v = d at the first step);
    x -= lr / (1 + n lr_decay) v, n counting the steps before this one. Raises ValueError for Nesterov momentum
    with dampening or without momentum.
    """

    _CONFIG: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "lr": ("learningRate", 1e-3),
        "lr_decay": ("learningRateDecay", 0.0),
        "weight_decay": ("weightDecay", 0.0),
        "momentum": ("momentum", 0.0),
        "dampening": ("dampening", None),
        "nesterov": ("nesterov", None),
    }
    _VECTORS: ClassVar[Mapping[str, str]] = {"momentum_buffer": "dfdx"}
    _COUNTER: ClassVar[tuple[str, str]] = ("n_steps", "evalCounter")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        dampening: float | None = None,
        nesterov: bool | None = None,
    ):
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(_NESTEROV)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "dampening": dampening,
                "nesterov": nesterov,
                "n_steps": 0,
            },
        )

    def _check(self, options: dict[str, Any]) -> None:
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise OptimStateError(_NESTEROV)

    def _update(self, group: dict[str, Any], parameters: ParametersAndGradients) -> None:
        momentum = group["momentum"]
        dampening = momentum if group["dampening"] is None else group["dampening"]
        rate = group["lr"] / (1 + group["n_steps"] * group["lr_decay"])
        begun: list[tuple[torch.Tensor, ...]] = []
        first: list[tuple[torch.Tensor, ...]] = []
        for parameter, gradient in parameters:
            state = self.state[parameter]
            is_first = momentum != 0 and "momentum_buffer" not in state
            if is_first:
                state["momentum_buffer"] = torch.empty_like(parameter)
            velocity = state["momentum_buffer"] if momentum != 0 else gradient
            (first if is_first else begun).append((parameter, gradient, velocity))
        for of_whom, is_first in ((begun, False), (first, True)):
            for x, d, v in _together(of_whom):
                if group["weight_decay"] != 0:
                    torch._foreach_add_(d, x, alpha=group["weight_decay"])
                if is_first:
                    torch._foreach_copy_(v, d)
                elif momentum != 0:
                    torch._foreach_mul_(v, momentum)
                    torch._foreach_add_(v, d, alpha=1 - dampening)
                if group["nesterov"]:
                    torch._foreach_add_(d, v, alpha=momentum)
                torch._foreach_add_(x, d if group["nesterov"] else v, alpha=-rate)
        group["n_steps"] += 1


class Adam(_Torch7Optimizer):
    """optim.adam (arXiv:1412.6980): epsilon is added to sqrt(v) before the bias correction, which is in the step size.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    x -= lr / (1 + t lr_decay) sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps). `momentum` and `dampening` are not
    used; they are carried because the tables of the XNOR-Net code hold them.
    """

    _CONFIG: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "lr": ("learningRate", 1e-3),
        "lr_decay": ("learningRateDecay", 0.0),
        "weight_decay": ("weightDecay", 0.0),
        "beta1": ("beta1", None),
        "beta2": ("beta2", None),
        "eps": ("epsilon", None),
        "momentum": ("momentum", None),
        "dampening": ("dampening", None),
    }
    _VECTORS: ClassVar[Mapping[str, str]] = {"m": "m", "v": "v"}
    _COUNTER: ClassVar[tuple[str, str]] = ("t", "t")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        beta1: float | None = None,
        beta2: float | None = None,
        eps: float | None = None,
        momentum: float | None = None,
        dampening: float | None = None,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "beta1": beta1,
                "beta2": beta2,
                "eps": eps,
                "momentum": momentum,
                "dampening": dampening,
                "t": 0,
            },
        )

    def to_t7(self) -> LuaTable:
        """As Torch7's table, which also holds the denominator of the last step, sqrt(v) + epsilon."""
        table = super().to_t7()
        if "v" in table:
            eps = np.float32(1e-8 if self.param_groups[0]["eps"] is None else self.param_groups[0]["eps"])
            table["denom"] = lua_compat.tensor(np.sqrt(table["v"]) + eps)
        return table

    def _check(self, options: dict[str, Any]) -> None:
        for name in ("beta1", "beta2"):
            if options[name] is not None and not 0 <= options[name] < 1:
                raise OptimStateError(f"{name} should be from 0 to below 1, found {options[name]}")

    def _update(self, group: dict[str, Any], parameters: ParametersAndGradients) -> None:
        beta1 = 0.9 if group["beta1"] is None else group["beta1"]
        beta2 = 0.999 if group["beta2"] is None else group["beta2"]
        eps = 1e-8 if group["eps"] is None else group["eps"]
        rate = group["lr"] / (1 + group["t"] * group["lr_decay"])
        group["t"] += 1
        step_size = rate * math.sqrt(1 - beta2 ** group["t"]) / (1 - beta1 ** group["t"])
        rows = []
        for parameter, gradient in parameters:
            state = self.state[parameter]
            if not state:
                state.update(m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
            rows.append((parameter, gradient, state["m"], state["v"]))
        for x, g, m, v in _together(rows):
            if group["weight_decay"] != 0:
                torch._foreach_add_(g, x, alpha=group["weight_decay"])
            torch._foreach_mul_(m, beta1)
            torch._foreach_add_(m, g, alpha=1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, g, g, value=1 - beta2)
            denominators = torch._foreach_sqrt(v)
            torch._foreach_add_(denominators, eps)
            torch._foreach_addcdiv_(x, m, denominators, value=-step_size)
            del denominators  # its memory serves the next piece


def _together(rows: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[list[list[torch.Tensor]]]:
    """What is computed at once, as lists of tensors for each place in a row (parameters, gradients, ...).

    On the CPU one parameter at a time, and of that a piece; elsewhere all parameters, for a GPU does with one launch
    per operation what would be one per parameter. Views, so that in-place work stays.
    """
    whole: list[tuple[torch.Tensor, ...]] = []
    for row in rows:
        if not all(tensor.device.type == "cpu" for tensor in row):
            whole.append(row)
        elif all(tensor.is_contiguous() for tensor in row):
            for pieces in zip(*(torch.split(tensor.view(-1), _PIECE) for tensor in row), strict=True):
                yield [[piece] for piece in pieces]
        else:
            yield [[tensor] for tensor in row]
    if whole:
        yield [list(tensors) for tensors in zip(*whole, strict=True)]


def _option(table: LuaTable, key: str, default: object) -> Any:
    found = table.get(key)
    if found is None:
        return default
    if not isinstance(found, bool | int | float):
        raise OptimStateError(f"{key} should be a number, found {type(found).__name__}")
    if not math.isfinite(found):
        raise OptimStateError(f"{key} should be a number, found {found}")
    return found


def _step_count(table: LuaTable, key: str) -> int:
    found = _option(table, key, 0)
    if found < 0 or found != int(found):
        raise OptimStateError(f"{key} should count the steps, found {found}")
    return int(found)
