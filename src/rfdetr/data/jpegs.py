"""JPEG files straight into an array: Pillow's own picture would take four bytes per pixel, and a copy to get out of."""

from typing import BinaryIO

from simplejpeg import decode_jpeg

from rfdetr.data.channels import Pixels


def read_jpeg(content: BinaryIO, size_hw: tuple[int, int], factor: int) -> Pixels | None:
    """RGB at a reduced scale; the same numbers as Pillow's, since both use libjpeg-turbo.

    None: the file is damaged. How much of it is still of use, and what to say of it, Pillow decides.

    Args:
        content: an open file of a grey or coloured picture.
        size_hw: of the picture as it is stored.
        factor: by which both sides are divided, and rounded up.
    """
    content.seek(0)
    # Without a least size it comes in full.
    height, width = (-(-side // factor) if factor > 1 else 0 for side in size_hw)
    try:
        pixels: Pixels = decode_jpeg(content.read(), "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    return pixels
