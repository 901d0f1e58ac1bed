"""python -m cache_tools inspect FILE: what a .t7 file holds.

Networks are printed as Torch7 prints them, then everything as a tree: types, sizes, which tensors share a
storage. The file is mapped into memory, so a large one opens at once. Nothing in it is executed.
"""

import argparse
import json
import math
import sys
from typing import Any

from rich.text import Text
from rich.tree import Tree

from cache_tools.console import add_quiet, positive, table_console, whole
from cache_tools.value_tree import Inventory, Node, build_tree, take_inventory
from lua_compat import LuaValue, TorchObject
from lua_compat.module_text import module_text
from lua_compat.t7_file import Reading, Wanted, read_file

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools inspect model_55.t7
  python -m cache_tools inspect cache/trainCache.t7 --depth 2 --stats
  python -m cache_tools inspect old.t7 --json | jq .objects[0].summary
  python -m cache_tools inspect old.t7 --quiet && echo it can be read

exit codes: 0 done, 1 the file cannot be read, or not to its end, 2 wrong usage, 130 stopped by Ctrl-C
"""

DEEPEST = 100  # the tree is built and drawn by recursion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file that torch.save wrote")
    parser.add_argument(
        "--depth", type=whole(0, DEEPEST), default=4, metavar="N", help="levels shown, up to 100 (default: 4)"
    )
    parser.add_argument(
        "--entries", type=positive, default=40, metavar="N", help="entries of a table shown (default: 40)"
    )
    parser.add_argument("--stats", action="store_true", help="smallest, largest and mean element of each tensor")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--mode", choices=("binary", "ascii"), help="do not guess the encoding")
    parser.add_argument("--long-size", type=int, choices=(4, 8), help="do not guess the size of a long")
    parser.add_argument("--byte-order", choices=("little", "big"), help="do not guess the byte order")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the contents of `arguments.file`; 1 where it goes on with something that cannot be read, or breaks off."""
    wanted = Wanted(arguments.mode, arguments.long_size, arguments.byte_order, started=not arguments.quiet)
    reading = read_file(arguments.file, wanted, maps=True)
    if arguments.quiet:
        if reading.problem is not None:
            print(reading.problem, file=sys.stderr)
        return 0 if reading.problem is None else 1
    values = reading.values + reading.started
    inventories = [take_inventory(value) for value in values]
    trees = [
        build_tree(value, inventory, arguments.depth, arguments.entries, arguments.stats)
        for value, inventory in zip(values, inventories, strict=True)
    ]
    if arguments.json:
        print(json.dumps(json_report(arguments.file, reading, inventories, trees), indent=1))
    else:
        print_report(arguments.file, reading, inventories, trees)
    return 0 if reading.problem is None else 1


def json_report(name: str, reading: Reading, inventories: list[Inventory], trees: list[Node]) -> dict[str, Any]:
    """The whole report as JSON has it. Numbers that JSON lacks (inf, nan) are strings."""
    layout = reading.layout
    objects = [
        {"summary": summary(inventory), "tree": json_node(tree)}
        for inventory, tree in zip(inventories, trees, strict=True)
    ]
    return {
        "file": name,
        "mode": layout.mode,
        "long_size": layout.long_size,
        "byte_order": layout.byte_order,
        "problem": None if reading.problem is None else str(reading.problem),
        "breaks_off": bool(reading.started),  # within the last of the objects
        "objects": objects,
    }


def json_node(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {"key": node.key, "type": node.kind}
    for name, detail in node.details.items():
        is_lacking = isinstance(detail, float) and not math.isfinite(detail)
        shown[name] = str(detail) if is_lacking else detail
    if node.children:
        shown["children"] = [json_node(child) for child in node.children]
    if node.left_out:
        shown["left_out"] = node.left_out
    return shown


def summary(inventory: Inventory) -> dict[str, Any]:
    return {
        "classes": dict(inventory.classes.most_common()),
        "tables": inventory.tables,
        "functions": inventory.functions,
        "storages": len(inventory.storage_numbers),
        "storage_bytes": inventory.storage_bytes,
    }


def print_report(name: str, reading: Reading, inventories: list[Inventory], trees: list[Node]) -> None:
    """For people: a line on the file, then each object."""
    console = table_console()
    count = len(reading.values)
    unfinished = " and the beginning of one" if reading.started else ""
    console.print(f"{name}: {reading.layout}, {count} object{'s' * (count != 1)}{unfinished}", style="bold")
    for number, (inventory, tree) in enumerate(zip(inventories, trees, strict=True)):
        if number < count and is_network(reading.values[number]):
            console.print(module_text(reading.values[number]), soft_wrap=True)
        console.print(drawn(tree), no_wrap=True)
        console.print(summary_line(inventory))
    if reading.problem is not None:
        console.print(f"what follows cannot be read: {reading.problem}", style="red", soft_wrap=True)


def is_network(value: LuaValue) -> bool:
    return isinstance(value, TorchObject) and value.typename.split(".")[0] in ("nn", "cudnn", "inn", "nngraph")


def drawn(node: Node) -> Tree:
    tree = Tree(line(node), guide_style="dim")
    for child in node.children:
        tree.children.append(drawn(child))
    if node.left_out:
        tree.add(Text(f"... {node.left_out} more", style="dim"))
    return tree


def line(node: Node) -> Text:
    """One value on one line."""
    text = Text(node.key.removeprefix(".") + (" " if node.key else ""), style="cyan")
    details = node.details
    if "value" in details and node.kind in ("number", "boolean", "string"):
        shown = repr(details["value"]) if node.kind == "string" else lua_text(details["value"])
        return text.append(shown, style="default")
    text.append(node.kind, style="green")
    if "shape" in details:
        text.append(" " + ("x".join(map(str, details["shape"])) or "empty"), style="default")
    for name, shown in described(details):
        text.append(f", {name} {shown}" if name else f", {shown}", style="dim")
    return text


def described(details: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of the details that a line shows after the type."""
    shown = []
    if "entries" in details:
        shown.append(("", plural(details["entries"], "entry", "entries")))
    if "storage" in details:
        users = details["storage_users"]
        sharing = f" of {users}" if users > 1 else ""
        shown.append(("storage", f"#{details['storage']}{sharing}, {readable_size(details['storage_bytes'])}"))
    for name in ("strides", "version", "bytes", "value", "min", "max", "mean"):
        if name in details:
            shown.append((name, str(details[name])))
    if "same_as" in details:
        shown.append(("same as", details["same_as"]))
    return shown


def lua_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.14g}"


def summary_line(inventory: Inventory) -> str:
    """What the object holds, in one line."""
    parts = [f"{count} {name}" for name, count in inventory.classes.most_common(6)]
    parts += [f"... {len(inventory.classes) - 6} more classes"] if len(inventory.classes) > 6 else []
    parts += [plural(inventory.tables, "table", "tables")] if inventory.tables else []
    parts += [plural(inventory.functions, "function", "functions")] if inventory.functions else []
    if inventory.storage_numbers:
        size = readable_size(inventory.storage_bytes)
        parts.append(f"{plural(len(inventory.storage_numbers), 'storage', 'storages')} of {size} together")
    return ", ".join(parts)


def plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def readable_size(count: int) -> str:
    """Bytes as B, kB, MB, GB (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
