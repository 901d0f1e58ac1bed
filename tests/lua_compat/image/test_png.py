"""PNG files written byte by byte here, so that every expected pixel is known."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lua_compat.errors import ImageError
from lua_compat.image import decode, load

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, bits: int, color_type: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG of rows that each start with their filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def decoded(data: bytes, tmp_path: Path) -> np.ndarray:
    (tmp_path / "a.png").write_bytes(data)
    return decode(tmp_path / "a.png")


def test_sixteen_bit_colour_keeps_all_bits(tmp_path: Path) -> None:
    samples = np.array([[[0, 1, 256], [65535, 32768, 4660]], [[255, 65280, 7], [513, 2, 40000]]], dtype=np.uint16)
    rows = [b"\0" + row.astype(">u2").tobytes() for row in samples]
    pixels = decoded(png(2, 2, 16, RGB, rows), tmp_path)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, samples)
    assert load(tmp_path / "a.png")[0, 0, 1] == np.float32(65535) * np.float32(1 / 65535)


def test_sixteen_bit_rows_that_are_differences_to_the_row_above(tmp_path: Path) -> None:
    first = np.array([[1, 2, 3, 65535], [500, 600, 700, 0]], dtype=">u2").tobytes()
    rows = [b"\0" + first, b"\2" + bytes(16)]  # filter 2, all differences 0: the same row again
    pixels = decoded(png(2, 2, 16, RGBA, rows), tmp_path)
    assert pixels.tolist() == [[[1, 2, 3], [500, 600, 700]]] * 2  # alpha dropped


def test_sixteen_bit_gray(tmp_path: Path) -> None:
    rows = [b"\0" + np.array([0, 258, 65535], dtype=">u2").tobytes()]
    assert decoded(png(3, 1, 16, GRAY, rows), tmp_path).tolist() == [[[0] * 3, [258] * 3, [65535] * 3]]


@pytest.mark.parametrize(
    ("bits", "packed", "expected"),
    [(1, 0b10100000, [255, 0, 255, 0]), (2, 0b00011011, [0, 85, 170, 255])],
)
def test_few_bits_of_gray_spread_over_0_to_255(bits: int, packed: int, expected: list[int], tmp_path: Path) -> None:
    pixels = decoded(png(4, 1, bits, GRAY, [bytes([0, packed])]), tmp_path)
    assert pixels.dtype == np.uint8
    assert pixels[0].tolist() == [[value] * 3 for value in expected]


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", bytes([1, 2, 3, 40, 50, 60, 255, 0, 9]))
    assert decoded(png(4, 1, 2, PALETTE, [bytes([0, 0b10000100])], palette), tmp_path).tolist() == [
        [[255, 0, 9], [1, 2, 3], [40, 50, 60], [1, 2, 3]]
    ]


def test_transparency_changes_no_colour(tmp_path: Path) -> None:
    """A palette with alpha: Torch7 steps through its four channels three at a time (docs/differences.md)."""
    extra = chunk(b"PLTE", bytes([1, 2, 3, 40, 50, 60])) + chunk(b"tRNS", bytes([0, 128]))
    assert decoded(png(2, 1, 8, PALETTE, [bytes([0, 1, 0])], extra), tmp_path).tolist() == [[[40, 50, 60], [1, 2, 3]]]
    key = chunk(b"tRNS", struct.pack(">HHH", 7, 8, 9))
    assert decoded(png(1, 1, 8, RGB, [bytes([0, 7, 8, 9])], key), tmp_path).tolist() == [[[7, 8, 9]]]


def test_interlaced_is_the_same_picture(tmp_path: Path) -> None:
    # Adam7 with 1 x 1 pixels in 4 bytes of the first pass only
    data = bytearray(png(1, 1, 16, RGB, [b"\0" + bytes([1, 2, 3, 4, 5, 6])]))
    data[28] = 1  # interlace method
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert decoded(bytes(data), tmp_path).tolist() == [[[0x0102, 0x0304, 0x0506]]]


def test_gray_with_alpha_is_refused_as_in_torch7(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.png: the picture has 2 channels"):
        decoded(png(1, 1, 8, GRAY_ALPHA, [bytes([0, 5, 6])]), tmp_path)


def test_a_png_cut_short_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    with pytest.raises(ImageError, match=r"a\.png: damaged PNG file"):
        decoded(file.getvalue()[:-200], tmp_path)


def test_a_png_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="200000 x 100000 pixels are more than the limit"):
        decoded(png(200000, 100000, 8, GRAY, [b"\0"]), tmp_path)
    with pytest.raises(ImageError, match="no pixels"):
        decoded(png(0, 1, 8, GRAY, [b"\0"]), tmp_path)
