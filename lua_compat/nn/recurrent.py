"""Element-Research's rnn: modules that remember from step to step, and those that run them along sequences.

A remembering module called by itself takes one step, (N, D) or (D), and keeps its state until `forget`; inside a
Sequencer it starts anew with every sequence unless told to remember.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from lua_compat.nn.containers import Decorator, ParallelTable, only_child
from lua_compat.nn.criterion import CRITERION_FIELDS
from lua_compat.nn.dropout import Dropout
from lua_compat.nn.fields import Fields
from lua_compat.nn.layer import Layer
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.recurrent_sequence import SequenceLSTM, read_sequence_lstm
from lua_compat.nn.registry import register, writes_only
from lua_compat.values import LuaTable

__all__ = ["GRU", "LSTM", "Recurrent", "Recursor", "Remembering", "Repeater", "Sequencer", "forget"]


def forget(network: nn.Module) -> None:
    """Let every remembering module start anew (Module:forget of rnn)."""
    for module in network.modules():
        if isinstance(module, Remembering):
            module.state = None
        elif isinstance(module, Dropout):
            module.mask = None


def detached(state: Any) -> Any:
    """The state without its history: gradients do not flow into the sequence before."""
    if isinstance(state, list):
        return [detached(entry) for entry in state]
    return state.detach() if isinstance(state, torch.Tensor) else state


class Remembering(nn.Module):
    """A base: `module` computes one step, `state` is what it gave at the last one."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.state: Any = None

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        member = out.module(self.module, "modules[1]")
        names = ("outputs", "gradInputs", "_gradOutputs", "gradOutputs")
        return {
            "modules": LuaTable([member]),
            "recurrentModule": member,
            "sharedClones": LuaTable([member]),
            "nSharedClone": 1,
            "rmInSharedClones": True,
            "step": 1,
            **{name: LuaTable() for name in names},
        }


