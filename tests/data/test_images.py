import io
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from PIL import Image

from rfdetr.data.images import decode, to_eight_bits, to_picture
from rfdetr.data.resampling import picture_hw
from rfdetr.errors import ImageError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def picture(mode: str) -> Image.Image:
    """2 wide, 1 high: dark, then light."""
    return Image.fromarray(np.array([[[10, 20, 30], [200, 210, 220]]], dtype=np.uint8)).convert(mode)


def open_image(path: Path | str) -> Image.Image:
    """To look at."""
    return to_eight_bits(decode(path))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "L", "LA", "1", "P", "PA", "I", "HSV", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    pixels = np.asarray(to_eight_bits(to_picture(picture("L").convert(mode) if mode == "I" else picture(mode))))
    assert pixels.shape == (1, 2, 3)
    assert pixels[0, 0].max() < 60
    assert pixels[0, 1].min() > 180


@pytest.mark.parametrize(
    ("num_channels", "pixel"), [(1, [18]), (2, [18, 40]), (3, [10, 20, 30]), (4, [10, 20, 30, 40])]
)
def test_a_picture_has_the_channels_that_the_model_takes(tmp_path: Path, num_channels: int, pixel: list[int]) -> None:
    Image.new("RGBA", (2, 1), (10, 20, 30, 40)).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", num_channels=num_channels)
    assert found[0, 0].tolist() == pixel


@pytest.mark.parametrize(("num_channels", "pixel"), [(1, [9]), (2, [9, 255]), (3, [9, 9, 9]), (4, [9, 9, 9, 255])])
def test_a_grey_picture_is_grey_in_every_channel_and_opaque(
    tmp_path: Path, num_channels: int, pixel: list[int]
) -> None:
    Image.new("L", (2, 1), 9).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", num_channels=num_channels)[0, 0].tolist() == pixel


def test_four_inks_are_four_channels(tmp_path: Path) -> None:
    Image.new("CMYK", (2, 1), (1, 2, 3, 4)).save(tmp_path / "a.tif")
    assert decode(tmp_path / "a.tif", num_channels=4)[0, 0].tolist() == [1, 2, 3, 4]


def test_other_numbers_of_channels_must_be_those_of_the_file(tmp_path: Path) -> None:
    bands = RNG.integers(0, 256, (4, 9, 6), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="contig")
    np.save(tmp_path / "a.npy", bands)
    picture("RGB").save(tmp_path / "a.png")
    for name in ("a.tif", "a.npy"):
        assert (decode(tmp_path / name, num_channels=6) == bands).all()
        with pytest.raises(ImageError, match=r"has 6 channels, the model takes 3 \(num_channels\)"):
            decode(tmp_path / name)
    with pytest.raises(ImageError, match=r"a\.png: has 3 channels, the model takes 6"):
        decode(tmp_path / "a.png", num_channels=6)


