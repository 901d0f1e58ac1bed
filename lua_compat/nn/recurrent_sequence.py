"""Recurrent layers that take whole sequences: torch-rnn's (LSTM.lua, VanillaRNN.lua, LanguageModel.lua) and rnn's Seq*.

Their weight is (D + H, gates * H): rows for the input, then rows for the state.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes
from lua_compat.values import LuaTable

__all__ = ["LanguageModel", "SequenceGRU", "SequenceLSTM", "SequenceRNN", "read_sequence_lstm"]

Input = torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...]


class _Sequence(nn.Module):
    """A base: the input is x, {h0, x} or (LSTM) {c0, h0, x}; x (N, T, D) where `batch_first`, else (T, N, D).

    `remember` ("neither", "train", "eval", "both") says when a sequence starts from the last state of the one before.
    """

    n_gates = 1
    n_states = 1

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, batch_first: bool, remember: str):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.batch_first = batch_first
        self.remember = remember
        self.n_hidden = bias.shape[0] // self.n_gates
        self.state: list[torch.Tensor] | None = None  # h, and c for an LSTM

    @classmethod
    def read(cls, fields: Fields, batch_first: bool, remember: str) -> Self:
        bias = fields.parameter("bias", fields.array("bias").shape)
        n_rows = fields.array("weight").shape[0]
        return cls(fields.parameter("weight", (n_rows, bias.shape[0])), bias, batch_first, remember)

    @classmethod
    def from_t7(cls, fields: Fields) -> Self:
        if fields.boolean("maskzero", default=False):
            raise fields.error("sequences masked by zeros (maskzero) are not covered")
        if fields.typename == "nn.VanillaRNN":
            return cls.read(fields, True, "both" if fields.boolean("remember_states", default=False) else "neither")
        remember = fields.string("_remember", default="neither")
        return cls.read(fields, fields.boolean("batchfirst", default=False), remember)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        n_inputs = self.weight.shape[0] - self.n_hidden
        buffers = ("cell", "gates", "buffer1", "buffer2", "buffer3", "grad_a_buffer", "h0", "c0")
        gradients = ("grad_c0", "grad_h0", "grad_x")[-self.n_states - 1 :]
        empty = {name: out.empty() for name in (*buffers, *gradients)}
        of_torch_rnn = out.typename in ("nn.LSTM", "nn.VanillaRNN")
        if of_torch_rnn:
            settings: dict[str, object] = {"input_dim": n_inputs, "hidden_dim": self.n_hidden}
            settings["remember_states"] = self.remember != "neither"
        else:
            settings = {"inputsize": n_inputs, "outputsize": self.n_hidden, "hiddensize": self.n_hidden}
            settings |= {"inputSize": n_inputs, "outputSize": self.n_hidden, "maskzero": False}
            settings |= {"_remember": self.remember, "batchfirst": self.batch_first}
        table = LuaTable([empty[name] for name in gradients])
        return {**settings, **empty, **out.parameters(weight=self.weight, bias=self.bias), "gradInput": table}

    def forward(self, x: Input) -> torch.Tensor:
        *given, sequence = [x] if isinstance(x, torch.Tensor) else x  # {c0, h0, x}
        start = [*reversed(given), *self._remembered(sequence)[len(given) :]]
        steps = sequence.transpose(0, 1) if self.batch_first else sequence
        outputs, state = self.run(steps, start)
        self.state = [each.detach() for each in state]
        return outputs.transpose(0, 1) if self.batch_first else outputs

    def run(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The outputs (T, N, H) for x (T, N, D), and the last state."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0] - self.n_hidden}, {self.n_hidden}, batch_first={self.batch_first}"

    def _remembered(self, x: torch.Tensor) -> list[torch.Tensor]:
        if self.state is not None and self.remember in ("both", "train" if self.training else "eval"):
            return self.state
        n_batch = x.shape[0] if self.batch_first else x.shape[1]
        return [x.new_zeros(n_batch, self.n_hidden) for _ in range(self.n_states)]

    def _split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of the input (D, gates * H) and of the state (H, gates * H)."""
        n_inputs = self.weight.shape[0] - self.n_hidden
        return self.weight[:n_inputs], self.weight[n_inputs:]


