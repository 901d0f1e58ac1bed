"""summary: what a network costs, layer by layer, and what binary weights and inputs save.

Multiply-adds are those of one picture. XNOR ones have both factors binary, additions only the weight. The speed-up S of
a layer is the paper's 64 c N_W / (c N_W + 64), of a network what these leave of its multiply-adds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table

from cache_tools.console import add_quiet, table_console
from cache_tools.network_input import input_size
from cache_tools.network_profile import LayerProfile, profile_network
from cache_tools.network_source import add_weight_options, counts_as_binary, newest_model, open_network
from cache_tools.speed_measurement import Measurement, measure
from xnornet_port.errors import XnorNetError

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """examples:
  python -m cache_tools summary alexnetxnor                 # a -netType, with 1000 classes
  python -m cache_tools summary alexnet --binary-weight     # the Binary-Weight-Network
  python -m cache_tools summary model_55.t7 --measure       # beside the paper's speed-up this machine's
  python -m cache_tools summary model.xnor.safetensors      # a packed network, as its file has it
  python -m cache_tools summary model_55.t7 --json > model.json

exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 130 stopped by Ctrl-C
"""

XNOR, ADDITIONS, FLOAT = "xnor", "binary weights", "float"
EXPENDABLE = ("float", "S paper", "packed", "output")
"""Columns, by how well a narrow terminal can do without them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a .t7 file, a packed file, a run's folder (its newest), or a -netType"
    )
    parser.add_argument("--classes", type=int, default=1000, metavar="N", help="of a -netType (default 1000)")
    parser.add_argument(
        "--size",
        type=input_size,
        metavar="SIZE",
        help="of a picture: N, its side, or C,H,W as 1,32,32 (default: 224, or what the network takes)",
    )
    parser.add_argument("--measure", action="store_true", help="time each XNOR layer here, packed and as float")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at a time in --measure (default 1)")
    parser.add_argument("--json", action="store_true", help="write JSON")
    add_weight_options(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or JSON. Raises XnorNetError, which the caller prints."""
    if arguments.classes < 1 or arguments.batch < 1:
        raise XnorNetError("--classes and --batch are numbers from 1 on")
    arguments.model = newest_model(arguments.model)
    network = open_network(arguments.model, arguments.classes)
    layers = profile_network(network, counts_as_binary(network, arguments), arguments.size)
    measured: dict[str, Measurement] = {}
    if arguments.measure:
        measured = {layer.name: measure(layer, arguments.batch) for layer in layers if layer.weights == XNOR}
    if arguments.json:
        print(json.dumps(as_json(arguments.model, layers, measured), indent=1))
        return 0
    if arguments.quiet:
        return 0
    console = table_console()
    left_out = columns_to_leave_out(console, arguments.model, layers, measured)
    console.print(as_table(arguments.model, layers, measured, left_out))
    if left_out:
        console.print(f"left out, for the terminal is {console.width} wide: {', '.join(left_out)}", style="dim")
    for line in total_lines(layers, measured, arguments.batch):
        console.print(line, soft_wrap=True)
    return 0


def totals(layers: Sequence[LayerProfile], measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Sums over all layers; what does not apply is None."""
    binary = [layer for layer in layers if layer.weights != FLOAT]
    work = {kind: sum(layer.multiply_adds for layer in layers if layer.weights == kind)
            for kind in (XNOR, ADDITIONS, FLOAT)}  # fmt: skip
    everything = sum(work.values())
    left = sum(layer.multiply_adds / (layer.speedup or 1.0) for layer in layers)
    weights_float = 4 * sum(layer.binary_parameters for layer in binary)
    weights_packed = weights_float - sum(layer.float_bytes - layer.packed_bytes for layer in binary)
    float_seconds = sum(measurement.float_seconds for measurement in measured.values())
    xnor_seconds = sum(measurement.xnor_seconds for measurement in measured.values())
    return {
        "binary_parameters": sum(layer.binary_parameters for layer in layers),
        "float_parameters": sum(layer.float_parameters for layer in layers),
        "statistics": sum(layer.statistics for layer in layers),
        "float_bytes": sum(layer.float_bytes for layer in layers),
        "packed_bytes": sum(layer.packed_bytes for layer in layers),
        "binary_weights_float_bytes": weights_float,
        "binary_weights_packed_bytes": weights_packed,
        "binary_weights_saving": weights_float / weights_packed if weights_packed else None,
        "multiply_adds": work,
        "theoretical_speedup": everything / left if work[XNOR] else None,
        "measured_speedup": float_seconds / xnor_seconds if measured else None,
    }


def as_json(name: str, layers: Sequence[LayerProfile], measured: Mapping[str, Measurement]) -> dict[str, Any]:
    rows = []
    for layer in layers:
        row = asdict(layer) | {"theoretical_speedup": layer.speedup}
        if layer.name in measured:
            row["measured"] = measured[layer.name]._asdict() | {"speedup": measured[layer.name].speedup}
        rows.append(row)
    return {"model": name, "layers": rows, "totals": totals(layers, measured)}


def columns_to_leave_out(
    console: Console, name: str, layers: Sequence[LayerProfile], measured: Mapping[str, Measurement]
) -> tuple[str, ...]:
    """As few as let the table fit into the terminal."""
    for number in range(len(EXPENDABLE) + 1):
        table = as_table(name, layers, measured, EXPENDABLE[:number])
        if Width.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            return EXPENDABLE[:number]
    return EXPENDABLE


def as_table(
    name: str, layers: Sequence[LayerProfile], measured: Mapping[str, Measurement], left_out: Sequence[str] = ()
) -> Table:
    """Columns that would be empty are left out, too."""
    kinds = {layer.weights for layer in layers}
    columns = ["layer", "output", "1-bit", "32-bit", "float", "packed"]
    columns += ["XNOR"] * (XNOR in kinds) + ["additions"] * (ADDITIONS in kinds) + ["float ops"]
    columns += ["S paper"] * (XNOR in kinds) + ["measured"] * bool(measured)
    shown = [place for place, column in enumerate(columns) if column not in left_out]
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place in shown:
        table.add_column(columns[place], justify="left" if place == 0 else "right", overflow="fold")
    for layer in layers:
        cells = _cells(layer, kinds, measured)
        table.add_row(*(cells[place] for place in shown), style="bold" if layer.weights != FLOAT else None)
    return table


def _cells(layer: LayerProfile, kinds: set[str], measured: Mapping[str, Measurement]) -> list[str]:
    cells = [
        f"{layer.name} {layer.kind.rsplit('.')[-1]}",
        "x".join(map(str, layer.output_shape)),
        count(layer.binary_parameters),
        count(layer.float_parameters),
        size(layer.float_bytes),
        size(layer.packed_bytes),
    ]
    shown = [kind for kind in (XNOR, ADDITIONS) if kind in kinds]
    cells += [count(layer.multiply_adds) if layer.weights == kind else "" for kind in (*shown, FLOAT)]
    if XNOR in kinds:
        cells.append("" if layer.speedup is None else f"{layer.speedup:.2f}")
    if measured:
        cells.append(f"{measured[layer.name].speedup:.1f}" if layer.name in measured else "")
    return cells


def total_lines(layers: Sequence[LayerProfile], measured: Mapping[str, Measurement], batch: int) -> Iterator[str]:
    """The sums in words."""
    sums = totals(layers, measured)
    binary, real, smaller = sums["binary_parameters"], sums["float_parameters"], sums["packed_bytes"]
    of_bits = f", of them {binary:,} of 1 bit and {real:,} of 32" if binary else ""
    yield f"parameters: {binary + real:,}{of_bits}; {sums['statistics']:,} running means and variances"
    packed = f", {size(smaller)} packed: {sums['float_bytes'] / smaller:.1f} times smaller" if binary else ""
    yield f"memory: {size(sums['float_bytes'])} as float32{packed}"
    if binary:
        yield (
            f"binary weights: {size(sums['binary_weights_float_bytes'])} as float32, "
            f"{size(sums['binary_weights_packed_bytes'])} packed: {sums['binary_weights_saving']:.1f} times smaller "
            "(the paper's 32 is of the bits alone; a factor per filter and words that are not full cost the rest)"
        )
    work = sums["multiply_adds"]
    everything = sum(work.values())
    names = ((XNOR, "XNOR"), (ADDITIONS, "additions"), (FLOAT, "float"))
    shares = "".join(f", {work[kind] / everything:.1%} {name}" for kind, name in names if work[kind])
    yield f"multiply-adds of a picture: {everything:,}{shares}"
    if sums["theoretical_speedup"] is not None:
        yield f"the paper's speed-up of the whole network, float layers as they are: {sums['theoretical_speedup']:.1f}"
    if sums["measured_speedup"] is not None:
        yield f"measured here, its XNOR layers together, {batch} at a time: {sums['measured_speedup']:.1f}"


def count(number: int) -> str:
    """0 is left out; else as 614 k, 37.7 M, 1.14 G."""
    return "" if number == 0 else _scaled(number, ("", " k", " M", " G", " T"))


def size(n_bytes: int) -> str:
    """Bytes in powers of 1000."""
    return "" if n_bytes == 0 else _scaled(n_bytes, (" B", " kB", " MB", " GB", " TB"))


def _scaled(number: float, units: Sequence[str]) -> str:
    place = 0
    while number >= 999.5 and place < len(units) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.0f}{units[0]}" if place == 0 else f"{number:.3g}{units[place]}"
