"""The one place that opens pictures with Pillow: PNG, and the JPEGs that simplejpeg cannot read."""

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lua_compat.errors import ImageError
from lua_compat.image.limits import check_size


def pillow_pixels(data: bytes, file_format: str, name: str, rawmode: str | None = None) -> NDArray[np.uint8]:
    """The pixels of a file's bytes in the file's own channels, (H, W) or (H, W, C); 16-bit gray is uint16.

    A palette is looked up, bits become 0 and 255. rawmode replaces Pillow's own choice of how the file's
    bytes become channels. Raises ImageError with `name` for whatever Pillow cannot read.
    """
    try:
        with warnings.catch_warnings():  # about size (checked here), text, colour profiles
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[file_format]) as picture:
                check_size(name, *picture.size)
                if rawmode is not None:
                    picture.tile = [tile._replace(args=rawmode) for tile in picture.tile]
                if picture.mode == "P":
                    return np.asarray(picture.convert("RGB"))
                return np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    except UnidentifiedImageError as error:  # its own message names a BytesIO object
        raise ImageError(f"{name}: damaged, not a readable {file_format} file") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(f"{name}: damaged {file_format} file ({error})") from error
