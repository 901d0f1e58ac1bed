"""nn.gModule: shared and nested graphs, old and damaged ones, depth, and the graph that is written back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError
from lua_compat.nn.graph import GraphModule, GraphNode
from lua_compat.values import LuaTable, TorchObject


def written_and_read(network: nn.Module) -> nn.Module:
    return t7nn.to_torch(lua_compat.loads(lua_compat.dumps(t7nn.from_torch(network))))


def test_a_node_used_twice_runs_once() -> None:
    """x -> double -> (+ itself, + x): 2x + 2x + x = 5x."""
    nodes = [GraphNode(), GraphNode((0,), has_module=True), GraphNode((1, 1), has_module=True),
             GraphNode((2, 0), has_module=True), GraphNode((3,))]  # fmt: skip
    adds = [t7nn.table.CAddTable(), t7nn.table.CAddTable()]
    network = GraphModule(nodes, [t7nn.simple_math.MulConstant(2), *adds], 0, 1)
    assert network(torch.tensor([1.0, 3.0])).tolist() == [5.0, 15.0]
    assert written_and_read(network)(torch.tensor([1.0, 3.0])).tolist() == [5.0, 15.0]


def test_several_inputs_and_outputs_and_an_inner_graph() -> None:
    """{a, b} -> {a - b, inner(b)} with inner(x) = {x, -x} of which entry 2 is taken: {a - b, -b}."""
    inner = GraphModule(
        [GraphNode(), GraphNode((0,), has_module=True), GraphNode((0, 1))], [t7nn.simple_math.MulConstant(-1)], 0, 1
    )
    nodes = [
        GraphNode(),
        GraphNode((0,), n_split=2),
        GraphNode((1,), select=0),
        GraphNode((1,), select=1),
        GraphNode((2, 3), has_module=True),
        GraphNode((3,), has_module=True),
        GraphNode((5,), n_split=2),
        GraphNode((6,), select=1),
        GraphNode((4, 7)),
    ]
    network = GraphModule(nodes, [t7nn.table.CSubTable(), inner], 0, 2)
    for each in (network, written_and_read(network)):
        difference, negative = each([torch.tensor([5.0]), torch.tensor([2.0])])
        assert (difference.tolist(), negative.tolist()) == ([3.0], [-2.0])


def test_the_number_of_inputs_is_checked(golden: Path) -> None:
    network = t7nn.to_torch(lua_compat.load(golden / "modules" / "gModule.t7")["module"])
    with pytest.raises(ValueError, match="gModule: expected a table of 2 inputs, found 1"):
        network([torch.zeros(2, 5)])
    with pytest.raises(ValueError, match="gModule: expected a table of 2 inputs, found Tensor"):
        network(torch.zeros(2, 5))


@pytest.mark.parametrize("name", ["gModule", "gModule_lstm_cell"])
def test_the_written_graph_is_as_nngraph_builds_it(golden: Path, name: str) -> None:
    source = lua_compat.load(golden / "modules" / f"{name}.t7")["module"]
    written = t7nn.from_torch(t7nn.to_torch(source))
    assert summary(written) == summary(source)


def summary(graph: TorchObject) -> dict[str, Any]:
    """What nngraph's own code reads of a gModule: nodes in their order, each with its fields, sources and children."""
    forward, backward = graph["forwardnodes"].to_list(), graph["backwardnodes"].to_list()
    position = {id(node["data"]): i for i, node in enumerate(forward)}

    def node_summary(node: TorchObject) -> tuple[Any, ...]:
        data, children = node["data"], node["children"].to_list()
        mapindex = [position[id(source)] for source in data["mapindex"].to_list()]
        assert [data["mapindex"][source] for source in data["mapindex"].to_list()] == [*range(1, len(mapindex) + 1)]
        assert [node["children"][child] for child in children] == [*range(1, len(children) + 1)]
        consumers = sorted(position[id(consumer["data"])] for consumer in data["reverseMap"])
        kind = data["module"].typename if "module" in data else None
        numbers = (data.get("selectindex"), data.get("nSplitOutputs"))  # forwardNodeId is any number, for printing
        labels = dict(data["annotations"].items())
        return kind, *numbers, labels, mapindex, sorted(position[id(c["data"])] for c in children), consumers

    return {
        "forward": [node_summary(node) for node in forward],
        "backward": {position[id(node["data"])]: node_summary(node)[-2] for node in backward},
        "innode": position[id(graph["innode"]["data"])],
        "outnode": position[id(graph["outnode"]["data"])],
        "edges": [len(graph[name]["edges"].to_list()) for name in ("fg", "bg")],
        "nodes": [len(graph[name]["nodes"].to_list()) for name in ("fg", "bg")],
        "nInputs": graph["nInputs"],
    }


