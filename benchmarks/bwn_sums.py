"""Would a sum-and-difference kernel for BWN (binary weights, real inputs) beat torch's float one? An experiment.

    python benchmarks/bwn_sums.py

bwn_sums.c against F.linear on one thread, on matrices of AlexNet's layers: fully connected ones at batch 1 and 32, and
the 3 x 3 convolution 256 -> 384 on 13 x 13 as the product of its 169 windows (which both are given ready). Medians of
turns; AVX-512 only.
"""

import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

CASES = {"fc6, batch 1": (1, 9216, 4096), "fc6, batch 32": (32, 9216, 4096), "fc7, batch 1": (1, 4096, 4096),
         "conv3, batch 1": (169, 2304, 384)}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bwn_sums.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["gcc", "-O3", "-ffast-math", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        sums = ctypes.CDLL(str(library)).bwn_sums
    sums.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3
    print("| matrix | torch float32 ms | sums ms | torch / sums |\n|---|---|---|---|")
    for name, (rows, inputs, filters) in CASES.items():
        x, weight = torch.randn(rows, inputs), torch.randn(filters, inputs)
        weight[weight == 0] = 1  # a normal generator gives an exact 0 in some ten million
        alpha = weight.abs().mean(1)
        binary = weight.sign() * alpha[:, None]
        positive = (weight > 0).numpy().reshape(filters // 16, 16, inputs).transpose(0, 2, 1)
        masks = np.ascontiguousarray(np.packbits(positive, axis=-1, bitorder="little")).view("<u2")
        out = torch.empty(rows, filters)
        arguments = (x.data_ptr(), masks.ctypes.data, alpha.data_ptr(), out.data_ptr(), rows, inputs, filters)
        sums(*arguments)
        if not torch.allclose(out, functional.linear(x, binary), rtol=1e-3, atol=1e-2 * float(alpha.mean())):
            sys.exit(f"bwn_sums: {name} differs by {float((out - functional.linear(x, binary)).abs().max())}")
        ours = median(lambda arguments=arguments: sums(*arguments))  # type: ignore[misc]
        torchs = median(lambda x=x, binary=binary: functional.linear(x, binary))  # type: ignore[misc]
        print(f"| {name} | {torchs * 1e3:.3f} | {ours * 1e3:.3f} | {torchs / ours:.2f} |")


def median(run: Callable[[], object]) -> float:
    times, end = [], time.perf_counter() + 1.5
    while time.perf_counter() < end:
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
