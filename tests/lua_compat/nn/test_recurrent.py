"""Recurrent modules of torch-rnn and Element-Research's rnn against their formulas, written out in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError
from lua_compat.nn.containers import ConcatTable, ParallelTable
from lua_compat.nn.recurrent import GRU, LSTM, SAdd, Sequencer, forget
from lua_compat.nn.simple_math import MulConstant
from lua_compat.nn.simple_shape import Reshape
from lua_compat.nn.table import CAddTable, CMulTable, FlattenTable, NarrowTable, SelectTable, SplitTable
from lua_compat.values import LuaTable, TorchObject

N, T, D, H = 2, 3, 2, 3


def numbers(*shape: int) -> np.ndarray:
    """Small numbers of both signs, none equal."""
    return np.sin(np.arange(1, 1 + np.prod(shape), dtype=np.float32) * 1.7).reshape(shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_formula(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """torch-rnn LSTM.lua, updateOutput; x (T, N, D)."""
    h = c = np.zeros((x.shape[1], H), np.float32)
    outputs = []
    for step in x:
        gates = step @ weight[:D] + h @ weight[D:] + bias
        i, f, o = (sigmoid(gates[:, k * H : (k + 1) * H]) for k in range(3))
        c = f * c + i * np.tanh(gates[:, 3 * H :])
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def gru_formula(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """rnn SeqGRU.lua, updateOutput; x (T, N, D)."""
    h = np.zeros((x.shape[1], H), np.float32)
    outputs = []
    for step in x:
        entering = step @ weight[:D] + bias
        r, u = np.split(sigmoid(entering[:, : 2 * H] + h @ weight[D:, : 2 * H]), 2, axis=1)
        candidate = np.tanh(entering[:, 2 * H :] + (r * h) @ weight[D:, 2 * H :])
        h = (1 - u) * candidate + u * h
        outputs.append(h)
    return np.stack(outputs)


def rnn_formula(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    h = np.zeros((x.shape[1], H), np.float32)
    outputs = []
    for step in x:
        h = np.tanh(step @ weight[:D] + h @ weight[D:] + bias)
        outputs.append(h)
    return np.stack(outputs)


def written_and_read(module: nn.Module) -> nn.Module:
    return t7nn.to_torch(lua_compat.loads(lua_compat.dumps(t7nn.from_torch(module))))


def same(ours: Any, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("typename", "n_gates", "formula", "batch_first"),
    [
        ("nn.LSTM", 4, lstm_formula, True),
        ("nn.SeqLSTM", 4, lstm_formula, False),
        ("nn.SeqGRU", 3, gru_formula, False),
        ("nn.VanillaRNN", 1, rnn_formula, True),
    ],
)
def test_whole_sequences(typename: str, n_gates: int, formula: Any, batch_first: bool) -> None:
    weight, bias, x = numbers(D + H, n_gates * H), numbers(n_gates * H), numbers(T, N, D)
    module = t7nn.to_torch(TorchObject(typename, {"weight": weight, "bias": bias}))
    expected = formula(x, weight, bias)
    for each in (module, written_and_read(module)):
        if batch_first:
            same(each(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1), expected)
        else:
            same(each(torch.from_numpy(x)), expected)
    assert t7nn.from_torch(module).typename == typename


def test_a_remembered_state_goes_on_where_the_last_sequence_ended() -> None:
    weight, bias, x = numbers(D + H, 4 * H), numbers(4 * H), numbers(T, N, D)
    fields = {"weight": weight, "bias": bias, "remember_states": True}
    module = t7nn.to_torch(TorchObject("nn.LSTM", fields))
    steps = torch.from_numpy(x).transpose(0, 1)
    parts = torch.cat([module(steps[:, :1]), module(steps[:, 1:])], dim=1)
    same(parts.transpose(0, 1), lstm_formula(x, weight, bias))


def test_given_states_come_before_the_input() -> None:
    weight, bias, x = numbers(D + H, 4 * H), numbers(4 * H), numbers(T, N, D)
    module = t7nn.to_torch(TorchObject("nn.SeqLSTM", {"weight": weight, "bias": bias}))
    whole = module(torch.from_numpy(x))
    h, c = module.state
    again = module([c, h, torch.from_numpy(x)])
    forget_first = t7nn.to_torch(TorchObject("nn.SeqLSTM", {"weight": weight, "bias": bias}))
    twice = forget_first(torch.from_numpy(np.concatenate([x, x])))
    same(torch.cat([whole, again]), twice.detach().numpy())


def test_masking_by_zeros_is_refused() -> None:
    fields = {"weight": numbers(D + H, 4 * H), "bias": numbers(4 * H), "maskzero": True}
    with pytest.raises(ModuleError, match=r"nn\.SeqLSTM at the root: .*maskzero.* not covered"):
        t7nn.to_torch(TorchObject("nn.SeqLSTM", fields))


def linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
    return layer


def fast_lstm() -> tuple[LSTM, np.ndarray, np.ndarray]:
    """As FastLSTM:buildModel builds it; its gates are in the order i, g, f, o."""
    of_input, of_state, bias = numbers(4 * H, D), numbers(4 * H, H) / 2, numbers(4 * H)
    gates = nn.Sequential(
        NarrowTable(1, 2),
        ParallelTable([linear(of_input, bias), linear(of_state, None)]),
        CAddTable(),
        Reshape((4, H)),
        SplitTable(1, 2),
        ParallelTable([nn.Sigmoid(), nn.Tanh(), nn.Sigmoid(), nn.Sigmoid()]),
    )
    hidden = nn.Sequential(NarrowTable(1, 2), CMulTable())
    cell = nn.Sequential(ConcatTable([SelectTable(3), SelectTable(5)]), CMulTable())
    next_cell = nn.Sequential(ConcatTable([hidden, cell]), CAddTable())
    output = nn.Sequential(ConcatTable([nn.Sequential(SelectTable(1), nn.Tanh()), SelectTable(2)]), CMulTable())
    step = nn.Sequential(
        ConcatTable([gates, SelectTable(3)]),
        FlattenTable(),
        ConcatTable([next_cell, SelectTable(4)]),
        FlattenTable(),
        ConcatTable([output, SelectTable(1)]),
    )
    order = np.r_[0:H, 2 * H : 3 * H, 3 * H : 4 * H, H : 2 * H]  # to i, f, o, g
    weight = np.concatenate([of_input, of_state], axis=1).T[:, order]
    return LSTM(step, H), weight, bias[order]


def test_a_fast_lstm_in_a_sequencer() -> None:
    cell, weight, bias = fast_lstm()
    x = numbers(T, N, D)
    sequencer = Sequencer(cell)
    for each in (sequencer, written_and_read(sequencer)):
        same(each(torch.from_numpy(x)), lstm_formula(x, weight, bias))
        outputs = each(list(torch.from_numpy(x)))  # a table of steps; the state of the first call is forgotten
        same(torch.stack(outputs), lstm_formula(x, weight, bias))
    assert t7nn.from_torch(sequencer)["modules"][1].typename == "nn.FastLSTM"


def test_a_cell_by_itself_takes_steps_until_it_forgets() -> None:
    cell, weight, bias = fast_lstm()
    x = numbers(T, N, D)
    expected = lstm_formula(x, weight, bias)
    for step, output in zip(torch.from_numpy(x), expected, strict=True):
        same(cell(step), output)
    forget(cell)
    same(cell(torch.from_numpy(x[0])), expected[0])


def test_a_sequencer_that_remembers_goes_on_without_the_old_graph() -> None:
    cell, weight, bias = fast_lstm()
    x = numbers(T, N, D)
    sequencer = Sequencer(cell, remember="both")
    for piece, expected in zip((x[:1], x[1:]), np.split(lstm_formula(x, weight, bias), [1]), strict=True):
        y = sequencer(torch.from_numpy(piece))
        same(y, expected)
        y.sum().backward()


def test_a_gru() -> None:
    """As GRU:buildModel builds it, with r and z in one Linear."""
    of_input, of_state, bias = numbers(2 * H, D), numbers(2 * H, H), numbers(2 * H)
    candidate_input, candidate_state, candidate_bias = numbers(H, D) / 2, numbers(H, H) / 3, numbers(H)
    gates = nn.Sequential(
        ParallelTable([linear(of_input, bias), linear(of_state, None)]),
        CAddTable(),
        Reshape((2, H)),
        SplitTable(1, 2),
        ParallelTable([nn.Sigmoid(), nn.Sigmoid()]),
    )
    entering = nn.Sequential(SelectTable(1), linear(candidate_input, candidate_bias))
    remembered = nn.Sequential(NarrowTable(2, 2), CMulTable(), linear(candidate_state, None))
    hidden = nn.Sequential(ConcatTable([entering, remembered]), CAddTable(), nn.Tanh())
    new = nn.Sequential(ConcatTable([hidden, nn.Sequential(SelectTable(4), SAdd(-1, True))]), CMulTable())
    old = nn.Sequential(NarrowTable(4, 2), CMulTable())
    step = nn.Sequential(
        ConcatTable([nn.Identity(), gates]),
        FlattenTable(),
        ConcatTable([NarrowTable(1, 4), SelectTable(2)]),
        FlattenTable(),
        ConcatTable([new, old]),
        CAddTable(),
    )
    weight = np.concatenate(
        [np.concatenate([of_input, of_state], 1), np.concatenate([candidate_input, candidate_state], 1)]
    ).T
    x = numbers(T, N, D)
    expected = gru_formula(x, weight, np.concatenate([bias, candidate_bias]))
    sequencer = Sequencer(GRU(step, H))
    assert t7nn.from_torch(sequencer)["module"].typename == "nn.GRU"
    assert t7nn.from_torch(SAdd(1.0)).typename == "nn.SAdd"
    for each in (sequencer, written_and_read(sequencer)):
        same(each(torch.from_numpy(x)), expected)


def test_recurrent_starts_with_its_start_module() -> None:
    """start(x) = x + 1, input(x) = 2x, feedback(y) = -y, merge +, transfer identity: 2*1+1 = 3, then 2*5-3 = 7."""
    start = TorchObject("nn.Add", {"bias": np.ones(1, np.float32)})
    parts = {"startModule": start, "feedbackModule": TorchObject("nn.MulConstant", {"constant_scalar": -1}),
             "inputModule": TorchObject("nn.MulConstant", {"constant_scalar": 2}),
             "transferModule": TorchObject("nn.Identity"), "mergeModule": TorchObject("nn.CAddTable")}  # fmt: skip
    module = t7nn.to_torch(TorchObject("nn.Recurrent", parts))
    for each in (module, written_and_read(module)):
        assert [each(torch.tensor([x])).item() for x in (1.0, 5.0)] == [3.0, 7.0]


def test_repeater_and_sequencer_criterion() -> None:
    repeater = t7nn.to_torch(
        TorchObject("nn.Repeater", {"rho": 2, "modules": LuaTable([t7nn.from_torch(MulConstant(3))])})
    )
    assert [y.tolist() for y in written_and_read(repeater)(torch.tensor([1.0]))] == [[3.0], [3.0]]
    criterion = t7nn.to_torch(
        TorchObject("nn.SequencerCriterion", {"criterion": TorchObject("nn.MSECriterion"), "sizeAverage": True})
    )
    x, target = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]])
    assert written_and_read(criterion)(x, target).item() == 2.0  # (4 + 0) / 2


def test_both_directions() -> None:
    """{x1, x2}: 2x forwards joined with -x backwards, which the second reversal puts back in order."""

    def sequencer(module: TorchObject) -> TorchObject:
        return TorchObject(
            "nn.Sequencer", {"modules": LuaTable([TorchObject("nn.Recursor", {"modules": LuaTable([module])})])}
        )

    def sequential(*modules: TorchObject) -> TorchObject:
        return TorchObject("nn.Sequential", {"modules": LuaTable(list(modules))})

    double, negate = (TorchObject("nn.MulConstant", {"constant_scalar": factor}) for factor in (2, -1))
    backwards = sequential(TorchObject("nn.ReverseTable"), sequencer(negate), TorchObject("nn.ReverseTable"))
    concat = TorchObject("nn.ConcatTable", {"modules": LuaTable([sequencer(double), backwards])})
    merge = sequencer(TorchObject("nn.JoinTable", {"dimension": 1, "nInputDims": 1}))
    both = TorchObject("nn.BiSequencer", {"modules": LuaTable([sequential(concat, TorchObject("nn.ZipTable"), merge)])})
    module = t7nn.to_torch(both)
    for each in (module, written_and_read(module)):
        assert [y.tolist() for y in each([torch.tensor([1.0]), torch.tensor([5.0])])] == [[2.0, -1.0], [10.0, -5.0]]


def test_a_language_model_of_torch_rnn() -> None:
    """One LSTM between a LookupTable and a Linear; the views flatten N and T and restore them."""
    weight, bias, words, scores = numbers(D + H, 4 * H), numbers(4 * H), numbers(4, D), numbers(4, H)
    flatten = TorchObject("nn.View", {"size": lua_compat.storage(np.array([1, 1, -1])), "numInputDims": 3})
    restore = TorchObject("nn.View", {"size": lua_compat.storage(np.array([1, -1])), "numInputDims": 2})
    lookup, lstm = TorchObject("nn.LookupTable", {"weight": words}), {"weight": weight, "bias": bias}
    last = TorchObject("nn.Linear", {"weight": scores, "bias": np.zeros(4, np.float32)})
    layers = [lookup, TorchObject("nn.LSTM", lstm), flatten, last, restore]
    model = TorchObject(
        "nn.LanguageModel",
        {"net": TorchObject("nn.Sequential", {"modules": LuaTable(layers)}), "view1": flatten, "view2": restore,
         "idx_to_token": LuaTable(["a", "b", "c", "d"])},
    )  # fmt: skip
    tokens = np.array([[1, 4, 2], [3, 3, 1]])
    expected = lstm_formula(words[tokens - 1].transpose(1, 0, 2), weight, bias).transpose(1, 0, 2) @ scores.T
    module = t7nn.to_torch(model)
    for each in (module, written_and_read(module)):
        same(each(torch.from_numpy(tokens)), expected)
    assert t7nn.from_torch(module)["idx_to_token"][4] == "d"


def test_lazy_dropout_keeps_one_mask_until_it_forgets() -> None:
    dropout = t7nn.to_torch(TorchObject("nn.Dropout", {"p": 0.5, "v2": True, "lazy": True, "mono": True}))
    x = torch.ones(2, 50)
    first, second = dropout(x), dropout(x)
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[1])
    forget(dropout)
    assert not torch.equal(dropout(x), first)
