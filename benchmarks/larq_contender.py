"""Larq Compute Engine as a contender of xnor_conv.py, in a process of its own.

    python3.11 -m venv venv_larq
    venv_larq/bin/pip install larq-compute-engine==0.16.0 larq==0.14.0 tensorflow==2.16.2 tf-keras==2.16.0
    python benchmarks/xnor_conv.py --larq-python venv_larq/bin/python

It needs TensorFlow 2.16 and NumPy 1, so that it cannot be imported beside this package. `LarqProcess` is the end of
xnor_conv.py; the file run as a program by the other interpreter is the other end. Each answers a line of JSON with a
line of JSON; tensors go through files. Calls are timed where they happen: the pipe is in no figure.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Arguments of its interpreter, by the kernel they choose. On x86-64 all three are plain C++; which is the fastest is
# found by running them.
KERNELS = {"default": {}, "indirect": {"use_indirect_bgemm": True}, "reference": {"use_reference_bconv": True}}


def turn(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each call in a turn that long, after one that brings the call's data back into the caches."""
    call()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


class LarqProcess:
    """The process that holds one layer: `load` it, then ask for turns."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process, self._folder = process, folder

    def load(self, x: np.ndarray, weight: np.ndarray, padding: int, threads: int) -> tuple[str, np.ndarray]:
        """Makes x (N, H, W, C) and weight (kH, kW, C, O), scale included, the layer: its fastest kernel, its result."""
        np.savez(self._folder / "layer.npz", x=x, weight=weight)
        answer = self._ask({"padding": padding, "threads": threads})
        return answer["kernel"], np.load(self._folder / "result.npy")

    def turn(self, seconds: float) -> list[float]:
        """As the function `turn`, over there."""
        return self._ask({"turn": seconds})["times"]  # type: ignore[no-any-return]

    def _ask(self, question: dict[str, float]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            messages = (self._folder / "messages").read_text(encoding="utf-8", errors="replace")
            last = messages.strip().splitlines()[-1:] or ["it said nothing"]
            raise SystemExit(f"the process of Larq Compute Engine ended: {last[0]}")
        return json.loads(answer)  # type: ignore[no-any-return]


@contextmanager
def larq_process(python: Path | None) -> Iterator[LarqProcess | None]:
    """None where there is no interpreter that has Larq Compute Engine."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name, open(Path(name) / "messages", "wb") as messages:
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            process = subprocess.Popen([str(python), __file__, name], env=environment, text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages)  # fmt: skip
        except OSError as error:
            raise SystemExit(f"--larq-python {python}: {error.strerror}") from error
        with process:  # on leaving it closes the pipe, which ends the process
            yield LarqProcess(process, Path(name))


def main() -> None:
    folder, answers = Path(sys.argv[1]), sys.stdout
    sys.stdout = sys.stderr  # TensorFlow's words stay out of the answers
    call: Callable[[], Any] = list
    for line in sys.stdin:
        question = json.loads(line)
        if "turn" in question:
            answer: dict[str, Any] = {"times": turn(call, question["turn"])}
        else:
            layer = np.load(folder / "layer.npz")
            kernel, call = fastest_call(layer["x"], layer["weight"], **question)
            np.save(folder / "result.npy", call()[0])
            answer = {"kernel": kernel}
        print(json.dumps(answer), file=answers, flush=True)


def fastest_call(x: np.ndarray, weight: np.ndarray, padding: int, threads: int) -> tuple[str, Callable[[], Any]]:
    """By one turn of each kernel."""
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    model = converted(x.shape, weight, padding)
    calls = {}
    for kernel, choice in KERNELS.items():
        interpreter = Interpreter(model, num_threads=threads, **choice).interpreter  # of any batch; its wrapper: of one
        calls[kernel] = lambda interpreter=interpreter: interpreter.predict([x])
    kernel = min(calls, key=lambda name: min(turn(calls[name], 0.1)))
    return kernel, calls[kernel]


def converted(shape: tuple[int, ...], weight: np.ndarray, padding: int) -> bytes:
    """QuantConv2D of signs of a float input, zeros around it; the filters' scales go into its epilogue."""
    import larq
    import larq_compute_engine
    import tensorflow

    inputs = tensorflow.keras.Input(shape[1:], batch_size=shape[0])
    convolution = larq.layers.QuantConv2D(
        weight.shape[3], weight.shape[:2], padding="same" if padding else "valid", input_quantizer="ste_sign",
        use_bias=False,
    )  # fmt: skip
    model = tensorflow.keras.Model(inputs, convolution(inputs))
    convolution.set_weights([weight])
    return larq_compute_engine.convert_keras_model(model)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
