from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from rfdetr.data.exif import without_orientation
from rfdetr.data.headers import read_header
from rfdetr.data.images import decode

ORIENTATION, MAKER = 0x0112, 0x010F


def file(kind: str, orientation: int | None, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[MAKER] = "somebody"
    if orientation:
        exif[ORIENTATION] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(pixels).save(content, kind, exif=exif, **options)
    return content.getvalue()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_states_that_it_is_upright_and_keeps_its_pixels(kind: str, orientation: int, endian: str) -> None:
    turned = file(kind, orientation, endian)
    upright = without_orientation(turned)
    assert len(upright) == len(turned)
    stored = decode(BytesIO(turned), "turned", upright=False)
    assert np.array_equal(np.asarray(decode(BytesIO(upright), "upright")), np.asarray(stored))
    with Image.open(BytesIO(upright)) as image:
        assert image.getexif()[MAKER] == "somebody"
    assert without_orientation(upright) == upright


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_states_no_orientation_stays_as_it_is(kind: str) -> None:
    assert without_orientation(file(kind, None)) == file(kind, None)


@pytest.mark.parametrize("length", [0, 3, 20, 30, 40, 60])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_files_are_no_error(kind: str, length: int) -> None:
    assert len(without_orientation(file(kind, 6)[:length])) == length


def test_the_header_is_upright() -> None:
    assert read_header(BytesIO(file("JPEG", 6)), "turned").upright_size_hw == (30, 20)
    assert read_header(BytesIO(without_orientation(file("JPEG", 6))), "upright").upright_size_hw == (20, 30)