@register("nn.SeqLSTM")
class SequenceLSTM(_Sequence):
    """c = f c + i g, h = o tanh(c), with the gates in the order i, f, o, g (PyTorch's is i, f, g, o)."""

    n_gates = 4
    n_states = 2

    def run(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        weights = [self._pytorch_order(part.t()) for part in self._split()]
        bias = self._pytorch_order(self.bias)
        parameters = [*weights, bias, torch.zeros_like(bias)]
        start = [each.unsqueeze(0) for each in state]
        outputs, h, c = torch.lstm(x, start, parameters, True, 1, 0.0, self.training, False, False)
        return outputs, [h.squeeze(0), c.squeeze(0)]

    def _pytorch_order(self, rows: torch.Tensor) -> torch.Tensor:
        i, f, o, g = rows.chunk(4)
        return torch.cat([i, f, g, o])


def read_sequence_lstm(fields: Fields) -> SequenceLSTM:
    """torch-rnn's nn.LSTM."""
    remember = fields.boolean("remember_states", default=False)
    return SequenceLSTM.read(fields, True, "both" if remember else "neither")


@register("nn.VanillaRNN")
class SequenceRNN(_Sequence):
    """h = tanh(Wx x + Wh h + b)"""

    def run(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        weights = [part.t().contiguous() for part in self._split()]
        parameters = [*weights, self.bias, torch.zeros_like(self.bias)]
        outputs, h = torch.rnn_tanh(x, state[0].unsqueeze(0), parameters, True, 1, 0.0, self.training, False, False)
        return outputs, [h.squeeze(0)]


@register("nn.SeqGRU")
class SequenceGRU(_Sequence):
    """h = (1 - u) tanh(Wx x + Wh (r h) + b) + u h, gates in the order r, u (PyTorch's GRU puts r elsewhere)."""

    n_gates = 3

    def run(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        of_input, of_state = self._split()
        n = 2 * self.n_hidden
        entering = x @ of_input + self.bias
        h, outputs = state[0], []
        for step in entering:
            r, u = (step[:, :n] + h @ of_state[:, :n]).sigmoid().chunk(2, dim=1)
            candidate = (step[:, n:] + (r * h) @ of_state[:, n:]).tanh()
            h = (1 - u) * candidate + u * h
            outputs.append(h)
        return torch.stack(outputs), [h]


@writes(SequenceLSTM, "nn.SeqLSTM", "nn.LSTM")
def sequence_lstm_fields(module: SequenceLSTM, out: FieldWriter) -> dict[str, object]:
    return module.to_t7(out)


@register("nn.LanguageModel")
class LanguageModel(nn.Module):
    """torch-rnn's model: indices (N, T) of tokens to scores (N, T, V); `idx_to_token` and `token_to_idx` as saved.

    Its views of (N, T, H) as (N T, H), and back, take N and T from the input (LanguageModel.lua, updateOutput).
    """

    inward = ("view1", "bn_view_in")
    outward = ("view2", "bn_view_out")

    def __init__(
        self, net: nn.Sequential, flattening: list[nn.Module], restoring: list[nn.Module], tables: dict[str, LuaTable]
    ):
        super().__init__()
        self.net = net
        self.tables = tables
        layers = list(net)
        self.flattening = tuple(k for k, layer in enumerate(layers) if any(layer is view for view in flattening))
        self.restoring = tuple(k for k, layer in enumerate(layers) if any(layer is view for view in restoring))

    @classmethod
    def from_t7(cls, fields: Fields) -> LanguageModel:
        net = fields.module("net")
        if not isinstance(net, nn.Sequential):
            raise fields.error(f"field net should be an nn.Sequential, found {type(net).__name__}")
        flattening, restoring = (
            [fields.module(single), *(fields.children(many) if many in fields else [])]
            for single, many in (cls.inward, cls.outward)
        )
        names = ("idx_to_token", "token_to_idx")
        tables = {name: fields.value(name) for name in names if isinstance(fields.value(name), LuaTable)}
        return cls(net, flattening, restoring, tables)

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        net = out.module(self.net, "net")
        members = net["modules"].to_list()
        recurrent = [m for m, layer in zip(members, self.net, strict=True) if isinstance(layer, _Sequence)]
        fields: dict[str, object] = {"net": net, "rnns": LuaTable(recurrent), **self.tables}
        for positions, (single, many) in ((self.flattening, self.inward), (self.restoring, self.outward)):
            views = [members[k] for k in positions]
            fields |= {single: views[-1], many: LuaTable(views[:-1])}
        return fields

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_batch, n_steps = x.shape
        for position, layer in enumerate(self.net):
            if position in self.flattening:
                x = x.reshape(n_batch * n_steps, -1)
            elif position in self.restoring:
                x = x.reshape(n_batch, n_steps, -1)
            else:
                x = layer(x)
        return x
