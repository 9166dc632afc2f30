"""Image files of any kind -> upright pictures, in full or at reduced scale; or an error that names the file."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from rfdetr.data.channels import check_channels, in_known_range, to_channels, turned
from rfdetr.data.deep_pictures import (
    NPY_START,
    TIFF_STARTS,
    TiffPage,
    has_sixteen_bits,
    loses_bits,
    read_npy,
    read_sixteen_bits,
    samples_per_pixel,
)
from rfdetr.data.jpegs import read_jpeg
from rfdetr.data.pillow import QUIET, UNLIMITED
from rfdetr.data.resampling import Picture, picture_hw, reduce, reduction
from rfdetr.errors import ImageError

_QUARTER_TURNS = (5, 6, 7, 8)
# What `turned` does, of Pillow's RGB: by way of an array, a turned and reduced PNG would take 40% longer.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I", "F")
_ORIENTATION = 0x0112  # of EXIF, and of TIFF
_INVERSE = {6: 8, 8: 6}  # the other orientations undo themselves


def decode(
    file: str | Path | BinaryIO,
    name: str | None = None,
    *,
    num_channels: int = 3,
    at_least: int | None = None,
    upright: bool = True,
    max_megapixels: float | None = None,
) -> Picture:
    """The picture of a file as an array [H, W, C].

    Its first frame or page, without transparency unless `num_channels` asks for it. Values of more than 8 bits stay as
    they are: uint16, or float32 in [0, 1].

    Args:
        file: a path, or an open file.
        name: what messages call it.
        num_channels: grey, grey with alpha, RGB and RGBA become each other; of others a file must have as many.
        at_least: the picture may come at 1/2, 1/4 or 1/8 of its size, as `reduction` says.
        upright: apply the orientation that EXIF states.
        max_megapixels: larger files are refused before they are decoded. None: Pillow's own limit.

    Raises:
        ImageError: no such file, not an image, damaged, too large, or of other channels.
    """
    with reasons(name or str(file)), opened(file) as content, QUIET, UNLIMITED if max_megapixels else nullcontext():
        start = content.read(8)
        content.seek(0)
        if not start:
            raise ImageError("is empty")
        if start.startswith(NPY_START):
            array = read_npy(content, file if isinstance(file, str | Path) else None)
            check_megapixels(picture_hw(array), max_megapixels)
            return _finished(array, num_channels, reduction(picture_hw(array), at_least))
        is_tiff = start.startswith(TIFF_STARTS)
        try:
            with Image.open(content) as image:
                check_megapixels((image.height, image.width), max_megapixels)
                if not (is_tiff and loses_bits(image, num_channels)):
                    return _of_pillow(image, content, num_channels, at_least, upright)
        except UnidentifiedImageError:
            if not is_tiff:
                raise
        page = TiffPage(content)
        check_megapixels(page.size_hw, max_megapixels)
        array = turned(page.read(), page.orientation if upright else 1)
        return _finished(array, num_channels, reduction(picture_hw(array), at_least))


def to_eight_bits(picture: Picture) -> Image.Image:
    """A picture in Pillow's RGB, with the upper 8 of its bits; without a third channel it is grey."""
    pixels = picture[..., :3] if picture.shape[2] > 2 else picture[..., :1].repeat(3, axis=2)
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    elif pixels.dtype == np.float32:
        pixels = (pixels * 255).round()
    return Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))


def to_picture(image: Image.Image, num_channels: int = 3, orientation: int = 1, factor: int = 1) -> Picture:
    """An image of any mode, turned by an orientation of EXIF and reduced, as `decode` gives it.

    Raises:
        ImageError: the range of its values is not known, or it has other channels.
    """
    image = _colour(image, num_channels)
    if num_channels == 3 and image.mode in ("L", "LA", "RGB", "RGBA"):
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        upright = rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb
        return np.asarray(upright if factor == 1 else upright.reduce(factor))
    pixels = in_known_range(np.asarray(image))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return _finished(turned(pixels, orientation), num_channels, factor)


