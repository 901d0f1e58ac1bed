"""Pictures made smaller as the original's README asks: convert -resize "256^>" (the shorter side becomes 256).

ImageMagick does it where it is installed, which gives the very pictures of 2016. Pillow's Lanczos is close: the same
filter, sizes, quantisation tables and colour sampling, but other rounding (docs/tools.md has the difference measured).
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from typing import NamedTuple

import PIL
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from lua_compat.errors import ImageError
from lua_compat.image.limits import check_size
from xnornet_port.errors import XnorNetError

__all__ = ["METHODS", "Shrinker", "find_imagemagick", "open_shrinker", "shrunk_size"]

METHODS = ("auto", "imagemagick", "pillow")
END_OF_IMAGE = b"\xff\xd9" * 64
"""What libjpeg supplies where a file is cut off; Pillow alone would refuse such a file."""
JPEG_QUALITY = 92
"""ImageMagick's, of a picture that was no JPEG before."""

Shrink = Callable[[bytes, str, str, int], bytes]
"""(data, its kind, the wanted kind, shorter side) -> the file's bytes; kinds are "jpeg" or "png"."""


class Shrinker(NamedTuple):
    """What pictures are made smaller with, and to which shorter side in pixels."""

    name: str
    size: int
    shrink: Shrink

    def file_bytes(self, data: bytes, name: str) -> tuple[bytes, bool]:
        """The bytes to store under `name` and whether they were shrunk: small pictures stay as they are.

        Raises ImageError with `name` for what is no picture.
        """
        kind, width, height = picture_size(data, name)
        if min(width, height) <= self.size:
            return data, False
        if kind not in ("jpeg", "png"):
            raise ImageError(f"{name}: is larger than {self.size} and a {kind}; only JPEG and PNG can be shrunk")
        wanted = "png" if name.lower().endswith(".png") else "jpeg"
        try:
            smaller = self.shrink(data, kind, wanted, self.size)
            found = picture_size(smaller, name)[1:]
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ImageError(f"{name}: damaged ({error})") from error
        if found != shrunk_size(width, height, self.size):
            raise ImageError(f"{name}: {self.name} made it {found[0]} x {found[1]} pixels, which was not asked for")
        return smaller, True


def open_shrinker(method: str, size: int) -> Shrinker:
    """`method` is one of METHODS. Raises XnorNetError for imagemagick where it is not installed."""
    found = find_imagemagick() if method != "pillow" else None
    if found is not None:
        return Shrinker(found.version, size, found.shrink)
    if method == "imagemagick":
        raise XnorNetError("ImageMagick is not installed: install it, or choose --shrinker pillow")
    return Shrinker(f"Pillow {PIL.__version__}", size, shrink_with_pillow)


def picture_size(data: bytes, name: str) -> tuple[str, int, int]:
    """Kind of a picture and its width and height, from its head alone. Raises ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as picture:
                kind = "jpeg" if picture.format in ("JPEG", "MPO") else str(picture.format).lower()
                width, height = picture.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: not a readable picture") from error
    check_size(name, width, height)
    return kind, width, height


def shrunk_size(width: int, height: int, size: int) -> tuple[int, int]:
    """What ImageMagick makes of the geometry `size^>`: halves are rounded up, nothing is enlarged."""
    scale = size / min(width, height)
    if scale >= 1:
        return width, height
    return max(1, math.floor(scale * width + 0.5)), max(1, math.floor(scale * height + 0.5))


class ImageMagick(NamedTuple):
    """The program and its name with version."""

    program: str
    version: str

    def shrink(self, data: bytes, kind: str, wanted: str, size: int) -> bytes:
        """One process per picture, which sees no file; a warning (a file cut off) is none of ours. ValueError."""
        done = subprocess.run(
            [self.program, f"{kind}:-", "-resize", f"{size}^>", f"{wanted}:-"],
            input=data,
            capture_output=True,
            check=False,
            env={**os.environ, "MAGICK_THREAD_LIMIT": "1"},
            process_group=0,  # Ctrl-C is for us: a picture begun is finished
        )
        if not done.stdout:
            raise ValueError(done.stderr.decode(errors="replace").strip().split("\n")[-1][:200])
        return done.stdout


def find_imagemagick() -> ImageMagick | None:
    """`magick` (version 7) or `convert` (6); other programs have that name too, so it is asked what it is."""
    for name in ("magick", "convert"):
        program = shutil.which(name)
        if program is None:
            continue
        try:
            answer = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stdout
        except (OSError, UnicodeDecodeError):
            continue
        version = re.match(r"Version: (ImageMagick \S+)", answer)
        if version:
            return ImageMagick(program, version.group(1))
    return None


def shrink_with_pillow(data: bytes, kind: str, wanted: str, size: int) -> bytes:
    """Lanczos; a JPEG keeps its quantisation tables, its colour sampling and its channels, as ImageMagick has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data + END_OF_IMAGE if kind == "jpeg" else data)) as picture:
            target = shrunk_size(*picture.size, size)
            smaller = without_palette(picture).resize(target, Image.Resampling.LANCZOS)
            output = io.BytesIO()
            if wanted == "png":
                smaller.save(output, "PNG")
            elif kind == "jpeg" and isinstance(picture, JpegImagePlugin.JpegImageFile):
                sampling = JpegImagePlugin.get_sampling(picture)
                smaller.save(output, "JPEG", qtables=picture.quantization, subsampling=sampling, optimize=True)
            else:
                without_alpha = smaller if smaller.mode in ("L", "RGB", "CMYK") else smaller.convert("RGB")
                without_alpha.save(output, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return output.getvalue()


def without_palette(picture: Image.Image) -> Image.Image:
    """Colours in place of numbers of colours, which cannot be averaged."""
    if picture.mode != "P":
        return picture
    return picture.convert("RGBA" if "transparency" in picture.info else "RGB")
