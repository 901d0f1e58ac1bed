"""Breaks xnor.cu on purpose, one way at a time, and looks whether the tests without a GPU notice. Run by hand:

    python tests/xnornet_port/kernels/cuda_mutants.py [--output benchmarks/results/cuda_mutants.md]

Each mutant is tested in a copy of the project. Exit code 1 if one of them passes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[3]
SOURCE = Path("xnornet_port/kernels/xnor.cu")
TESTS = ["tests/xnornet_port/kernels/test_cuda.py", "tests/xnornet_port/kernels/test_operations.py"]

LONGEST = 300  # seconds
MUTANTS = [  # what is broken, the text, what it becomes
    ("no barrier after the wait for a stage", "      __syncthreads();  // stage s is there for all", "      //"),
    ("no barrier before a further product", "      __syncthreads();  // the stages are free again", "      //"),
    ("no barrier before the slab", "    __syncthreads();  // the stages, or the slab", "    //"),
    ("no barrier between filling the slab and reading it", "multiplier.put(slab, first);\n    __syncthreads();",
     "multiplier.put(slab, first);"),
    ("no barrier after the rows are described", "describe_rows<T>(c, rows);\n  __syncthreads();",
     "describe_rows<T>(c, rows);"),
    ("no barrier between packed words and the next", "    __syncthreads();\n  }\n  for (int distance",
     "  }\n  for (int distance"),
    ("a barrier that only some threads reach", "multiplier.end_of_pass();\n",
     "multiplier.end_of_pass();\n    if (threadIdx.x < 32) __syncthreads();\n"),
    ("waits for one stage too few", "wait_for_copies<T::STAGES - 2>", "wait_for_copies<T::STAGES - 1>"),
    ("fetches one stage too far ahead", "load(s + T::STAGES - 1);", "load(s + T::STAGES);"),
    ("two registers of a fragment swapped",
     "upper.x, lower.x, upper.y, lower.y, b", "upper.x, upper.y, lower.x, lower.y, b"),
    ("pixels and filters disagree on the bits",
     "upper.z, lower.z, upper.w, lower.w", "upper.w, lower.w, upper.z, lower.z"),
    ("rows and columns of the sums swapped",
     "(j * 8 + member * 2 + k % 2) * T::SLAB_STRIDE + i * 16 + group + k / 2 * 8",
     "(j * 8 + member * 2 + k / 2) * T::SLAB_STRIDE + i * 16 + group + k % 2 * 8"),
    ("no correction at the borders", "const int whole = row.bottom * width + row.right;",
     "const int whole = c.kernel_h * width + c.kernel_w;"),
    ("upper and left borders uncorrected",
     "if ((row.top | row.left) == 0) return prefix[whole];", "return prefix[whole];"),
    ("dilation left out of the row sums", "i * c.dilation_h * c.width + j * c.dilation_w]", "i * c.width + j]"),
    ("zeros of the input not noticed", "has_zero |= info & 1;", ""),
    ("one thread's zeros instead of the block's", "__syncthreads_or(c.input_nonzero != 0 && has_zero) != 0",
     "(__syncthreads_or(0), c.input_nonzero != 0 && has_zero)"),
    ("one of Horner's steps left out", "if (of_weight_zeros) multiplier", "if (product == 1) multiplier"),
    ("NaN taken for a number", "(value[i] & 0x7fffffffu) - 1 < 0x7f800000u", "(value[i] & 0x7fffffffu) != 0"),
    ("subnormals taken for 0", "(value[i] & 0x7fffffffu) - 1 < 0x7f800000u",
     "(*(float*)&value[i] < 0.0f || *(float*)&value[i] > 0.0f)"),
    ("filters past the last are fetched", "inside_kernel && first_filter + i * STEP < c.out_channels", "inside_kernel"),
    ("pixels right of the picture are fetched", "(uint32)(row.x + across) < (uint32)c.width", "row.x + across >= 0"),
    ("bits of the adder never counted", "sums[i / 4][i % 4] += __popc(ones[i / 4][i % 4]);", ""),
    ("only the first slice is summed", "slice < T::SLICES; ++slice) dot +=", "slice < 1; ++slice) dot +="),
    ("both thresholds: negative wins", "!positive && (mirrored", "(mirrored"),
    ("pooling starts at 0", "int largest = -0x7fffffff - 1;", "int largest = 0;"),
    ("two roundings instead of one", "__fmaf_ieee_rn(c.alpha[filter], (float)dot, c.bias ? c.bias[filter] : 0.0f)",
     "(volatile float&)(*new float(c.alpha[filter] * (float)dot)) + (c.bias ? c.bias[filter] : 0.0f)"),
    ("a result flushed to 0", "__fmaf_ieee_rn(c", "fmaf(c"),
    ("too little shared memory for the rows", "ROWS_AT = PIPELINE_BYTES > SLAB_BYTES ? PIPELINE_BYTES : SLAB_BYTES",
     "ROWS_AT = PIPELINE_BYTES + SLAB_BYTES"),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    source = (PROJECT / SOURCE).read_text()
    for name, old, _ in MUTANTS:
        if source.count(old) != 1:
            raise SystemExit(f"mutant {name!r}: its text is in xnor.cu {source.count(old)} times, not once")
    rows = ["| broken | noticed by |", "|---|---|"]
    n_missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("lua_compat", "xnornet_port", "tests/xnornet_port/kernels", "tests/golden/models"):
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "tests/conftest.py"):
            shutil.copy(PROJECT / name, copy / name)
        for name, old, new in [("nothing", "", ""), *MUTANTS]:
            (copy / SOURCE).write_text(source.replace(old, new) if old else source)
            noticed = run_tests(copy)
            n_missed += (not noticed) == bool(old)
            rows.append(f"| {name} | {noticed or 'nobody'} |")
            print(rows[-1], flush=True)
    if arguments.output is not None:
        arguments.output.write_text("\n".join([__doc__.splitlines()[0], "", *rows, ""]))
    return 1 if n_missed else 0


def run_tests(copy: Path) -> str:
    """The first test that fails, with its error; empty if none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--tb=line", *TESTS]
    selection = "test_cuda.py or tensor or popcount"
    command += ["-k", selection]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"no end after {LONGEST} s"
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    reason = re.search(r"ShimError: (.*?)(?: \(block.*)?$", done.stdout, re.MULTILINE)
    test = failed.group(1) if failed else f"pytest, exit code {done.returncode}"
    return f"{test}: {reason.group(1)}" if reason else test


if __name__ == "__main__":
    sys.exit(main())
