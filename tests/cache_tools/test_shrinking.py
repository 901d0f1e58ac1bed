"""Shrinking as convert -resize "256^>" does it; with ImageMagick itself where it is installed."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_tools import shrinking
from cache_tools.shrinking import open_shrinker, shrunk_size
from lua_compat.errors import ImageError
from xnornet_port.errors import XnorNetError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((500, 375), (341, 256)),  # 500 * 256 / 375 = 341.33
        ((375, 500), (256, 341)),
        ((512, 385), (340, 256)),  # 512 * 256 / 385 = 340.45
        ((256, 4000), (256, 4000)),  # not above 256: stays
        ((200, 300), (200, 300)),
        ((1023, 512), (512, 256)),  # 511.5: halves are rounded up
        ((257, 257), (256, 256)),
    ],
)
def test_sizes(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert shrunk_size(*before, 256) == after


def test_imagemagick_has_the_same_sizes_and_nearly_the_same_pixels(golden: Path) -> None:
    if shrinking.find_imagemagick() is None:
        pytest.skip("ImageMagick is not installed")
    magick, pillow = open_shrinker("imagemagick", 200), open_shrinker("pillow", 200)
    assert open_shrinker("auto", 200).name == magick.name
    for path in [*sorted((golden / "imagenet" / "val").glob("*/*"))[:3], golden / "odd_images" / "cmyk.JPEG"]:
        data = path.read_bytes()
        pictures = [Image.open(io.BytesIO(s.file_bytes(data, path.name)[0])) for s in (magick, pillow)]
        assert pictures[0].size == pictures[1].size
        assert pictures[0].mode == pictures[1].mode
        assert pictures[0].quantization[0] == pictures[1].quantization[0]
        first, second = (np.asarray(picture).astype(int) for picture in pictures)
        # of 255; ImageMagick stores CMYK as YCCK, three of its channels more coarsely
        assert np.abs(first - second).mean() < (4 if pictures[0].mode == "CMYK" else 2.5)


def test_imagemagick_that_is_absent_or_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(XnorNetError, match="ImageMagick is not installed"):
        open_shrinker("imagemagick", 256)
    (tmp_path / "convert").write_text("#!/bin/sh\necho Converts volumes\n")
    (tmp_path / "convert").chmod(0o755)
    assert open_shrinker("auto", 256).name.startswith("Pillow")


def test_a_truncated_jpeg_is_shrunk_as_far_as_it_goes(golden: Path) -> None:
    data = (golden / "odd_images" / "truncated.JPEG").read_bytes()
    stored, is_shrunk = open_shrinker("pillow", 100).file_bytes(data, "truncated.JPEG")
    assert is_shrunk
    assert Image.open(io.BytesIO(stored)).size == (133, 100)  # 320 * 100 / 240


def test_what_is_no_picture_or_a_bomb(tmp_path: Path) -> None:
    shrinker = open_shrinker("pillow", 100)
    with pytest.raises(ImageError, match=r"x.JPEG: not a readable picture"):
        shrinker.file_bytes(b"\xff\xd8\xff", "x.JPEG")
    gif = io.BytesIO()
    Image.new("L", (200, 200)).save(gif, "GIF")
    with pytest.raises(ImageError, match="a gif; only JPEG and PNG"):
        shrinker.file_bytes(gif.getvalue(), "x.JPEG")
    bomb = io.BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    with pytest.raises(ImageError, match=r"x.JPEG: (not a readable picture|20000 x 20000 pixels)"):
        shrinker.file_bytes(bomb.getvalue(), "x.JPEG")
