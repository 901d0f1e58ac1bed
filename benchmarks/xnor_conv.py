"""XNOR convolutions beside what else computes them exactly, or computes float ones, on this processor.

    python benchmarks/xnor_conv.py --output benchmarks/results/xnor_conv.md
    python benchmarks/xnor_conv.py --layers conv3,fc6 --batches 1 --threads 1 --peers float --seconds 2

Within a round every contender of a layer has its turn of some milliseconds, in an order that alternates, so that a
busy machine slows all alike. Times are wall-clock medians over the rounds, spread is (90th - 10th percentile) / median.
Ours is all of the work: float in, signs, packing, product, scale, float out; so is that of the peers. Weights are
prepared beforehand.
Exactness is checked first. onnxruntime takes part where it is installed, Larq Compute Engine with --larq-python
(larq_contender.py says how to install it).
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from larq_contender import LarqProcess, larq_process, turn

from xnornet_port.kernels import pack_weights, xnor_conv2d
from xnornet_port.kernels.cpu import CpuBackend, available_paths

ROOT = Path(__file__).resolve().parent.parent
Contender = Callable[[], Any]
Turn = Callable[[float], list[float]]  # the seconds it may take -> those of each call


class Layer(NamedTuple):
    """A convolution of a network."""

    inputs: int
    filters: int
    kernel: int
    padding: int
    size: int
    wanted: dict[int, float]  # ratio to the fastest torch float32 that issue 5 asks for, one thread, by batch

    @property
    def out_size(self) -> int:
        return self.size + 2 * self.padding - self.kernel + 1

    @property
    def products(self) -> int:
        return self.inputs * self.filters * self.kernel**2 * self.out_size**2

    @property
    def words(self) -> int:
        return -(-self.inputs * self.kernel**2 // 64)


FOUR, RESNET = {1: 12.0, 32: 10.0}, {1: 11.0, 32: 9.0}
LAYERS = {
    "conv2": Layer(96, 256, 5, 2, 27, FOUR),
    "conv3": Layer(256, 384, 3, 1, 13, FOUR),
    "conv4": Layer(384, 384, 3, 1, 13, FOUR),
    "conv5": Layer(384, 256, 3, 1, 13, FOUR),
    "fc6": Layer(256, 4096, 6, 0, 6, {}),
    "fc7": Layer(4096, 4096, 1, 0, 1, {}),
    "64@56": Layer(64, 64, 3, 1, 56, {1: 5.5, 32: 5.5}),
    "128@28": Layer(128, 128, 3, 1, 28, RESNET),
    "256@14": Layer(256, 256, 3, 1, 14, RESNET),
    "512@7": Layer(512, 512, 3, 1, 7, RESNET),
}
TURN = 0.02  # seconds that a contender has in a round
LIMIT, TILE, ONE_THREAD = "popcount limit", "tile alone", "xnor on one thread"  # for lines of their own
FULLY_CONNECTED = ("fc6", "fc7")
FULLY_CONNECTED_WANTED = {1: 45.0, 32: 20.0}


class Row(NamedTuple):
    """One layer, batch and number of threads: contender -> (median seconds, spread)."""

    layer: str
    batch: int
    threads: int
    times: dict[str, tuple[float, float]]

    @property
    def ours(self) -> float:
        return self.times["xnor"][0]

    @property
    def fastest_float(self) -> float:
        return min(seconds for name, (seconds, _) in self.times.items() if name.startswith("float32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--peers", default="float,bf16,int8,onnx")
    parser.add_argument("--larq-python", type=Path, help="an interpreter that has Larq Compute Engine")
    parser.add_argument("--seconds", type=float, default=4.0, help="per layer, batch and number of threads")
    parser.add_argument("--instructions", default=None, help="code path of ours; the best by itself")
    parser.add_argument("--no-avx2", action="store_true", help="leave out the table of both forced to AVX2")
    parser.add_argument("--json", action="store_true", help="only the times, as JSON (used for the AVX2 table)")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    with larq_process(arguments.larq_python) as larq, limit_library() as library:
        rows = list(measure(arguments, larq, library))
    if arguments.json:
        print(json.dumps(rows))
        return
    forced = [] if arguments.no_avx2 or "avx2" not in available_paths() else measure_avx2(arguments)
    text = page(arguments, rows, forced)
    print(text) if arguments.output is None else arguments.output.write_text(text, encoding="utf-8")


def measure(arguments: argparse.Namespace, larq: LarqProcess | None, library: ctypes.CDLL | None) -> Iterator[Row]:
    for name in arguments.layers.split(","):
        for batch in map(int, arguments.batches.split(",")):
            for threads in map(int, arguments.threads.split(",")):
                torch.set_num_threads(threads)
                turns = make_turns(name, batch, threads, arguments, larq, library)
                row = Row(name, batch, threads, run_rounds(turns, arguments.seconds))
                if not arguments.json:
                    ratio = f"{row.fastest_float / row.ours:.2f}"
                    print(f"{name} batch {batch} threads {threads}: ratio {ratio}", file=sys.stderr)
                yield row


def measure_avx2(arguments: argparse.Namespace) -> list[Row]:
    """The same with torch and our kernel held to AVX2, in a process of its own, one thread."""
    command = [sys.executable, __file__, "--json", "--peers", "float", "--threads", "1", "--instructions", "avx2"]
    command += ["--layers", arguments.layers, "--batches", arguments.batches, "--seconds", str(arguments.seconds / 2)]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [Row(layer, batch, threads, {k: tuple(v) for k, v in times.items()})
            for layer, batch, threads, times in json.loads(done.stdout)]  # fmt: skip


def run_rounds(turns: dict[str, Turn], seconds: float) -> dict[str, tuple[float, float]]:
    times: dict[str, list[float]] = {name: [] for name in turns}
    names, n_rounds, end = list(turns), 0, time.perf_counter() + seconds
    while time.perf_counter() < end or n_rounds < 3:
        for name in names:
            times[name] += turns[name](TURN)
        names.reverse()
        n_rounds += 1
    return {name: (statistics.median(times[name]), spread(times[name])) for name in turns}


def spread(times: list[float]) -> float:
    deciles = statistics.quantiles(times, n=10)
    return (deciles[-1] - deciles[0]) / statistics.median(times)


def make_turns(
    name: str,
    batch: int,
    threads: int,
    arguments: argparse.Namespace,
    larq: LarqProcess | None,
    library: ctypes.CDLL | None,
) -> dict[str, Turn]:
    layer, peers = LAYERS[name], arguments.peers.split(",")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, layer.inputs, layer.size, layer.size, generator=generator)
    weight = torch.randn(layer.filters, layer.inputs, layer.kernel, layer.kernel, generator=generator)
    x[x == 0], weight[weight == 0] = 1, 1  # the rule; a normal generator gives an exact 0 in some ten million
    backend = CpuBackend(arguments.instructions or available_paths()[0])
    packed = pack_weights(weight)
    contenders: dict[str, Contender] = {"xnor": lambda: xnor_conv2d(x, packed, 1, layer.padding, backend=backend)}
    exact = functional.conv2d(x.sign(), weight.sign(), None, 1, layer.padding) * packed.alpha.view(-1, 1, 1)
    assert torch.equal(contenders["xnor"](), exact), name
    if "float" in peers:
        contenders |= torch_float(name, x, weight)
    if "bf16" in peers:
        contenders["bfloat16"] = torch_bfloat16(x, weight, layer.padding)
    if "int8" in peers:
        contenders["int8"] = torch_int8(x, weight, packed.alpha, layer.padding)
        assert torch.equal(contenders["int8"](), exact), name
    if "onnx" in peers:
        contenders |= onnxruntime_float(x, weight, layer.padding, threads)
    if threads > 1:
        contenders[ONE_THREAD] = on_one_thread(contenders["xnor"])
    if library is not None and threads == 1:
        contenders |= limits(library, backend.instructions, layer.words, layer.products * batch)
    turns: dict[str, Turn] = {label: partial(turn, contender) for label, contender in contenders.items()}
    if larq is not None:
        turns |= larq_signs(larq, x, packed.alpha.view(-1, 1, 1, 1) * weight.sign(), layer.padding, threads)
    return turns


def on_one_thread(call: Contender) -> Contender:
    def run() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        call()
        torch.set_num_threads(threads)

    return run


def torch_float(name: str, x: torch.Tensor, weight: torch.Tensor) -> dict[str, Contender]:
    padding = LAYERS[name].padding
    if name in FULLY_CONNECTED:
        rows, matrix = x.flatten(1), weight.flatten(1)
        reordered = torch.ops.mkldnn._reorder_linear_weight(matrix, len(rows))
        linear = torch.ops.mkldnn._linear_pointwise
        return {
            "float32 F.linear": lambda: functional.linear(rows, matrix),
            "float32 prepacked": lambda: linear(rows, reordered, None, "none", [], ""),
        }
    last = torch.channels_last
    x_last, weight_last = x.to(memory_format=last), weight.to(memory_format=last)
    places = ([padding] * 2, [1, 1], [1, 1])
    reordered = torch.ops.mkldnn._reorder_convolution_weight(weight, *places, 1, list(x.shape))
    convolution = torch.ops.mkldnn._convolution_pointwise
    return {
        "float32 contiguous": lambda: functional.conv2d(x, weight, None, 1, padding),
        "float32 channels_last": lambda: functional.conv2d(x_last, weight_last, None, 1, padding),
        "float32 prepacked": lambda: convolution(x, reordered, None, *places, 1, "none", [], ""),
        "float32 prepacked, channels_last": lambda: convolution(x_last, reordered, None, *places, 1, "none", [], ""),
    }


def torch_bfloat16(x: torch.Tensor, weight: torch.Tensor, padding: int) -> Contender:
    half = weight.bfloat16().to(memory_format=torch.channels_last)
    return lambda: functional.conv2d(x.to(torch.bfloat16), half, None, 1, padding).float()


def torch_int8(x: torch.Tensor, weight: torch.Tensor, alpha: torch.Tensor, padding: int) -> Contender:
    """Signs as bytes 0, 1, 2 about a zero point of 1, by oneDNN's int8 convolution: exact, from float to float."""
    places = ([1, 1], [padding] * 2, [1, 1])
    signs = weight.sign().to(torch.int8)
    packed = torch.ops.onednn.qconv_prepack(signs, alpha, 1.0, 1, *places, 1, list(x.shape))
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    convolution = torch.ops.onednn.qconv2d_pointwise

    def run() -> torch.Tensor:
        quantized = torch.sign(x).add_(1).to(torch.uint8, memory_format=torch.channels_last)
        output = (1.0, 0, torch.float32, "none", [], "")
        return convolution(quantized, 1.0, 1, packed, alpha, zeros, None, *places, 1, *output)  # type: ignore[no-any-return]

    return run