def test_a_fourth_channel_that_is_no_alpha(tmp_path: Path) -> None:
    """Red, green, blue and near infrared, say; Pillow leaves it out."""
    bands = RNG.integers(0, 256, (4, 9, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    assert (decode(tmp_path / "a.tif", num_channels=4) == bands).all()
    assert (decode(tmp_path / "a.tif") == bands[..., :3]).all()


def png_of_sixteen_bits(pixels: Any, colour_type: int) -> bytes:
    """A PNG without filters, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    height, width = pixels.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "num_channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_a_png_keeps_all_of_its_sixteen_bits(colour_type: int, num_channels: int) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, num_channels), dtype=np.uint16)
    found = decode(io.BytesIO(png_of_sixteen_bits(pixels, colour_type)), "a.png", num_channels=num_channels)
    assert found.dtype == np.uint16
    assert (found == pixels).all()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"byteorder": ">"}, id="big-endian"),
        pytest.param({"compression": "zlib"}, id="compressed"),
        pytest.param({"planarconfig": "separate"}, id="channel after channel"),
    ],
)
def test_a_tiff_keeps_all_of_its_sixteen_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    stored = DEEP.transpose(2, 0, 1) if "planarconfig" in options else DEEP
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    found = decode(tmp_path / "a.tif")
    assert found.dtype == np.uint16
    assert (found == DEEP).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_is_the_same_in_three_channels(tmp_path: Path, order: Literal["<", ">"]) -> None:
    grey = np.array([[0, 1, 256, 65535]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", grey, byteorder=order)
    np.save(tmp_path / "a.npy", grey.astype(f"{order}u2"))
    for name in ("a.tif", "a.npy"):
        found = decode(tmp_path / name)
        assert found.dtype == np.uint16
        assert [found[..., channel].tolist() for channel in range(3)] == [grey.tolist()] * 3
        assert decode(tmp_path / name, num_channels=1)[..., 0].tolist() == grey.tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_looked_at_by_the_upper_eight(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / name)
    assert np.asarray(open_image(tmp_path / name))[0, :, 1].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        pytest.param([0, 7, 255], np.uint8, [0, 7, 255], id="eight bits in thirty-two"),
        pytest.param([0, 7, 256], np.uint16, [0, 7, 256], id="sixteen bits in thirty-two"),
    ],
)
def test_wide_integers_have_the_bits_that_their_values_need(
    tmp_path: Path, values: list[int], kind: type, found: list[int]
) -> None:
    Image.fromarray(np.array([values], dtype=np.int32)).save(tmp_path / "a.tif")
    pixels = decode(tmp_path / "a.tif")
    assert pixels.dtype == kind
    assert pixels[0, :, 0].tolist() == found


def test_integers_of_more_than_sixteen_bits_and_negative_ones(tmp_path: Path) -> None:
    for values, text in (([0, 65536], "integers from 0 to 65536"), ([-1, 5], "integers from -1 to 5")):
        Image.fromarray(np.array([values], dtype=np.int32)).save(tmp_path / "a.tif")
        with pytest.raises(ImageError, match=rf"a\.tif: its pixels are {text}; allowed: 0 to 65535 \(16 bits\)"):
            decode(tmp_path / "a.tif")


def test_floating_point_pixels_are_from_0_to_1(tmp_path: Path) -> None:
    values = np.array([[0, 0.1234567, 1]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = decode(tmp_path / "a.tif")
    assert found.dtype == np.float32
    assert (found[..., 2] == values).all()
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 31, 255]
    for wrong, text in ((values * 2, "from 0 to 2"), (values * np.float32("nan"), "from nan to nan")):
        Image.fromarray(wrong).save(tmp_path / "a.tif")
        with pytest.raises(
            ImageError, match=rf"its pixels are floating-point numbers {text}; allowed: 0 to 1\. Divide"
        ):
            decode(tmp_path / "a.tif")


def test_an_array_is_mapped_not_read_and_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 6, 5), dtype=np.uint16))
    assert isinstance(decode(tmp_path / "a.npy", num_channels=5), np.memmap)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(ImageError, match=r"b\.npy: cannot be read: Array can't be memory-mapped"):
        decode(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.ones(4, dtype=np.uint8))
    with pytest.raises(ImageError, match=r"c\.npy: is an array of shape \(4,\); allowed: \(height, width\) or"):
        decode(tmp_path / "c.npy")


def test_transparency_is_ignored(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_palette_with_transparency_brings_no_warning(tmp_path: Path) -> None:
    indices = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    indices.putpalette([10, 20, 30, 40, 50, 60])
    indices.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert open_image(tmp_path / "a.png").mode == "RGB"
    assert decode(tmp_path / "a.png", num_channels=4).tolist() == [[[10, 20, 30, 0], [40, 50, 60, 128]]]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_or_a_document_the_first_picture_counts(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(tmp_path / name).tobytes() == frames[0].tobytes()


def mark(orientation: int, path: Path, pixels: Any, **options: Any) -> None:
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **options)


SIX = np.array([[0, 40, 80], [120, 160, 200]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[0, 40, 80], [120, 160, 200]]),
        (2, [[80, 40, 0], [200, 160, 120]]),
        (3, [[200, 160, 120], [80, 40, 0]]),
        (4, [[120, 160, 200], [0, 40, 80]]),
        (5, [[0, 120], [40, 160], [80, 200]]),
        (6, [[120, 0], [160, 40], [200, 80]]),
        (7, [[200, 80], [160, 40], [120, 0]]),
        (8, [[80, 200], [40, 160], [0, 120]]),
        (9, [[0, 40, 80], [120, 160, 200]]),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_orientation_is_applied_unless_boxes_were_drawn_without(
    tmp_path: Path, name: str, orientation: int, upright: list[list[int]]
) -> None:
    mark(orientation, tmp_path / name, SIX)
    for num_channels in (1, 3):
        assert decode(tmp_path / name, num_channels=num_channels)[..., 0].tolist() == upright
        as_stored = decode(tmp_path / name, num_channels=num_channels, upright=False)
        assert as_stored[..., 0].tolist() == SIX.tolist()


def test_sixteen_bits_are_turned_as_well(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert (decode(tmp_path / "a.tif") == np.rot90(DEEP, -1)).all()
    assert (decode(tmp_path / "a.tif", upright=False) == DEEP).all()


def smooth(height: int, width: int) -> Any:
    small = RNG.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("at_least", "size"),
    [
        (None, (331, 247)),
        (124, (331, 247)),
        (123, (166, 124)),
        (61, (83, 62)),
        (31, (83, 62)),
        (30, (42, 31)),
        (1, (42, 31)),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_large_picture_comes_smaller_and_not_too_small(
    tmp_path: Path, name: str, at_least: int | None, size: tuple[int, int]
) -> None:
    Image.fromarray(smooth(247, 331)).save(tmp_path / name)
    found = decode(tmp_path / name, at_least=at_least)
    assert picture_hw(found) == size[::-1]
    whole = open_image(tmp_path / name)
    expected = np.asarray(whole.reduce(round(whole.width / size[0])), dtype=np.int64)
    assert np.abs(found - expected).mean() < 1.5


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_comes_smaller_with_its_pixels_in_place(tmp_path: Path, orientation: int) -> None:
    mark(orientation, tmp_path / "a.jpg", smooth(247, 331), quality=95)
    expected = open_image(tmp_path / "a.jpg").reduce(4)
    found = decode(tmp_path / "a.jpg", at_least=60)
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 1.5


def test_deep_pictures_come_smaller_too(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 60, 3), 1001, np.uint16), photometric="rgb")
    found = decode(tmp_path / "a.tif", at_least=20)
    assert found.shape == (20, 30, 3)
    assert found.dtype == np.uint16
    assert (found == 1001).all()


@pytest.mark.parametrize("name", ["ünï çødé 图.png", "a b%20;'.png", "-.png"])
def test_a_file_may_have_any_name_and_be_a_link(tmp_path: Path, name: str) -> None:
    picture("RGB").save(tmp_path / name)
    (tmp_path / "link.jpg").symlink_to(tmp_path / name)
    assert open_image(tmp_path / name).size == open_image(tmp_path / "link.jpg").size == (2, 1)


def test_the_file_is_closed(tmp_path: Path) -> None:
    picture("RGB").save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert image.getpixel((1, 0)) == (200, 210, 220)


def test_an_open_file_is_read_from_its_beginning_and_stays_open(tmp_path: Path) -> None:
    picture("RGB").save(tmp_path / "a.png")
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    content.seek(20)
    assert decode(content, "shard.tar/a.png").tobytes() == decode(content).tobytes()
    with pytest.raises(ImageError, match=r"^shard\.tar/b\.png: is empty$"):
        decode(io.BytesIO(), "shard.tar/b.png")


def noise(path: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"])
def test_a_truncated_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(noise(path)[:-1000])
    with pytest.raises(ImageError, match=r": (cannot be read: |not an image)") as error:
        open_image(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_truncated_file_of_sixteen_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        png_of_sixteen_bits(RNG.integers(0, 65536, (64, 64, 3), dtype=np.uint16), 2)[:-9000]
    )
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: image file is truncated"):
        decode(tmp_path / "a.png")


def test_a_file_damaged_in_the_middle(tmp_path: Path) -> None:
    content = noise(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(content[:1000] + bytes(1000) + content[2000:])
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: "):
        open_image(tmp_path / "a.png")


def test_damaged_metadata_do_no_harm(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == (8, 8)


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "a.jpg")
    assert str(error.value) == f"{tmp_path}/a.jpg: not an image, or in a format that Pillow cannot read"


def test_no_such_file_and_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: no such file$"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r": is a folder, not an image$"):
        open_image(str(tmp_path))
    (tmp_path / "b.jpg").touch()
    with pytest.raises(ImageError, match=r"b\.jpg: is empty$"):
        open_image(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"c\.jpg: is a symbolic link to .*gone\.jpg, which does not exist$"):
        open_image(tmp_path / "c.jpg")


def test_without_a_setting_the_limit_is_that_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2000, 1500)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_500_000)
    assert open_image(tmp_path / "a.png").size == (2000, 1500)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "a.png")
    assert str(error.value) == (
        f"{tmp_path}/a.png: larger than 2 megapixels. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    )
    assert decode(tmp_path / "a.png", max_megapixels=4).tobytes() == bytes(3 * 2000 * 1500)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, np.zeros((1500, 2000), dtype=np.uint8))
    elif name == "a.tif":
        tifffile.imwrite(path, np.zeros((1500, 2000, 2), np.uint16), photometric="minisblack", planarconfig="contig")
    else:
        Image.new("L", (2000, 1500)).save(path)
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError) as error:
        decode(path, max_megapixels=2.5)
    assert str(error.value) == (
        f"{path}: has 2000 x 1500 pixels, 3 megapixels; allowed: 2.5. Make it smaller, or raise max_image_megapixels"
    )
