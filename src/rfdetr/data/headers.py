"""What the first bytes of a picture's file say of it; nothing is decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from rfdetr.data.deep_pictures import NPY_START, TIFF_STARTS, TiffPage, bits_per_sample, npy_header, samples_per_pixel
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
    channels: int
    """Of the file; a palette is one."""
    bits: int
    """Per channel."""
    format: str
    """Pillow's name of it, or `NPY`."""
    num_frames: int = 1
    """Frames of an animation, pages of a document; the first one counts."""


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
        size_hw = upright_hw(page.size_hw, page.orientation)
        return Header(
            page.size_hw, size_hw, page.num_channels, page.bits, "TIFF", _counted(lambda: len(page.file.pages))
        )


def _of_image(image: Image.Image) -> Header:
    orientation = orientation_of(image)
    size_hw = (image.height, image.width)
    if image.format == "TIFF":  # whose size Pillow gives as it will be when it is read: upright
        upright = size_hw
        size_hw = upright_hw(upright, orientation)
    else:
        upright = upright_hw(size_hw, orientation)
    num_frames = _counted(lambda: getattr(image, "n_frames", 1))
    return Header(size_hw, upright, samples_per_pixel(image), bits_per_sample(image), str(image.format), num_frames)


def _counted(count: Callable[[], int]) -> int:
    """1 where what follows the first frame is damaged."""
    try:
        return int(count())
    except Exception:  # decoders raise whatever a damaged file leads them to
        return 1


def _of_array(content: BinaryIO) -> Header:
    shape, dtype = npy_header(content)
    if len(shape) not in (2, 3):
        raise ImageError(f"is an array of shape {shape}; allowed: (height, width) or (height, width, channels)")
    size_hw = (shape[0], shape[1])
    return Header(size_hw, size_hw, shape[2] if len(shape) == 3 else 1, 8 * dtype.itemsize, "NPY")