def onnxruntime_float(x: torch.Tensor, weight: torch.Tensor, padding: int, threads: int) -> dict[str, Contender]:
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError:
        return {}
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[padding] * 4)
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", float32, list(x.shape))],
        [helper.make_tensor_value_info("y", float32, None)], [onnx.numpy_helper.from_array(weight.numpy(), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else it spins on while others run
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    array = {"x": x.numpy()}
    return {"onnxruntime": lambda: session.run(None, array)}


def larq_signs(larq: LarqProcess, x: torch.Tensor, weight: torch.Tensor, padding: int, threads: int) -> dict[str, Turn]:
    """Its layout is NHWC. Its result is alpha * K - 2 * alpha * count, rounded twice: checked is the integer."""
    kernel, result = larq.load(x.permute(0, 2, 3, 1).numpy(), weight.permute(2, 3, 1, 0).numpy(), padding, threads)
    dots = functional.conv2d(x.sign(), weight.sign(), None, 1, padding)
    alpha = weight[:, 0, 0, 0].abs().view(-1, 1, 1)
    assert torch.allclose(torch.from_numpy(result).permute(0, 3, 1, 2) / alpha, dots, rtol=0, atol=0.02), kernel
    return {f"larq {kernel}": larq.turn}


@contextmanager
def limit_library() -> Iterator[ctypes.CDLL | None]:
    """xnor_limit.c, or None where there is no gcc."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "xnor_limit.so"
        command = ["gcc", "-std=c11", "-O3", "-ffp-contract=off", "-shared", "-fPIC", "-pthread",
                   str(ROOT / "benchmarks/xnor_limit.c"), "-o", str(library), "-lm"]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield None
        else:
            yield ctypes.CDLL(str(library))


def limits(library: ctypes.CDLL, path: str, words: int, products: int) -> dict[str, Contender]:
    """As many products of bits by the instructions alone, and by the inner kernel alone; empty for other paths."""
    name, n_words, n = path.encode(), ctypes.c_int64(words), ctypes.c_int64(products)
    if not library.xnor_limit(name, ctypes.c_int64(0)):
        return {}
    return {LIMIT: lambda: library.xnor_limit(name, n), TILE: lambda: library.xnor_tile(name, n_words, n)}


def page(arguments: argparse.Namespace, rows: list[Row], forced: list[Row]) -> str:
    path = arguments.instructions or available_paths()[0]
    parts = [
        "# XNOR convolutions beside torch and others",
        "",
        f"`python benchmarks/xnor_conv.py` on {processor()},",
        f"Python {platform.python_version()}, PyTorch {torch.__version__};",
        f"code path `{path}` of {', '.join(available_paths())}.",
        "Wall-clock medians in ms, spread (p90 - p10) / median in brackets; ratio = fastest torch float32 / ours, all",
        "from float to float. int8 is exact (oneDNN, signs as bytes).",
        *larq_words(rows),
        "",
        *table(rows, lambda row: LAYERS[row.layer].wanted.get(row.batch, 0) if row.threads == 1 else 0),
        "",
        *summary(rows),
    ]
    if forced:
        parts += ["", "## Both forced to AVX2, one thread (wanted: 5)", "", *table(forced, lambda _: 5)]
    limited = [row for row in rows if LIMIT in row.times]
    if limited:
        title = "## Share of the processor's popcount limit (wanted: 75 % where a filter has 36 words or more)"
        parts += ["", title, "", *shares(limited)]
    return "\n".join(parts) + "\n"


def larq_words(rows: list[Row]) -> list[str]:
    if not any(name.startswith("larq") for row in rows for name in row.times):
        return ["Larq Compute Engine was not measured here (--larq-python)."]
    return [
        "larq: Larq Compute Engine 0.16, NHWC, scales in its epilogue, by the fastest of its three kernels, which the",
        "column names, in a process of its own that times itself. Its assembly is for ARM: here all three are portable",
        "C++, popcounts of 32 bits; only the default one uses a second thread.",
    ]


def table(rows: list[Row], wanted_of: Callable[[Row], float]) -> list[str]:
    every = dict.fromkeys(name for row in rows for name in row.times)
    names = [name for name in every if name not in (LIMIT, TILE, ONE_THREAD)]
    lines = [f"| layer | batch | threads | {' | '.join(names)} | ratio | wanted |", "|---" * (len(names) + 5) + "|"]
    for row in rows:
        cells = [cell(row.times.get(name)) for name in names]
        wanted = wanted_of(row)
        ratio = f"{row.fastest_float / row.ours:.1f}"
        lines.append(f"| {row.layer} | {row.batch} | {row.threads} | {' | '.join(cells)} | {ratio} | {wanted or ''} |")
    return lines


def cell(time_and_spread: tuple[float, float] | None) -> str:
    if time_and_spread is None:
        return ""
    return f"{time_and_spread[0] * 1e3:.3f} ({time_and_spread[1] * 100:.0f} %)"


def summary(rows: list[Row]) -> list[str]:
    """fc6 and fc7 together, and what a second thread gives."""
    lines = []
    for batch in sorted({row.batch for row in rows}):
        for threads in sorted({row.threads for row in rows}):
            pair = [r for r in rows if r.layer in FULLY_CONNECTED and (r.batch, r.threads) == (batch, threads)]
            if len(pair) == 2:
                ratio = sum(r.fastest_float for r in pair) / sum(r.ours for r in pair)
                wanted = f" (wanted: {FULLY_CONNECTED_WANTED.get(batch, 0)})" if threads == 1 else ""
                lines.append(f"* fc6 and fc7 together, batch {batch}, {threads} threads: ratio {ratio:.1f}{wanted}")
    for row in rows:
        if row.batch == 32 and ONE_THREAD in row.times:
            gain = row.times[ONE_THREAD][0] / row.ours
            words = f"{row.threads} threads are {gain:.2f} times as fast as one in the same rounds"
            lines.append(f"* {row.layer}, batch 32: {words} (wanted of 2: 1.85)")
    return lines + larq_summary(rows)


def larq_summary(rows: list[Row]) -> list[str]:
    lines = []
    for batch, threads in sorted({(row.batch, row.threads) for row in rows}):
        ratios = [
            min(seconds for name, (seconds, _) in row.times.items() if name.startswith("larq")) / row.ours
            for row in rows
            if (row.batch, row.threads) == (batch, threads) and any(name.startswith("larq") for name in row.times)
        ]
        if ratios:
            words = f"Larq Compute Engine takes {min(ratios):.0f} to {max(ratios):.0f} times our time"
            lines.append(f"* batch {batch}, {threads} threads: {words}, median {statistics.median(ratios):.0f}")
    return lines


def shares(rows: list[Row]) -> list[str]:
    lines = [
        "limit: as many products of bits as the layer has (inputs x filters x kernel x output pixels x batch) by the",
        "path's instructions alone, on registers; tile: by the inner kernel alone, on data in the first-level cache",
        "(`xnor_limit.c`). Both are contenders of the same rounds. Ours has the packing and the storing of floats with",
        "it, and Python. Share = limit / ours.",
        "",
        "| layer | words | batch | products | ours, ms | tile, ms | limit, ms | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        layer, (limit, _), (tile, _) = LAYERS[row.layer], row.times[LIMIT], row.times[TILE]
        sizes = f"{layer.words} | {row.batch} | {layer.products * row.batch / 1e6:.1f} M"
        times = f"{row.ours * 1e3:.3f} | {tile * 1e3:.3f} | {limit * 1e3:.3f}"
        lines.append(f"| {row.layer} | {sizes} | {times} | {limit / row.ours:.0%} |")
    return lines


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    family = next((line.split(":")[1].strip() for line in lines if line.startswith("cpu family")), "?")
    return f"{names[0] if names else platform.machine()} (family {family}), {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
