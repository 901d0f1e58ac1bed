"""Mean and standard deviation of the colours, estimated on training crops (the last section of donkey.lua)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lua_compat import Generator
from lua_compat.image import ScalingMemory
from xnornet_port.dataset import Dataset
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import Channels, Preprocessing, Workspace, train_sample
from xnornet_port.progress import Progress, no_progress

__all__ = ["Estimate", "estimate_mean", "estimate_std"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Three numbers, averaged over the readable ones of the sampled pictures, and why the others were not readable."""

    channels: Channels
    faults: list[str]


def estimate_mean(
    dataset: Dataset, stream: Generator, settings: Preprocessing, n_samples: int, progress: Progress = no_progress
) -> Estimate:
    """The average over `n_samples` random training crops of each crop's mean, per channel.

    A picture that cannot be read is left out (the original crashes: ledger row 15). Raises XnorNetError when none can.
    """
    return _average("estimating the mean", _crop_mean, dataset, stream, settings, n_samples, progress)


def estimate_std(
    dataset: Dataset,
    stream: Generator,
    settings: Preprocessing,
    mean: Channels,
    n_samples: int,
    progress: Progress = no_progress,
) -> Estimate:
    """The average over `n_samples` random training crops, other ones than for the mean, of each crop's deviation.

    The crops have the mean subtracted in float32, as by then the original's trainHook does, which rounds them a little.
    """
    minus_mean = -np.array(mean, dtype=np.float32)[:, None, None]
    return _average(
        "estimating the std",
        lambda pixels: _crop_std(pixels + minus_mean),
        dataset,
        stream,
        settings,
        n_samples,
        progress,
    )


def _crop_mean(pixels: Float32) -> Float64:
    """img[j]:mean(), which Torch7 sums in double."""
    mean: Float64 = pixels.mean(axis=(1, 2), dtype=np.float64)
    return mean


def _crop_std(pixels: Float32) -> Float64:
    """img[j]:std(), summed in double and divided by n - 1."""
    std: Float64 = pixels.std(axis=(1, 2), dtype=np.float64, ddof=1)
    return std


def _average(
    what: str,
    measure: Callable[[Float32], Float64],
    dataset: Dataset,
    stream: Generator,
    settings: Preprocessing,
    n_samples: int,
    progress: Progress,
) -> Estimate:
    settings = replace(settings, statistics=None)  # the crops as they are, not normalised
    settings.check_training()
    total = np.zeros(3)
    faults = []
    workspace = Workspace(memory=ScalingMemory())
    with progress(what, n_samples) as done:
        for number in range(1, n_samples + 1):
            path, _ = dataset.draw(stream)
            pixels, fault = train_sample(path, stream, settings, workspace)
            if fault is None:
                total += measure(pixels)
            else:
                dataset.check_present()
                faults.append(fault)
            done(number)
    readable = n_samples - len(faults)
    if readable == 0:
        first = f" (the first: {faults[0]})" if faults else ""
        raise XnorNetError(f"{dataset.folder}: none of {n_samples} sampled training pictures can be read{first}")
    red, green, blue = (total / readable).tolist()
    return Estimate((red, green, blue), faults)
