"""A picture of pictures: thumbnails in rows, with lines of text below each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lua_compat import image
from lua_compat.atomic_file import replace_file
from lua_compat.errors import ImageError
from xnornet_port.errors import XnorNetError

__all__ = ["Tile", "check_sheet", "thumbnail", "write_sheet"]

THUMBNAIL = 200  # pixels
MARGIN = 12
LINE = 17
FONT_SIZE = 13
MOST_COLUMNS = 6
MOST_TILES = 600
PAPER, INK, FAINT = (250, 250, 248), (28, 28, 30), (110, 110, 112)


class Tile(NamedTuple):
    """A picture's file and the lines below it, the first in ink, the others fainter."""

    path: str
    lines: list[str]


def write_sheet(path: Path, tiles: Sequence[Tile]) -> None:
    """Write a PNG. Raises XnorNetError as `check_sheet` does."""
    check_sheet(path, len(tiles))
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(tiles))))
    n_lines = max(len(tile.lines) for tile in tiles)
    width, height = THUMBNAIL + MARGIN, THUMBNAIL + LINE * n_lines + 2 * MARGIN
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for number, tile in enumerate(tiles):
        left = MARGIN + number % columns * width
        top = MARGIN + number // columns * height
        small = thumbnail(tile.path, THUMBNAIL)
        sheet.paste(small, (left + (THUMBNAIL - small.width) // 2, top + (THUMBNAIL - small.height) // 2))
        for line, text in enumerate(tile.lines):
            place = (left, top + THUMBNAIL + 6 + line * LINE)
            draw.text(place, _shortened(text, font), fill=INK if line == 0 else FAINT, font=font)
    with replace_file(path, sync=False) as file:
        sheet.save(file, "PNG")


def check_sheet(path: Path, n_tiles: int) -> None:
    """XnorNetError for another kind of file than PNG, a folder that is not there, no pictures, or more than fit."""
    if path.suffix.lower() != ".png":
        raise XnorNetError(f"{path}: the name of a sheet should end in .png")
    if not path.parent.is_dir():
        raise XnorNetError(f"{path}: the folder {path.parent} does not exist")
    if not 0 < n_tiles <= MOST_TILES:
        raise XnorNetError(f"{path}: not written, a sheet takes 1 to {MOST_TILES} pictures, these are {n_tiles}")


def thumbnail(path: str, side: int) -> Image.Image:
    """The whole picture, at most `side` pixels wide and high; gray where it cannot be read."""
    try:
        pixels = image.decode(path)
    except ImageError:
        return Image.new("RGB", (side, side), FAINT)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a line as fits below a thumbnail."""
    if font.getlength(text) <= THUMBNAIL:
        return text
    while text and font.getlength(text + "...") > THUMBNAIL:
        text = text[:-1]
    return text + "..."
