"""Pictures of which Pillow keeps a part only: more than 8 bits in several channels, or more than four channels."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from rfdetr.data.channels import Pixels, in_known_range
from rfdetr.errors import ImageError

NPY_START = b"\x93NUMPY"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIXTEEN_BITS = re.compile(r"(RGB|RGBX|RGBA|LA);16([LBN])")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # TIFF tags
_NATIVE = {"little": "L", "big": "B"}[sys.byteorder]


def samples_per_pixel(image: Image.Image) -> int:
    """Channels of a file that is opened; Pillow's own picture may have fewer."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    return int(tags.get(_SAMPLES_PER_PIXEL, len(image.getbands())))


def _rawmode(image: Image.Image) -> str:
    """How the pixels lie in the file, in Pillow's words."""
    if not isinstance(image, PngImagePlugin.PngImageFile | TiffImagePlugin.TiffImageFile) or not image.tile:
        return ""
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def has_sixteen_bits(image: Image.Image) -> bool:
    """Whether Pillow would keep 8 of 16 bits, and `read_sixteen_bits` all."""
    return _SIXTEEN_BITS.fullmatch(_rawmode(image)) is not None


def loses_bits(image: TiffImagePlugin.TiffImageFile, num_channels: int) -> bool:
    """Whether Pillow would leave out bits or wanted channels of a TIFF that tifffile can read."""
    num_bands = len(image.getbands())
    if num_bands > 1 and max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) == 16 and not has_sixteen_bits(image):
        return True
    return samples_per_pixel(image) == num_channels != num_bands


def read_sixteen_bits(image: Image.Image, content: BinaryIO) -> Pixels:
    """All bits of an opened PNG or TIFF with 16 in several channels: Pillow gives the upper byte, or as told the other.

    It turns a TIFF upright, as ever, and a PNG not.
    """
    match = _SIXTEEN_BITS.fullmatch(_rawmode(image))
    if match is None:
        raise ValueError("not of 16 bits")
    layout, order = match.groups()
    if layout == "LA":  # four bytes, as an RGBA of 8 bits has
        both = _decoded(content, "RGBA")
        return _joined(both[..., ::2], both[..., 1::2])
    upper = np.asarray(image)
    lower = {"L": "B", "B": "L"}[order.replace("N", _NATIVE)]
    return _joined(upper, _decoded(content, f"{layout};16{lower}"))


def _joined(upper: Pixels, lower: Pixels) -> Pixels:
    both: Pixels = upper.astype(np.uint16) << 8 | lower
    return both


def _decoded(content: BinaryIO, rawmode: str) -> Pixels:
    content.seek(0)
    with Image.open(content) as image:
        image.tile = [
            tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
            for tile in cast("ImageFile.ImageFile", image).tile
        ]
        return np.asarray(image)


def read_npy(content: BinaryIO, path: str | Path | None) -> Pixels:
    """The array [H, W] or [H, W, C] of a `.npy` file; that of a path is mapped into memory, not read.

    Raises:
        ImageError: it is no such array, or of numbers without a known range.
    """
    pixels: Pixels = np.load(content if path is None else path, "r" if path else None, allow_pickle=False)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not pixels.size:
        raise ImageError(f"is an array of shape {pixels.shape}; allowed: (height, width) or (height, width, channels)")
    return in_known_range(pixels)


def npy_shape(content: BinaryIO) -> tuple[int, ...]:
    """Of the array of a `.npy` file."""
    version = np.lib.format.read_magic(content)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape: tuple[int, ...] = read(content)[0]
    return shape


class TiffPage:
    """The first page of a TIFF with any number of channels, read by tifffile."""

    def __init__(self, content: BinaryIO) -> None:
        content.seek(0)
        # A quarter of a second that other pictures do not need.
        self.page = import_module("tifffile").TiffFile(content).pages[0]
        self.size_hw = (int(self.page.imagelength), int(self.page.imagewidth))
        self.orientation = int(tag.value) if (tag := self.page.tags.get("Orientation")) else 1

    def read(self) -> Pixels:
        """As stored, not turned.

        Raises:
            ImageError: its range is not known, or it is not a flat picture.
        """
        pixels = self.page.asarray()
        if self.page.axes == "SYX":
            pixels = pixels.transpose(1, 2, 0)
        elif self.page.axes == "YX":
            pixels = pixels[..., None]
        elif self.page.axes != "YXS":
            raise ImageError(f"is a TIFF with axes {self.page.axes}; allowed: height, width and channels")
        return in_known_range(pixels)
