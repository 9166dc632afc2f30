"""Image files -> upright 8-bit RGB."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rfdetr.errors import ImageError

# PIL clips these to 255 on conversion, which turns 16-bit pictures white.
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def open_image(path: str | Path) -> Image.Image:
    """The image of a file, RGB and upright (its EXIF orientation applied). Transparency is ignored.

    Raises:
        ImageError: no such file, not an image, damaged, or too large; names the file.
    """
    try:
        with warnings.catch_warnings():
            # PIL warns about oddities (metadata, large sizes) of files that it can read all the same.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image, or in a format that Pillow cannot read") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(
            f"{path}: larger than {limit} megapixels. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImageError(f"{path}: cannot be read: {error or type(error).__name__}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB. 16-bit grey keeps its upper 8 bits.

    Raises:
        ImageError: the pixels have no known range of values.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")
