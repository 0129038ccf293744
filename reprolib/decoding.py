"""Image files, opened one by one: the same checks for a run and for ``reprolib check-data --deep``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SMALLEST = 8  # the least height and width in pixels of an image file: a smaller image cannot show a person


class ImageError(ValueError):
    """A file is not a readable image; the message names the file and the remedy."""


@contextmanager
def opened(frame: Path | np.ndarray) -> Iterator[Image.Image]:
    """Open a file, or an array (h, w, 3) uint8; PIL decodes it when its pixels are used.

    A photo that its camera marked as turned (EXIF orientation) is turned upright.

    Raises:
        ImageError: any problem with the file, also one that occurs while the caller decodes it.
    """
    try:
        with Image.fromarray(frame) if isinstance(frame, np.ndarray) else Image.open(frame) as image:
            if not isinstance(frame, np.ndarray) and min(image.size) < SMALLEST:
                raise ValueError(f"{image.width}x{image.height} pixels, the minimum is {SMALLEST}x{SMALLEST}")
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} has more than 8 bits per channel; save it with 8 bits")
            if image.format in ("JPEG", "MPO"):  # those of cameras; a PNG would be decoded for it
                ImageOps.exif_transpose(image, in_place=True)
            yield image
    except Exception as error:  # the exception's type depends on the format
        raise ImageError(f"{frame}: not a readable image ({error}); restore it, or leave it out") from error