def test_a_graph_without_forwardnodes_is_ordered_from_its_end(golden: Path) -> None:
    case = lua_compat.load(golden / "modules" / "gModule.t7")
    old = TorchObject("nn.gModule", {k: v for k, v in case["module"].items() if k not in ("forwardnodes", "nInputs")})
    outputs = t7nn.to_torch(old).eval()([torch.from_numpy(np.array(x)) for x in case["input"].to_list()])
    for ours, theirs in zip(outputs, case["evaluateOutput"].to_list(), strict=True):
        torch.testing.assert_close(ours.detach(), torch.from_numpy(np.array(theirs)), rtol=1e-5, atol=1e-6)


def test_a_graph_whose_nodes_are_out_of_order_is_refused(golden: Path) -> None:
    graph = lua_compat.load(golden / "modules" / "gModule.t7")["module"]
    graph["forwardnodes"] = LuaTable(graph["forwardnodes"].to_list()[::-1])
    with pytest.raises(ModuleError, match=r"nn\.gModule at the root: node 1 of forwardnodes .* runs later"):
        t7nn.to_torch(graph)


def test_graphs_and_containers_of_any_depth(shared: Path) -> None:
    """400 nodes in a chain, 300 Sequentials in one another: read and written without recursion."""
    for name, n_modules in (("gmodule_chain400", 403), ("nested_seq300", 301)):
        network = t7nn.load(shared / "golden" / "format_more" / f"{name}.t7")
        assert len(list(network.modules())) == n_modules
        assert len(list(written_and_read(network).modules())) == n_modules


def test_a_module_that_contains_itself_is_refused() -> None:
    loop = TorchObject("nn.Sequential", {"modules": LuaTable()})
    loop["modules"][1] = loop
    with pytest.raises(ModuleError, match=r"this module contains itself"):
        t7nn.to_torch(loop)


SAMPLES = [
    "Cadene+AS_Exam/model.t7",
    "JerryTom121+SleepStaging/deepnet/models/binart8",
    "JerryTom121+SleepStaging/deepnet/models/binart@51e3a3e7",
    "JerryTom121+SleepStaging/deepnet/models/spectral",
    "JerryTom121+SleepStaging/neural_net/models/minet",
    "arthur-leguennec+classifTimeSeries/test@cec398bd.t7",
    "bshillingford+python-torchfile/testfiles_x86_64/gmodule_with_linear_identity.t7",
    "lifrordi+DeepStack-Leduc/Data/Models/PotBet/final_gpu.model",
    "soumith+cudnn.torch/test/modelTemp.t7",
    "torch+demos/face-detector/model.net",
    "torch+demos/face-detector-new/face@99f7dde3.net",
    "torch+demos/road-net/u1net.net",
]


@pytest.mark.parametrize("name", SAMPLES)
def test_networks_found_in_the_wild_answer_as_torch7(shared: Path, name: str) -> None:
    """As loaded, and written back and loaded again."""
    path = shared / "t7_samples" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    x, expected = (tensors(lua_compat.load(f"{path}.{part}.t7")) for part in ("input", "output"))
    network = t7nn.load(path)
    for each in (network, written_and_read(network)):
        with torch.no_grad():
            same(each.eval()(x), expected)


def tensors(value: Any) -> Any:
    if isinstance(value, LuaTable):
        return [tensors(entry) for entry in value.to_list()]
    return torch.from_numpy(np.array(value))


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))