def _colour(image: Image.Image, num_channels: int) -> Image.Image:
    """In grey or RGB, with or without alpha; four channels of another meaning stay where four are wanted."""
    mode = image.mode
    if mode in _PLAIN_MODES or mode.startswith("I;16") or (num_channels == 4 and mode in ("CMYK", "RGBX")):
        return image
    if mode == "1":
        return image.convert("L")
    has_alpha = mode in ("PA", "La", "RGBa") or (mode == "P" and "transparency" in image.info)
    return image.convert("RGBA" if has_alpha and mode != "La" else "LA" if mode == "La" else "RGB")


def _of_pillow(
    image: Image.Image, content: BinaryIO, num_channels: int, at_least: int | None, upright: bool
) -> Picture:
    """An opened image that is not decoded yet."""
    num_samples = samples_per_pixel(image)
    if max(num_samples, num_channels) > 4:
        check_channels(num_samples, num_channels)
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    orientation = orientation_of(image)
    if is_tiff:  # which Pillow turns while it reads them
        orientation = 1 if upright else _INVERSE.get(orientation, orientation)
    elif not upright:
        orientation = 1
    height, width = upright_hw((image.height, image.width), orientation)
    factor = reduction((height, width), at_least)
    if has_sixteen_bits(image):
        return _finished(turned(read_sixteen_bits(image, content), orientation), num_channels, factor)
    # What is left over at an edge must not come to lie at another one.
    stays_aligned = orientation == 1 or (height % factor, width % factor) == (0, 0)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and stays_aligned:
        is_plain = num_channels == 3 and image.mode in ("L", "RGB")
        pixels = read_jpeg(content, (image.height, image.width), factor) if is_plain else None
        if pixels is not None:
            return np.ascontiguousarray(turned(pixels, orientation))
        image.draft(None, (image.width // factor, image.height // factor))
        factor = 1
    image.load()
    return to_picture(image, num_channels, orientation, factor)


def array_picture(pixels: Any, num_channels: int = 3) -> Picture:
    """An array [H, W] or [H, W, C] of any type of numbers, as `decode` gives a file of it.

    Raises:
        ImageError: of another shape, or of other numbers or channels.
    """
    if pixels.ndim not in (2, 3):
        raise ImageError(f"is an array of shape {pixels.shape}; allowed: (height, width) or (height, width, channels)")
    return _finished(in_known_range(pixels if pixels.ndim == 3 else pixels[..., None]), num_channels, 1)


def _finished(pixels: Any, num_channels: int, factor: int) -> Picture:
    return reduce(to_channels(pixels, num_channels), factor)


def orientation_of(image: Image.Image) -> int:
    """As EXIF states it, 1 to 8; 1 is upright."""
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            return int(image.tag_v2.get(_ORIENTATION, 1))
        # What the class of PNG overrides would decode the pixels, to look for metadata behind them.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # damaged metadata of a picture that is whole
        return 1


def upright_hw(size_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of a picture after it is turned."""
    return (size_hw[1], size_hw[0]) if orientation in _QUARTER_TURNS else size_hw


def check_megapixels(size_hw: tuple[int, int], limit: float | None) -> None:
    """Raises:
    ImageError: there are more. (Without a limit Pillow has its own.)
    """
    megapixels = math.prod(size_hw) / 10**6
    if limit is not None and megapixels > limit:
        raise ImageError(
            f"has {size_hw[1]} x {size_hw[0]} pixels, {megapixels:.4g} megapixels; allowed: {limit:.4g}. "
            "Make it smaller, or raise max_image_megapixels"
        )


@contextmanager
def opened(file: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """An open file, from its beginning."""
    if isinstance(file, str | Path):
        with Path(file).open("rb") as content:
            yield content
    else:
        file.seek(0)
        yield file


@contextmanager
def reasons(name: str) -> Iterator[None]:
    """Whatever goes wrong within becomes an ImageError that begins with the name."""
    try:
        yield
    except ImageError as error:
        reason = str(error)
    except FileNotFoundError:
        is_link = Path(name).is_symlink()
        reason = f"is a symbolic link to {Path(name).readlink()}, which does not exist" if is_link else "no such file"
    except IsADirectoryError:
        reason = "is a folder, not an image"
    except UnidentifiedImageError:
        reason = "not an image, or in a format that Pillow cannot read"
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        reason = f"larger than {limit} megapixels. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        reason = f"cannot be read: {str(error) or type(error).__name__}"
    else:
        return
    raise ImageError(f"{name}: {reason}") from None
