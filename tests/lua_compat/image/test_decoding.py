"""Which files are read as what: JPEGs beyond golden's, files that are none, and what the messages say."""

import contextlib
import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from lua_compat.errors import ImageError
from lua_compat.image import MAX_FILE_BYTES, decode, decoding, load


def start_of_frame(data: bytes) -> int:
    """Where a JPEG's frame header starts (marker FFC0 or progressive FFC2; length, bits, height, width, components)."""
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


def with_size(data: bytes, height: int, width: int) -> bytes:
    place = start_of_frame(data) + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def libjpeg_rgb(data: bytes) -> np.ndarray:
    """Pillow's answer: another build of libjpeg-turbo with Torch7's settings (the library's defaults)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def plain(golden: Path) -> bytes:
    return (golden / "odd_images" / "plain.JPEG").read_bytes()


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_usual_sampling_of_colour(subsampling: str, golden: Path, tmp_path: Path) -> None:
    pixels = decode(golden / "odd_images" / "s444.JPEG")
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), colorsubsampling=subsampling)
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.array_equal(decode(tmp_path / "a.jpg"), libjpeg_rgb(data))


def test_unusual_sampling_that_simplejpeg_has_no_name_for(plain: bytes, tmp_path: Path) -> None:
    place = start_of_frame(plain) + 14  # sampling factors of the second component: 1x1 becomes 2x1
    odd = plain[:place] + b"\x21" + plain[place + 1 :]
    with pytest.raises((ValueError, KeyError)):
        simplejpeg.decode_jpeg_header(odd)
    (tmp_path / "odd.jpg").write_bytes(odd)
    assert np.array_equal(decode(tmp_path / "odd.jpg"), libjpeg_rgb(odd))


def test_rgb_stored_without_conversion(golden: Path, tmp_path: Path) -> None:
    Image.open(golden / "odd_images" / "plain.JPEG").save(tmp_path / "a.jpg", keep_rgb=True, quality=90)
    assert simplejpeg.decode_jpeg_header((tmp_path / "a.jpg").read_bytes())[2] == "RGB"
    assert np.array_equal(decode(tmp_path / "a.jpg"), libjpeg_rgb((tmp_path / "a.jpg").read_bytes()))


def test_both_ways_to_decode_give_the_same_bytes(golden: Path) -> None:
    for name in ("plain.JPEG", "progressive.JPEG", "gray.JPEG", "cmyk.JPEG", "s444.JPEG", "tiny.JPEG"):
        data = (golden / "odd_images" / name).read_bytes()
        slow = decoding._decode_like_libjpeg(data, name)
        slow = slow[:, :, None] if slow.ndim == 2 else slow[:, :, :3]
        assert np.array_equal(decode(golden / "odd_images" / name), np.broadcast_to(slow, (*slow.shape[:2], 3)))


def test_truncated_before_a_table_is_an_error_not_old_memory(golden: Path, tmp_path: Path) -> None:
    """Cut inside a Huffman table libjpeg stops ("Bogus Huffman table definition"), so Torch7 does too."""
    data = (golden / "odd_images" / "progressive.JPEG").read_bytes()
    second_table = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
    (tmp_path / "cut.jpg").write_bytes(data[: second_table + 14])
    with pytest.raises(ImageError, match=r"cut\.jpg: damaged JPEG"):
        decode(tmp_path / "cut.jpg")


def test_a_truncated_picture_keeps_its_upper_part(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(plain[: len(plain) // 2])
    whole, cut = libjpeg_rgb(plain), decode(tmp_path / "cut.jpg")
    assert cut.shape == whole.shape
    assert np.array_equal(cut[:64], whole[:64])
    assert not np.array_equal(cut[-8:], whole[-8:])


def test_the_corrupt_training_file_of_golden_is_refused(shared: Path) -> None:
    with pytest.raises(ImageError, match=r"n07753592_9\.JPEG"):
        load(shared / "golden/imagenet/train/n07753592/n07753592_9.JPEG")


def test_a_bomb_is_refused_before_memory_is_taken(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "bomb.JPEG").write_bytes(with_size(plain, 65000, 65000))
    with pytest.raises(ImageError, match=r"bomb\.JPEG: 65000 x 65000 pixels are more than the limit"):
        decode(tmp_path / "bomb.JPEG")
    (tmp_path / "bomb.ppm").write_bytes(b"P6 999999999 999999999 255\n")
    with pytest.raises(ImageError, match="more than the limit"):
        decode(tmp_path / "bomb.ppm")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "progressive", "PNG", "PNG 16", "PPM"])
def test_a_bomb_of_every_kind_takes_no_memory(mode: str, tmp_path: Path) -> None:
    """65000 x 65000 pixels, 12 GB, are refused while at most 10 MB of address space are to be had."""
    file = io.BytesIO()
    if mode.startswith("PNG"):
        Image.new("I;16" if mode == "PNG 16" else "RGB", (8, 8)).save(file, "PNG")
        header = struct.pack(">II", 65000, 65000) + file.getvalue()[24:29]
        checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        data = file.getvalue()[:16] + header + checksum + file.getvalue()[33:]
    elif mode == "PPM":
        data = b"P6 65000 65000 255\n" + bytes(100)
    else:
        is_progressive = mode == "progressive"
        Image.new("RGB" if is_progressive else mode, (8, 8)).save(file, "JPEG", progressive=is_progressive)
        data = with_size(file.getvalue(), 65000, 65000)
    (tmp_path / "bomb").write_bytes(data)
    with contextlib.suppress(ImageError):
        decode(tmp_path / "bomb")  # once before the limit: modules are imported
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 10 * 2**20, before[1]))
    try:
        with pytest.raises(ImageError, match="65000 x 65000 pixels are more than the limit"):
            decode(tmp_path / "bomb")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_picture_without_rows_is_refused(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(with_size(plain, 0, 320))
    with pytest.raises(ImageError, match=r"none\.jpg"):
        decode(tmp_path / "none.jpg")


NOT_PICTURES = {
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"this is text", "not a JPEG file"),
    "text.png": (b"this is text", "not a PNG file"),
    "text.ppm": (b"this is text", "not a PGM or PPM file"),
    "picture.bmp": (b"BM\x00\x00\x00\x00", "not a JPEG, PNG, PPM or PGM picture"),
    "no_extension": (b"GIF89a", "not a JPEG, PNG, PPM or PGM picture"),
    "start.jpg": (b"\xff\xd8\xff", "damaged"),
    "start.png": (b"\x89PNG\r\n\x1a\n", "not a PNG file"),
    "noise.jpg": (b"\xff\xd8\xff" + bytes(range(256)) * 8, "damaged"),
}


@pytest.mark.parametrize("name", NOT_PICTURES)
def test_other_files_are_an_error_of_one_line(name: str, tmp_path: Path) -> None:
    data, message = NOT_PICTURES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        decode(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is a directory, expected a picture file"):
        decode(tmp_path)
    with pytest.raises(ImageError, match=r"absent\.jpg: cannot be read \(No such file"):
        decode(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="null"):
        decode("a\0b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a device or pipe"):
        decode(tmp_path / "pipe.jpg")


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a hole: takes no room on the disk
    with pytest.raises(ImageError, match="bytes are more than the limit"):
        decode(tmp_path / "large.jpg")


def test_the_first_bytes_count_more_than_the_name(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(plain)
    assert np.array_equal(decode(tmp_path / "picture.txt"), libjpeg_rgb(plain))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_give_a_picture_or_an_image_error(seed: int, golden: Path, tmp_path: Path) -> None:
    """Random bytes changed in real files; a traceback of another kind fails the test."""
    generator = np.random.default_rng(seed)
    outcomes = set()
    for path in sorted((golden / "odd_images").glob("[a-s]*")):
        data = bytearray(path.read_bytes())
        for _ in range(12):
            damaged = bytearray(data)
            for place in generator.integers(0, max(min(len(data), 600), 1), 4 if data else 0):
                damaged[place] = generator.integers(256)
            (tmp_path / path.name).write_bytes(damaged)
            try:
                outcomes.add(decode(tmp_path / path.name).ndim)
            except ImageError as error:
                outcomes.add("\n" in str(error))
    assert outcomes == {3, False}
