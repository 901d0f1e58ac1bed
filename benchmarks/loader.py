"""Training pictures per second on one core: ours (Torch7's bits) beside Pillow, on the same files in the same run.

    python benchmarks/loader.py                          # the pictures of tests/golden/imagenet
    python benchmarks/loader.py --data /data/imagenet/val --output benchmarks/results/loader.md

Every picture goes through every contender before the next picture, in an order that rotates, so that a busy machine
slows all alike. Times are processor time of this thread. Figures are medians over the rounds.
"""

import argparse
import importlib.metadata
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lua_compat import Generator, image  # noqa: E402  (the checkout need not be installed)
from lua_compat.errors import ImageError  # noqa: E402
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing, Workspace, train_sample  # noqa: E402

Contender = Callable[[Path], object]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REFERENCE = "Pillow: decode alone"
OURS = "ours: read, decode, scale, crop, flip, normalise"


def pillow_decode(path: Path) -> object:
    """The pixels in Pillow's own memory; not even a NumPy array."""
    with Image.open(path) as picture:
        picture.load()
        return picture


def pillow_array(path: Path) -> object:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def pillow_usual(generator: np.random.Generator) -> Contender:
    """What most PyTorch loaders do: decode, shorter side to 256, random crop of 224, flip, normalise."""
    mean, std = (np.array(value, dtype=np.float32) for value in (MEAN, STD))

    def sample(path: Path) -> object:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        factor = 256 / min(width, height)
        picture = picture.resize((int(width * factor), int(height * factor)), Image.Resampling.BILINEAR)
        left = int(generator.integers(picture.width - 223))
        top = int(generator.integers(picture.height - 223))
        picture = picture.crop((left, top, left + 224, top + 224))
        if generator.random() > 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(picture, dtype=np.float32) / 255 - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    return sample


def ours() -> Contender:
    """xnornet_port's own path of a training picture, default options, into a batch of 128 as a data worker does."""
    settings = Preprocessing(256, 224, 0.0, ChannelStatistics(MEAN, STD))
    stream, memory = Generator(2), image.ScalingMemory()
    places = itertools.cycle(np.zeros((128, 3, 224, 224), dtype=np.float32))
    return lambda path: train_sample(str(path).encode(), stream, settings, Workspace(next(places), memory))


def ours_from_decoded(paths: list[Path]) -> Contender:
    """The same with the pixels already decoded and in memory: the most that a cache of decoded pictures could give."""
    pixels = {path: image.decode(path) for path in paths}
    memory = image.ScalingMemory()
    places = itertools.cycle(np.zeros((128, 3, 224, 224), dtype=np.float32))
    normalisation = image.Normalisation(MEAN, STD)

    def sample(path: Path) -> object:
        picture = pixels[path]
        height, width = picture.shape[:2]
        factor = 256 / min(height, width)
        new_width, new_height = max(256, int(width * factor)), max(256, int(height * factor))
        return image.scale_crop(picture, new_width, new_height, 5, 7, 229, 231, flip=True,
                                normalisation=normalisation, out=next(places), memory=memory)  # fmt: skip

    return sample


def decode_again() -> Contender:
    memory = image.ScalingMemory()
    return lambda path: image.decode(path, memory)


def contenders(paths: list[Path]) -> dict[str, Contender]:
    return {
        REFERENCE: pillow_decode,
        "Pillow: decode to a NumPy array": pillow_array,
        "Pillow: decode, resize, crop, flip, normalise": pillow_usual(np.random.default_rng(2)),
        "ours: read and decode alone": decode_again(),
        OURS: ours(),
        "ours: scale, crop, flip, normalise alone": ours_from_decoded(paths),
    }


def readable_pictures(data: Path) -> list[Path]:
    """All JPEGs below `data` that can be read, sorted; the others are named."""
    paths = []
    for path in sorted(data.rglob("*.JPEG")):
        try:
            image.decode(path)
        except ImageError as error:
            print(f"left out: {error}")
        else:
            paths.append(path)
    return paths


def measure(paths: list[Path], rounds: int) -> dict[str, list[float]]:
    """Contender -> seconds of processor time per round over all pictures."""
    runners = contenders(paths)
    names = list(runners)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds + 1):
        totals = dict.fromkeys(names, 0.0)
        for number, path in enumerate(paths):
            for shift in range(len(names)):
                name = names[(number + shift) % len(names)]
                start = time.thread_time()
                runners[name](path)
                totals[name] += time.thread_time() - start
        if round_number > 0:  # the first round fills caches
            for name in names:
                seconds[name].append(totals[name])
    return seconds


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or "unknown"


def table(seconds: dict[str, list[float]], pictures: int) -> list[str]:
    reference = seconds[REFERENCE]
    rows = [
        "| contender | pictures/s | ms/picture | rate / decode alone (lowest to highest round) |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        ratios = sorted(alone / own for alone, own in zip(reference, times, strict=True))
        rows.append(
            f"| {name} | {pictures / median:.0f} | {1e3 * median / pictures:.3f} "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return rows


def report(paths: list[Path], data: Path, rounds: int) -> str:
    seconds = measure(paths, rounds)
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "Pillow", "simplejpeg"))
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1024
    return "\n".join(
        [
            "# Training pictures per second, one core",
            "",
            f"`python benchmarks/loader.py --rounds {rounds}` on {len(paths)} JPEGs of {data.name} "
            f"({size:.0f} KiB on average), one thread, processor time, medians of {rounds} rounds.",
            f"{processor()}; Python {platform.python_version()}, {packages}.",
            "",
            *table(seconds, len(paths)),
            "",
            "Raw: seconds per round over all pictures.",
            "",
            *(f"- {name}: {' '.join(f'{value:.4f}' for value in times)}" for name, times in seconds.items()),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=ROOT / "tests/golden/imagenet", help="folder with *.JPEG below")
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all pictures (default 15)")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    paths = readable_pictures(arguments.data)
    if not paths or arguments.rounds < 1:
        print(f"{arguments.data}: expected readable *.JPEG files below it and --rounds of at least 1", file=sys.stderr)
        return 1
    text = report(paths, arguments.data, arguments.rounds)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
