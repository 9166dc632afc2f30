import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfdetr.data.images import decode
from rfdetr.data.jpegs import read_jpeg
from rfdetr.errors import ImageError

RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)).resize((331, 247), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image = IMAGE, **options: Any) -> io.BytesIO:
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}, {"keep_rgb": True}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_pixel_is_pillows(mode: str, options: dict[str, Any], factor: int) -> None:
    content = jpeg(IMAGE.convert(mode), **options)
    with Image.open(content) as image:
        image.draft(None, (image.width // factor, image.height // factor))
        expected = np.asarray(image.convert("RGB"))
    found = read_jpeg(content, (247, 331), factor)
    assert found is not None
    assert (found == expected).all()


def test_what_is_damaged_is_left_to_pillow(tmp_path: Path) -> None:
    whole = jpeg().getvalue()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with (tmp_path / "cut.jpg").open("rb") as content:
        assert read_jpeg(content, (247, 331), 1) is None
    with pytest.raises(ImageError, match=r"cut\.jpg: cannot be read: image file is truncated"):
        decode(tmp_path / "cut.jpg")


def test_printing_inks_come_smaller_too(tmp_path: Path) -> None:
    IMAGE.convert("CMYK").save(tmp_path / "a.jpg")
    whole, half = decode(tmp_path / "a.jpg"), decode(tmp_path / "a.jpg", at_least=120)
    assert half.shape == (124, 166, 3)
    assert np.abs(half[:-1, :-1].mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 2
