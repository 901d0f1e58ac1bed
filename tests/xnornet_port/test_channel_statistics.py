"""Mean and deviation against what real Torch7 estimated on the same pictures."""

from dataclasses import replace
from pathlib import Path

import pytest

import lua_compat
from lua_compat import Generator
from xnornet_port.channel_statistics import estimate_mean, estimate_std
from xnornet_port.dataset import scan_folder
from xnornet_port.dataset_cache import read_dataset, split_classes
from xnornet_port.errors import XnorNetError
from xnornet_port.picture_paths import rebase
from xnornet_port.preprocessing import Preprocessing

SETTINGS = Preprocessing(256, 224, 0.0, None)


def test_estimates_are_real_torch7s(golden: Path) -> None:
    """golden/cache/meanstdCache.t7: over 60 samples each, after manualSeed(2) and the draws that made testCache.

    Both sum in double, in another order: 50176 terms of relative rounding 2**-53, so 1e-12 is safe.
    """
    cache = golden / "cache"
    train = rebase(read_dataset(str(cache / "trainCache.t7")), str(golden / "imagenet" / "train"), "trainCache.t7")
    stream = Generator(2)
    split_classes(read_dataset(str(cache / "testCache.t7")).class_list, 0, stream)
    mean = estimate_mean(train, stream, SETTINGS, 60)
    std = estimate_std(train, stream, SETTINGS, mean.channels, 60)
    expected = lua_compat.load(cache / "meanstdCache.t7")
    assert mean.channels == pytest.approx(expected["mean"].to_list(), rel=1e-12)
    assert std.channels == pytest.approx(expected["std"].to_list(), rel=1e-12)
    assert mean.faults == std.faults == []


def write_ppm(path: Path, gray: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6\n300 300\n255\n" + bytes([gray]) * 300 * 300 * 3)


def test_unreadable_pictures_are_left_out_and_told(tmp_path: Path) -> None:
    """Ledger row 15. All readable ones are of gray 51 = 0.2, so their average is 0.2 in float32, and no other."""
    write_ppm(tmp_path / "a" / "1.ppm", 51)
    (tmp_path / "a" / "2.ppm").write_bytes(b"no picture")
    estimate = estimate_mean(scan_folder(str(tmp_path)), Generator(1), SETTINGS, 20)
    assert estimate.channels == pytest.approx((0.2, 0.2, 0.2), rel=1e-6)  # image.scale rounds in float32
    assert 0 < len(estimate.faults) < 20
    assert "2.ppm" in estimate.faults[0]


def test_nothing_readable(tmp_path: Path) -> None:
    write_ppm(tmp_path / "a" / "1.ppm", 51)
    (tmp_path / "a" / "1.ppm").write_bytes(b"no picture")
    with pytest.raises(XnorNetError, match=r"none of 5 sampled training pictures can be read \(the first: .*1\.ppm"):
        estimate_std(scan_folder(str(tmp_path)), Generator(1), SETTINGS, (0.2, 0.2, 0.2), 5)


def test_random_crops_must_fit(tmp_path: Path) -> None:
    write_ppm(tmp_path / "a" / "1.ppm", 51)
    with pytest.raises(XnorNetError, match="training needs -imageSize above -cropSize"):
        estimate_mean(scan_folder(str(tmp_path)), Generator(1), replace(SETTINGS, crop_size=256), 5)
