"""nn.gModule of nngraph: a network as a graph of modules (nngraph/gmodule.lua)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register
from lua_compat.values import LuaTable, TorchObject

__all__ = ["GraphModule", "GraphNode"]


@dataclass(frozen=True)
class GraphNode:
    """One node: it takes the output of its source (or the list of its sources'), selects an entry or runs a module.

    A node that does neither hands on what it takes. Sources are earlier nodes; the graph's input node has none.
    """

    sources: tuple[int, ...] = ()
    has_module: bool = False
    select: int | None = None  # counted from 0
    n_split: int | None = None  # how many entries the nodes after it select
    annotations: Mapping[str, str] = field(default_factory=dict)


@register("nn.gModule", container=True)
class GraphModule(nn.Module):
    """Runs `nodes` in their order; `members` are the modules of those that have one, in the same order.

    `input_node` takes the input, a list where `n_inputs` is above 1; the result is the last node's.
    """

    def __init__(self, nodes: list[GraphNode], members: list[nn.Module], input_node: int, n_inputs: int):
        super().__init__()
        self.nodes = tuple(nodes)
        self.members = nn.ModuleList(members)
        self.input_node = input_node
        self.n_inputs = n_inputs
        self._steps = tuple(_steps(self.nodes, input_node))

    @classmethod
    def from_t7(cls, fields: Fields) -> GraphModule:
        contents = _node_contents(fields)
        nodes = _nodes(contents, fields)
        modules = [
            fields.read(content["module"], f"forwardnodes[{position}].data.module")
            for position, content in enumerate(contents, start=1)
            if content.get("module") is not None
        ]
        innode = _content(fields.value("innode"))
        input_node = next((i for i, content in enumerate(contents) if content is innode), None)
        if input_node is None:
            raise fields.error("field innode should be one of its forwardnodes")
        first = nodes[input_node + 1] if input_node + 1 < len(nodes) else GraphNode()
        return cls(nodes, modules, input_node, fields.integer("nInputs", default=first.n_split or 1))

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        modules = out.children(self.members)
        n_outputs = len(self.nodes[-1].sources)
        output = LuaTable() if n_outputs > 1 else None
        graphs = _WrittenGraph(self.nodes, modules.to_list(), self.input_node).fields()
        state = {"nInputs": self.n_inputs, "verbose": False, "output": output, "gradInput": None}
        return {"modules": modules, **graphs, **state}

    def forward(self, x: Any) -> Any:
        if self.n_inputs > 1 and (not isinstance(x, list | tuple) or len(x) != self.n_inputs):
            found = len(x) if isinstance(x, list | tuple) else type(x).__name__
            raise ValueError(f"gModule: expected a table of {self.n_inputs} inputs, found {found}")
        values: list[Any] = []
        members = iter(self.members)
        for only_source, sources, has_module, select, finished in self._steps:
            if only_source >= 0:
                value = values[only_source]
            else:
                value = [values[i] for i in sources] if only_source == _SEVERAL else x
            if has_module:
                value = next(members)(value)
            elif select is not None:
                value = value[select]
            values.append(value)
            for i in finished:
                values[i] = None  # as a variable that is not used again
        return value

    def extra_repr(self) -> str:
        return f"{len(self.nodes)} nodes, {self.n_inputs} inputs, {len(self.nodes[-1].sources)} outputs"


_SEVERAL, _INPUT = -1, -2
Step = tuple[int, tuple[int, ...], bool, int | None, tuple[int, ...]]


def _steps(nodes: tuple[GraphNode, ...], input_node: int) -> Iterator[Step]:
    """What `forward` does for each node, flat because 400 nodes are run one by one in Python.

    Its only source (or _SEVERAL, _INPUT), all its sources, whether it has a module, the entry it selects, and the
    nodes that nobody needs after it.
    """
    last_use = {source: position for position, node in enumerate(nodes) for source in node.sources}
    for position, node in enumerate(nodes):
        finished = tuple(i for i in dict.fromkeys(node.sources) if last_use[i] == position)
        source = node.sources[0] if len(node.sources) == 1 else _INPUT if position == input_node else _SEVERAL
        yield source, node.sources, node.has_module, node.select, finished


def _content(node: object) -> LuaTable | None:
    """The table `data` of a node: nodes are copied between graphs, but their data is one."""
    data = node.get("data") if isinstance(node, TorchObject) and isinstance(node.payload, LuaTable) else None
    return data if isinstance(data, LuaTable) else None


def _entries(table: object) -> list[Any]:
    """The entries 1..n of a table that has other keys as well."""
    return table.to_list() if isinstance(table, LuaTable) else []


def _node_contents(fields: Fields) -> list[LuaTable]:
    """The data of all nodes in the order in which they run; without forwardnodes (2013), found from the outnode."""
    contents = [_content(node) for node in _entries(fields.value("forwardnodes"))]
    found = [content for content in contents if content is not None]
    if len(found) != len(contents):
        raise fields.error("field forwardnodes should be a table of nodes with data")
    outnode = _content(fields.value("outnode"))
    if found or outnode is None:
        return found
    done: dict[int, LuaTable] = {}
    waiting = [outnode]
    while waiting:
        content = waiting[-1]
        missing = [source for source in _entries(content.get("mapindex")) if id(source) not in done]
        if not missing:
            done[id(content)] = waiting.pop()
        elif len(waiting) > 1_000_000:
            raise fields.error("its graph has a cycle")
        else:
            waiting.extend(reversed(missing))
    return list(done.values())


def _nodes(contents: list[LuaTable], fields: Fields) -> list[GraphNode]:
    position_of = {id(content): position for position, content in enumerate(contents)}
    nodes = []
    for position, content in enumerate(contents):
        sources = [position_of.get(id(source), position) for source in _entries(content.get("mapindex"))]
        if any(source >= position for source in sources):
            raise fields.error(f"node {position + 1} of forwardnodes takes its input from a node that runs later")
        nodes.append(_node(content, tuple(sources), fields))
    if not nodes:
        raise fields.error("it has no nodes: field forwardnodes is missing or empty")
    return nodes


def _node(content: LuaTable, sources: tuple[int, ...], fields: Fields) -> GraphNode:
    select, n_split, notes = (content.get(name) for name in ("selectindex", "nSplitOutputs", "annotations"))
    if not all(number is None or type(number) is int for number in (select, n_split)):
        raise fields.error(f"selectindex {select!r:.40} and nSplitOutputs {n_split!r:.40} should be whole numbers")
    texts = notes.items() if isinstance(notes, LuaTable) else ()
    return GraphNode(
        sources,
        has_module=content.get("module") is not None,
        select=None if select is None else select - 1,
        n_split=n_split,
        annotations={str(name): text for name, text in texts if isinstance(text, str)},
    )


class _WrittenGraph:
    """The objects of Torch7's graph package: `fg` runs forward, `bg` is the same with its edges turned round."""

    def __init__(self, nodes: tuple[GraphNode, ...], modules: list[Any], input_node: int):
        self._nodes = nodes
        self._input_node = input_node
        self._contents = self._make_contents(modules)
        consumers: list[list[int]] = [[] for _ in nodes]
        for position, node in enumerate(nodes):
            for source in node.sources:
                consumers[source].append(position)
        self._forward = self._make_nodes(consumers)
        self._backward = self._make_nodes([list(node.sources) for node in nodes])
        for position, node in enumerate(nodes):
            for source in node.sources:
                self._contents[source]["reverseMap"][self._backward[position]] = True

    def fields(self) -> dict[str, object]:
        return {
            "fg": _graph(self._forward),
            "bg": _graph(self._backward[::-1]),
            "forwardnodes": LuaTable(self._forward),
            "backwardnodes": LuaTable(self._backward[::-1]),
            "innode": self._forward[self._input_node],
            "outnode": self._backward[-1],
        }

    def _make_contents(self, modules: list[Any]) -> list[LuaTable]:
        remaining = iter(modules)
        contents: list[LuaTable] = []
        for position, node in enumerate(self._nodes):
            content = LuaTable({"annotations": LuaTable(node.annotations), "reverseMap": LuaTable()})
            content["mapindex"] = _with_positions([contents[source] for source in node.sources])
            content["forwardNodeId"] = position + 1
            if node.has_module:
                content["module"] = next(remaining)
            else:
                content["input"] = LuaTable()
            if node.select is not None:
                content["selectindex"] = node.select + 1
            if node.n_split is not None:
                content["nSplitOutputs"] = node.n_split
            contents.append(content)
        return contents

    def _make_nodes(self, children: list[list[int]]) -> list[TorchObject]:
        made = [
            TorchObject("nngraph.Node", {"data": content, "id": position, "visited": False, "marked": False})
            for position, content in enumerate(self._contents, start=1)
        ]
        for node, positions in zip(made, children, strict=True):
            node["children"] = _with_positions([made[position] for position in positions])
        return made


def _with_positions(entries: list[Any]) -> LuaTable:
    """{a, b, [a] = 1, [b] = 2}, as the graph package keeps its lists."""
    table = LuaTable(entries)
    for position, entry in enumerate(entries, start=1):
        table[entry] = position
    return table


def _graph(nodes: list[TorchObject]) -> TorchObject:
    edges = [
        TorchObject("graph.Edge", {"from": node, "to": child}) for node in nodes for child in _entries(node["children"])
    ]
    return TorchObject("graph.Graph", {"nodes": _with_positions(nodes), "edges": _with_positions(edges)})
