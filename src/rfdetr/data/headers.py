"""What the first bytes of a picture's file say of it; nothing is decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from rfdetr.data.deep_pictures import NPY_START, TIFF_STARTS, TiffPage, npy_shape
from rfdetr.data.images import opened, orientation_of, reasons, upright_hw
from rfdetr.data.pillow import QUIET, UNLIMITED
from rfdetr.errors import ImageError


@dataclass(frozen=True)
class Header:
    """A picture's file."""

    size_hw: tuple[int, int]
    """As it is stored."""
    upright_size_hw: tuple[int, int]
    """Turned as its EXIF orientation says."""
    format: str
    """Pillow's name of it, or `NPY`."""


def read_header(file: str | Path | BinaryIO, name: str | None = None) -> Header:
    """Raises:
    ImageError: no such file, not an image, or damaged at its beginning; names it.
    """
    with reasons(name or str(file)), opened(file) as content, QUIET, UNLIMITED:
        start = content.read(8)
        content.seek(0)
        if not start:
            raise ImageError("is empty")
        if start.startswith(NPY_START):
            return _of_array(content)
        try:
            with Image.open(content) as image:
                return _of_image(image)
        except UnidentifiedImageError:
            if not start.startswith(TIFF_STARTS):
                raise
        page = TiffPage(content)
        return Header(page.size_hw, upright_hw(page.size_hw, page.orientation), "TIFF")


def _of_image(image: Image.Image) -> Header:
    orientation = orientation_of(image)
    size_hw = (image.height, image.width)
    if image.format == "TIFF":  # whose size Pillow gives as it will be when it is read: upright
        upright = size_hw
        size_hw = upright_hw(upright, orientation)
    else:
        upright = upright_hw(size_hw, orientation)
    return Header(size_hw, upright, str(image.format))


def _of_array(content: BinaryIO) -> Header:
    shape = npy_shape(content)
    if len(shape) not in (2, 3):
        raise ImageError(f"is an array of shape {shape}; allowed: (height, width) or (height, width, channels)")
    size_hw = (shape[0], shape[1])
    return Header(size_hw, size_hw, "NPY")
