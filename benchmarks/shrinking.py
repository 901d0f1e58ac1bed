"""How far Pillow's shrunk pictures are from ImageMagick's: python benchmarks/shrinking.py PICTURES [MODEL CACHE]

Every picture below PICTURES whose shorter side is above 256 is shrunk by both. Compared are the files' pixels, and the
inputs that the test makes of them; with a network and the folder of its caches also its answers.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cache_tools.predict import find_pictures
from cache_tools.prediction import Answer, Predictor, network_inputs
from cache_tools.shrinking import open_shrinker
from lua_compat import image
from lua_compat.errors import ImageError
from xnornet_port.binarization import Binarizer
from xnornet_port.dataset_cache import read_statistics
from xnornet_port.model import load_model
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing

NOT_NORMALISED = ChannelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def main() -> int:
    pictures = find_pictures([sys.argv[1]])
    with tempfile.TemporaryDirectory() as folder:
        written = {method: shrink_all(method, pictures, Path(folder, method)) for method in ("imagemagick", "pillow")}
        pairs = list(zip(*written.values(), strict=True))
        print(f"{len(pairs)} of {len(pictures)} pictures are larger than 256")
        apart = [255 * np.abs(image.load(first) - image.load(second)) for first, second in pairs]
        report("pixels of the files, of 255", [d.mean() for d in apart], [d.max() for d in apart])
        settings = Preprocessing(256, 224, 0.0, NOT_NORMALISED)
        inputs = [network_inputs(list(pair), settings)[0] for pair in pairs]
        crops = [255 * np.abs(pair[0] - pair[1]) for pair in inputs]
        report("the network's input, of 255", [d.mean() for d in crops], [d.max() for d in crops])
        sizes = [sum(os.path.getsize(path) for path in paths) for paths in written.values()]
        print(f"bytes of Pillow's files, in those of ImageMagick's: {sizes[1] / sizes[0]:.3f}")
        if len(sys.argv) > 3:
            compare_answers(sys.argv[2], sys.argv[3], pairs)
    return 0


def shrink_all(method: str, pictures: list[str], folder: Path) -> list[str]:
    """Paths of the pictures that had to be shrunk."""
    shrinker = open_shrinker(method, 256)
    folder.mkdir()
    paths = []
    start = time.perf_counter()
    for number, picture in enumerate(pictures):
        try:
            stored, is_shrunk = shrinker.file_bytes(Path(picture).read_bytes(), picture)
        except ImageError:
            continue
        if is_shrunk:
            paths.append(str(folder / f"{number}.JPEG"))
            Path(paths[-1]).write_bytes(stored)
    print(f"{shrinker.name}: {(time.perf_counter() - start) / max(1, len(paths)) * 1000:.0f} ms a picture")
    return paths


def report(what: str, means: list[float], largest: list[float]) -> None:
    print(
        f"{what}: mean difference {statistics.mean(means):.2f} (worst picture {max(means):.2f}), "
        f"largest {max(largest):.0f}"
    )


def compare_answers(model: str, cache: str, pairs: list[tuple[str, ...]]) -> None:
    """As main.py -testOnly -binaryWeight."""
    network = load_model(model)
    settings = Preprocessing(256, 224, 0.0, read_statistics(str(Path(cache) / "meanstdCache.t7")))
    predictor = Predictor(network, settings, Binarizer(network))
    first, second = (list(predictor.answers([pair[which] for pair in pairs])) for which in (0, 1))
    both = [(a, b) for a, b in zip(first, second, strict=True) if isinstance(a, Answer) and isinstance(b, Answer)]
    same = sum(a.best(1)[0][0] == b.best(1)[0][0] for a, b in both)
    change = max(float(np.abs(a.probabilities - b.probabilities).max()) for a, b in both)
    print(f"{Path(model).name}: the same class for {same} of {len(both)}; probabilities differ by at most {change:.2g}")


if __name__ == "__main__":
    sys.exit(main())
