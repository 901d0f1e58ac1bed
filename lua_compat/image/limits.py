"""How large a picture may be before it is taken for an attack, and the check."""

from lua_compat.errors import ImageError

MAX_PIXELS = 89_478_485
"""Width times height; beyond it Pillow warns of a decompression bomb too. As float32 RGB it is 1 GiB."""

MAX_FILE_BYTES = 2**30
"""No picture within MAX_PIXELS needs a larger file."""


def check_size(name: str, width: int, height: int) -> None:
    """Refuse a picture of no or of absurd size before memory is taken for it; `name` opens the message."""
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the picture has no pixels (width {width}, height {height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {MAX_PIXELS} "
            "(a decompression bomb? if not, make the picture smaller first)"
        )