class _Cell(Remembering):
    """A base of LSTM and GRU: a state of `output_size` numbers, 0 at the start."""

    def __init__(self, module: nn.Module, output_size: int):
        super().__init__(module)
        self.output_size = output_size

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(only_child(fields), fields.integer("outputSize"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        state = {"zeroTensor": out.empty(), "cells": LuaTable(), "gradCells": LuaTable()}
        return {**super().to_t7(out), **state, "outputSize": self.output_size, "rho": 9999}

    def zeros(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(*x.shape[:-1], self.output_size)


@register("nn.FastLSTM")
class LSTM(_Cell):
    """Its module takes {x, output, cell} and gives {output, cell} (rnn LSTM.lua, FastLSTM.lua)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, cell = [self.zeros(x), self.zeros(x)] if self.state is None else self.state
        self.state = list(self.module([x, output, cell]))
        result: torch.Tensor = self.state[0]
        return result


@register("nn.LSTM")
def lstm(fields: Fields) -> LSTM | SequenceLSTM:
    """Two packages have a class of this name: torch-rnn's holds its weights itself, rnn's holds modules."""
    if "weight" in fields:
        return read_sequence_lstm(fields)
    return LSTM.from_t7(fields)


@writes_only(LSTM, "nn.LSTM")
def lstm_fields(module: LSTM, out: FieldWriter) -> dict[str, object]:
    return module.to_t7(out)


@register("nn.GRU")
class GRU(_Cell):
    """Its module takes {x, output} and gives the output (rnn GRU.lua)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = self.module([x, self.zeros(x) if self.state is None else self.state])
        result: torch.Tensor = self.state
        return result


@register("nn.Recurrent")
class Recurrent(Remembering):
    """transfer(merge{input(x), feedback(output)}); at the first step transfer(start(input(x))) (rnn Recurrent.lua)."""

    names = ("startModule", "inputModule", "feedbackModule", "transferModule", "mergeModule")

    def __init__(self, parts: list[nn.Module]):
        super().__init__(nn.ModuleList(parts))

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls([fields.module(name) for name in cls.names])

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """The first step has clones of two of the modules in Torch7; here and there they share their parameters."""
        start, enter, feedback, transfer, merge = self._parts()
        parts = {name: out.module(part, name) for name, part in zip(self.names, self._parts(), strict=True)}
        initial = nn.Sequential(enter, start, transfer).train(self.training)
        recurrent = nn.Sequential(ParallelTable([enter, feedback]), merge, transfer).train(self.training)
        written = out.module(recurrent, "recurrentModule")
        tables = {name: LuaTable() for name in ("outputs", "gradInputs", "_gradOutputs", "gradOutputs")}
        graph = {"initialModule": out.module(initial, "initialModule"), "recurrentModule": written}
        clones = {"sharedClones": LuaTable({2: written}), "nSharedClone": 1, "step": 1}
        return {**parts, "modules": LuaTable(list(parts.values())), **graph, **clones, **tables}

    def forward(self, x: Any) -> Any:
        start, enter, feedback, transfer, merge = self._parts()
        if self.state is None:
            self.state = transfer(start(enter(x)))
        else:
            self.state = transfer(merge([enter(x), feedback(self.state)]))
        return self.state

    def _parts(self) -> list[nn.Module]:
        return list(self.module.children())


@register("nn.Recursor")
class Recursor(Remembering):
    """A module for one step, which may hold remembering modules (rnn Recursor.lua)."""

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(only_child(fields))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        fields = super().to_t7(out)
        return {**fields, "module": fields["recurrentModule"]}

    def forward(self, x: Any) -> Any:
        return self.module(x)


@register("nn.Sequencer")
class Sequencer(Decorator):
    """Its module along a sequence: a table of steps, or a tensor with the steps in front (rnn Sequencer.lua).

    `remember` ("neither", "train", "eval", "both") says when a sequence goes on from the state of the last one.
    """

    def __init__(self, module: nn.Module, remember: str = "neither"):
        super().__init__(module)
        self.remember = remember

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(only_child(fields), fields.string("_remember", default="neither"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        member = out.module(self.module, "modules[1]")
        names = ("output", "gradInput", "tableoutput", "tablegradInput", "_output")
        tables = {name: LuaTable() for name in names}
        return {"modules": LuaTable([member]), "module": member, "_remember": self.remember, **tables}

    def forward(self, x: Any) -> Any:
        if self.remember in ("both", "train" if self.training else "eval"):
            for module in self.modules():
                if isinstance(module, Remembering):
                    module.state = detached(module.state)
        else:
            forget(self)
        outputs = [self.module(step) for step in x]
        return torch.stack(outputs) if isinstance(x, torch.Tensor) else outputs

    def extra_repr(self) -> str:
        return f"remember={self.remember}"


@register("nn.BiSequencer")
class BiSequencer(Decorator):
    """Forwards and backwards along a table of steps: rnn builds it of the other modules."""

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        """The three modules it was built of are parts of its module."""
        fields = super().to_t7(out)
        concat, _, merge = self.module.children()
        forwards, backwards = concat.members.children()  # type: ignore[union-attr]
        parts = {"forwardModule": forwards, "backwardModule": list(backwards.children())[1], "mergeModule": merge}
        written = {name: out.module(part.module, name) for name, part in parts.items()}
        sequencers = {"fwdSeq": forwards, "bwdSeq": parts["backwardModule"], "mergeSeq": merge}
        written |= {name: out.module(part, name) for name, part in sequencers.items()}
        return {**fields, **written, "module": out.module(self.module, "module"), "output": LuaTable()}


@register("nn.Repeater")
class Repeater(Decorator):
    """Its module `n_steps` times on the same input; the table of the outputs."""

    def __init__(self, module: nn.Module, n_steps: int):
        super().__init__(module)
        self.n_steps = n_steps

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        return cls(only_child(fields), fields.integer("rho"))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        member = out.module(self.module, "modules[1]")
        return {"modules": LuaTable([member]), "module": member, "rho": self.n_steps, "output": LuaTable()}

    def forward(self, x: Any) -> list[Any]:
        forget(self)
        return [self.module(x) for _ in range(self.n_steps)]


@register("nn.ReverseTable")
class ReverseTable(Layer):
    """A table from its end."""

    table_fields = ("output", "gradInput")

    def forward(self, x: list[Any] | tuple[Any, ...]) -> list[Any]:
        return list(x)[::-1]


@register("nn.SAdd")
class SAdd(Layer):
    """x + addend, negated where `negate` (rnn SAdd.lua)."""

    addend: float
    negate: bool = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(x + self.addend) if self.negate else x + self.addend


@register("nn.SequencerCriterion")
class SequencerCriterion(nn.Module):
    """The sum of a criterion over the steps of input and target, or its mean where `size_average`."""

    def __init__(self, criterion: nn.Module, size_average: bool = False):
        super().__init__()
        self.criterion = criterion
        self.size_average = size_average

    @classmethod
    def from_t7(cls, fields: Fields) -> SequencerCriterion:
        return cls(fields.module("criterion"), fields.boolean("sizeAverage", default=False))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        tables = {"clones": LuaTable(), "gradInput": LuaTable()}
        fields = {"criterion": out.module(self.criterion, "criterion"), "sizeAverage": self.size_average}
        return {**CRITERION_FIELDS, **fields, **tables}

    def forward(self, x: Any, target: Any) -> torch.Tensor:
        total = torch.stack([self.criterion(a, b) for a, b in zip(x, target, strict=True)]).sum()
        return total / len(x) if self.size_average else total
