import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rfdetr.data.preprocess import to_tensor
from rfdetr.errors import ImageError
from rfdetr.inference.sources import ImageSource, load

ARRAY = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(ARRAY).permute(2, 0, 1).float() / 255


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(ARRAY).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address at which a real server offers `tmp_path`."""
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(tmp_path), **kwargs)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_path_a_pil_image_an_array_and_a_tensor_hold_the_same_pixels(png: Path) -> None:
    sources: list[ImageSource] = [str(png), png, Image.fromarray(ARRAY), ARRAY, ARRAY[:, ::-1][:, ::-1], TENSOR]
    for source in sources:
        assert torch.equal(to_tensor(load(source)), TENSOR)


@pytest.mark.parametrize("num_channels", [1, 2, 4, 6])
def test_a_model_of_other_channels_takes_arrays_and_tensors_that_have_them(tmp_path: Path, num_channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, num_channels)).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    numbers = torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)
    for source in (pixels, numbers, tmp_path / "a.npy"):
        assert torch.equal(to_tensor(load(source, num_channels)), numbers)
    with pytest.raises(ImageError, match=rf"Allowed: \({num_channels}, height, width\), floating point in \[0, 1\]$"):
        load(TENSOR, num_channels)
    with pytest.raises(ImageError, match=rf"Allowed: \(height, width, {num_channels}\), uint8 or uint16$"):
        load(ARRAY, num_channels)


def test_files_and_pil_images_become_grey_for_a_model_of_one_channel(png: Path) -> None:
    grey = np.asarray(Image.fromarray(ARRAY).convert("L")).astype(np.float32) / 255
    for source in (png, Image.fromarray(ARRAY)):
        torch.testing.assert_close(to_tensor(load(source, 1)), torch.from_numpy(grey)[None], rtol=0, atol=1e-6)


def test_an_address_is_downloaded(png: Path, site: str) -> None:
    assert torch.equal(to_tensor(load(f"{site}/image.png")), TENSOR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_floating_type_become_float32(dtype: torch.dtype) -> None:
    assert load(TENSOR.to(dtype).requires_grad_()).dtype == np.float32


def test_rounding_errors_of_a_resize_are_no_reason_to_refuse() -> None:
    assert load(TENSOR.new_full((3, 4, 5), 1.00001)).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        pytest.param(Image.new("L", (2, 2), 51), 51, id="grey"),
        pytest.param(Image.new("RGBA", (2, 2), (51, 51, 51, 0)), 51, id="transparent"),
        pytest.param(Image.new("I;16", (2, 2), 51 * 257), 51, id="16 bits"),
        pytest.param(Image.new("I", (2, 2), 51), 51, id="8 bits in 32"),
        pytest.param(Image.new("F", (2, 2), 0.2), 51, id="floating point"),
        pytest.param(Image.new("1", (2, 2), 1), 255, id="black and white"),
        pytest.param(Image.new("RGB", (2, 2), (51, 51, 51)).convert("P"), 51, id="palette"),
    ],
)
def test_pil_images_of_any_mode(image: Image.Image, grey: int) -> None:
    torch.testing.assert_close(to_tensor(load(image)), torch.full((3, 2, 2), grey / 255), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            ARRAY.transpose(2, 0, 1),
            "array of shape (3, 5, 7), uint8: the channel axis is at the wrong end; pass image.transpose(1, 2, 0). "
            "Allowed: (height, width, 3), uint8 or uint16, RGB",
            id="array CHW",
        ),
        pytest.param(ARRAY[..., 0], "array of shape (5, 7), uint8: a grey image; stack it three times", id="array HW"),
        pytest.param(ARRAY[..., :1], "(5, 7, 1), uint8: a grey image; repeat its channel three times", id="array HW1"),
        pytest.param(
            np.zeros((5, 7, 4), np.uint8), "4 channels; without transparency it is image[:, :, :3]", id="array RGBA"
        ),
        pytest.param(ARRAY[None], "a batch; pass list(images)", id="array batch"),
        pytest.param(ARRAY[0, 0], "array of shape (3,), uint8: not an image", id="array of one pixel"),
        pytest.param(ARRAY[:0], "no pixels", id="array empty"),
        pytest.param(ARRAY / 255, "pass (image * 255).round().astype(np.uint8)", id="array of floats"),
        pytest.param(ARRAY.astype(np.int32), "int32: not uint8 or uint16. Allowed: (height", id="array of int32"),
        pytest.param(
            ARRAY[..., 0] / 255, "channel axis; not uint8; if its values are in [0, 1], pass (image", id="two problems"
        ),
        pytest.param(
            TENSOR.permute(1, 2, 0),
            "tensor of shape (5, 7, 3), float32: the channel axis is at the wrong end; pass image.permute(2, 0, 1). "
            "Allowed: (3, height, width), floating point in [0, 1], RGB",
            id="tensor HWC",
        ),
        pytest.param(TENSOR[0], "tensor of shape (5, 7), float32: a grey image; stack it three", id="tensor HW"),
        pytest.param(torch.zeros(4, 5, 7), "without transparency it is image[:3]", id="tensor RGBA"),
        pytest.param(torch.zeros(6, 5, 7), "6 channels instead of 3", id="tensor of 6 channels"),
        pytest.param(TENSOR[None], "a batch; pass list(images)", id="tensor batch"),
        pytest.param(TENSOR[:, :, :0], "no pixels", id="tensor empty"),
        pytest.param(
            torch.from_numpy(ARRAY).permute(2, 0, 1),
            "if its values are in [0, 255], pass image / 255",
            id="tensor uint8",
        ),
        pytest.param(torch.full((3, 2, 2), 2.0), "values from 2 to 2. Allowed", id="tensor above 1"),
        pytest.param(torch.full((3, 2, 2), -1.0), "values from -1 to -1", id="tensor below 0"),
        pytest.param(torch.full((3, 2, 2), torch.nan), "values from nan to nan", id="tensor of NaN"),
        pytest.param(
            Image.new("F", (2, 2), 2.0), "floating-point numbers from 2 to 2; allowed: 0 to 1", id="PIL float"
        ),
        pytest.param(Image.new("L", (0, 7)), "PIL image of mode L, 0 x 7 pixels: no pixels", id="PIL without columns"),
        pytest.param(Image.new("RGB", (5, 0)), "PIL image of mode RGB, 5 x 0 pixels: no pixels", id="PIL without rows"),
        pytest.param(b"\x89PNG", "a value of type bytes is not an image. Allowed: a path, an http(s)", id="bytes"),
        pytest.param(None, "a value of type NoneType is not an image", id="nothing"),
        pytest.param("/no/such.png", "/no/such.png: no such file", id="missing file"),
    ],
)
def test_what_is_not_an_image_is_refused(source: ImageSource, message: str) -> None:
    with pytest.raises(ImageError) as error:
        load(source)
    assert message in str(error.value)


def test_a_pil_image_that_cannot_be_decoded(png: Path) -> None:
    kind = "PIL image of mode RGB, 64 x 64 pixels"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(png)
    with Image.open(png) as unread:
        pass
    png.write_bytes(png.read_bytes()[:-1000])
    with Image.open(png) as image, pytest.raises(ImageError, match=f"^{kind}: cannot be read: image file is truncated"):
        load(image)
    image.close()
    closed = "is closed. Pass it while it is open, or the path of its file"
    for source in (unread, image):
        with pytest.raises(ImageError, match=f"^{kind}: {closed}$"):
            load(source)


def test_addresses_that_hold_no_image(site: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(ImageError, match=r"/page\.html: not an image, or in a format that Pillow cannot read"):
        load(f"{site}/page.html")
    with pytest.raises(ImageError, match=r"/gone\.png: cannot be downloaded: the server answers 404"):
        load(f"{site}/gone.png")


def test_a_damaged_download(site: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(ARRAY).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:80])
    with pytest.raises(ImageError, match=r"/cut\.png: cannot be read: "):
        load(f"{site}/cut.png")


def test_an_address_that_cannot_be_parsed() -> None:
    with pytest.raises(ImageError, match=r"^http://\[x: cannot be downloaded: "):
        load("http://[x")
