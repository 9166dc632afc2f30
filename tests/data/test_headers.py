import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from rfdetr.data.headers import Header, read_header
from rfdetr.data.images import decode
from rfdetr.data.resampling import picture_hw
from rfdetr.errors import ImageError


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.jpg", "RGB"),
        ("a.jpg", "L"),
        ("a.jpg", "CMYK"),
        ("a.png", "RGBA"),
        ("a.png", "P"),
        ("a.png", "1"),
        ("a.png", "I;16"),
        ("a.tif", "I;16"),
        ("a.tif", "F"),
        ("a.tif", "RGB"),
        ("a.webp", "RGB"),
        ("a.bmp", "RGB"),
        ("a.gif", "P"),
    ],
)
def test_size_and_format(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (7, 5)).save(tmp_path / name)
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name[2:], name[2:].upper())
    assert read_header(tmp_path / name) == Header((5, 7), (5, 7), kind)


def test_pictures_that_pillow_does_not_know(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 7, 6), dtype=np.uint16))
    assert read_header(tmp_path / "a.npy") == Header((5, 7), (5, 7), "NPY")
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 7, 6), np.uint16), extratags=[(274, "H", 1, 6, True)], **options)
    assert read_header(tmp_path / "a.tif") == Header((5, 7), (7, 5), "TIFF")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_decoded_picture(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (7, 5)).save(tmp_path / name, exif=exif)
    header = read_header(tmp_path / name)
    assert header.size_hw == picture_hw(decode(tmp_path / name, upright=False)) == (5, 7)
    assert header.upright_size_hw == picture_hw(decode(tmp_path / name))


def test_pixels_are_not_decoded_and_no_size_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png", compress_level=1)
    with (tmp_path / "a.png").open("rb") as file:
        beginning = file.read(200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_header(io.BytesIO(beginning)).size_hw == (10000, 20000)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(ImageError) as error:
        read_header(tmp_path / "a.jpg")
    assert str(error.value) == f"{tmp_path}/a.jpg: not an image, or in a format that Pillow cannot read"
    with pytest.raises(ImageError, match=r"^b\.jpg: is empty$"):
        read_header(io.BytesIO(), "b.jpg")
    with pytest.raises(ImageError, match=r"c\.jpg: no such file$"):
        read_header(tmp_path / "c.jpg")
    (tmp_path / "d.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"d\.tif: (cannot be read|not an image)"):
        read_header(tmp_path / "d.tif")
