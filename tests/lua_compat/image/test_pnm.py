"""PGM and PPM files written out here."""

from pathlib import Path

import pytest

from lua_compat.errors import ImageError
from lua_compat.image import decode


def decoded(data: bytes, tmp_path: Path) -> list[list[list[int]]]:
    (tmp_path / "a.ppm").write_bytes(data)
    pixels = decode(tmp_path / "a.ppm")
    assert pixels.dtype == "uint8"
    return pixels.tolist()


def test_binary(tmp_path: Path) -> None:
    assert decoded(b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06", tmp_path) == [[[1, 2, 3], [4, 5, 6]]]
    assert decoded(b"P5 1 2 255\n\x0a#", tmp_path) == [[[10] * 3], [[35] * 3]]


def test_comments_in_the_header(tmp_path: Path) -> None:
    assert decoded(b"P5\n# a comment 9\n1 # width\n1\n255\n\x07", tmp_path) == [[[7] * 3]]


def test_binary_samples_stay_whatever_the_largest_value(tmp_path: Path) -> None:
    assert decoded(b"P5 2 1 100\n\x64\x32", tmp_path) == [[[100] * 3, [50] * 3]]


def test_text_samples_are_scaled_to_255(tmp_path: Path) -> None:
    # 255 * c / largest in whole numbers: 255*1/2 = 127
    assert decoded(b"P2 3 1 2\n0 1 2\n", tmp_path) == [[[0] * 3, [127] * 3, [255] * 3]]
    assert decoded(b"P3 1 1 255 9\n8 7", tmp_path) == [[[9, 8, 7]]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P6 2 2 255\n123", "ends after 3 of 12 samples"),
        (b"P2 2 1 255\n1", "ends after 1 of 2 samples"),
        (b"P6 2 x 255\n", "no height at byte"),
        (b"P6", "no width"),
        (b"P6 0 4 255\n", "no pixels"),
        (b"P5 1 1 65535\n\x00\x01", "largest value is 65535"),
        (b"P5 1 1 0\n\x00", "largest value is 0"),
        (b"P2 1 1 255\nred", "damaged PGM or PPM"),
        (b"P2 1 1 255\n" + b"9" * 30, "damaged PGM or PPM"),
        (b"P2 1 1 255\n-5", "damaged PGM or PPM"),
        (b"P2 1 1 255\n256", "damaged PGM or PPM"),
    ],
)
def test_damaged_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        decoded(data, tmp_path)
