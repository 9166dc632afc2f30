from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfdetr.data.images import open_image, to_rgb
from rfdetr.errors import ImageError


def picture(mode: str) -> Image.Image:
    """2 wide, 1 high: dark, then light."""
    return Image.fromarray(np.array([[[10, 20, 30], [200, 210, 220]]], dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "L", "LA", "1", "P", "PA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    pixels = np.asarray(to_rgb(picture(mode)))
    assert pixels.shape == (1, 2, 3)
    assert pixels[0, 0].max() < 60
    assert pixels[0, 1].min() > 180


def test_transparency_is_ignored(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_palette_with_transparency_brings_no_warning(tmp_path: Path) -> None:
    picture("P").save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert open_image(tmp_path / "a.png").mode == "RGB"


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / name)
    assert np.asarray(open_image(tmp_path / name))[0, :, 1].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        pytest.param(1, [[0, 1, 2]], id="as it is"),
        pytest.param(3, [[2, 1, 0]], id="half a turn"),
        pytest.param(6, [[0], [1], [2]], id="a quarter turn"),
    ],
)
def test_orientation_is_applied(tmp_path: Path, orientation: int, upright: list[list[int]]) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.asarray(open_image(tmp_path / "a.png"))[..., 0].tolist() == upright


def test_the_file_is_closed(tmp_path: Path) -> None:
    picture("RGB").save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert image.getpixel((1, 0)) == (200, 210, 220)


def noise(path: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(noise(path)[:-2000])
    with pytest.raises(ImageError, match="cannot be read: image file is truncated") as error:
        open_image(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_damaged_in_the_middle(tmp_path: Path) -> None:
    content = noise(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(content[:1000] + bytes(1000) + content[2000:])
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: "):
        open_image(tmp_path / "a.png")


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "a.jpg")
    assert str(error.value) == f"{tmp_path}/a.jpg: not an image, or in a format that Pillow cannot read"


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: no such file$"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r": is a folder, not an image$"):
        open_image(str(tmp_path))


def test_floating_point_pixels_have_no_range(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: .*its pixels are floating-point numbers of unknown range"):
        open_image(tmp_path / "a.tif")


def test_large_images_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2000, 1500)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_500_000)
    assert open_image(tmp_path / "a.png").size == (2000, 1500)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "a.png")
    assert str(error.value) == (
        f"{tmp_path}/a.png: larger than 2 megapixels. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    )
