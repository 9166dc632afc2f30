"""The forms in which a user may pass an image -> its pixels."""

import io
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.images import decode, reasons, to_picture
from rfdetr.errors import ImageError
from rfdetr.weights.web import open_url, reason

ImageSource: TypeAlias = (
    str | Path | Image.Image | UInt8[np.ndarray, "_ _ _"] | UInt16[np.ndarray, "_ _ _"] | Float[Tensor, "_ _ _"]
)

# Resizing in floating point overshoots [0, 1] by less than this.
ROUNDING = 1e-4
_RGB = ", RGB"


def load(source: ImageSource, num_channels: int = 3) -> Pixels:
    """The pixels [H, W, N] of a file, an http(s) address, a PIL image, an array (HWC) or a tensor (CHW in [0, 1]).

    Three channels are RGB. Files and PIL images are converted to the number of channels where `decode` can; arrays and
    tensors must have it.

    Raises:
        ImageError: it cannot be read, or is of another kind; says what is allowed and how to get there.
    """
    match source:
        case str() if source.startswith(("http://", "https://")):
            return decode(_download(source), source, num_channels=num_channels)
        case str() | Path():
            return decode(source, num_channels=num_channels)
        case Image.Image():
            with reasons(f"PIL image of mode {source.mode}, {source.width} x {source.height} pixels"):
                _check_pil(source)
                return to_picture(source, num_channels)
        case np.ndarray():
            _check_array(source, num_channels)
            return source
        case Tensor():
            _check_tensor(source, num_channels)
            return source.detach().float().cpu().permute(1, 2, 0).numpy()
    raise ImageError(
        f"a value of type {type(source).__name__} is not an image. "
        "Allowed: a path, an http(s) address, a PIL image, an array (HWC, uint8 or uint16), a tensor (CHW, in [0, 1])"
    )


def _download(url: str) -> io.BytesIO:
    try:
        with open_url(url) as response:
            return io.BytesIO(response.read())
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{url}: cannot be downloaded: {reason(error)}") from None


def _check_pil(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageError("no pixels")
    try:
        image.load()
    except (AssertionError, AttributeError, ValueError):  # what Pillow raises, by version and by how it was closed
        if getattr(image, "fp", None) is not None:
            raise
        raise ImageError("is closed. Pass it while it is open, or the path of its file") from None


def _check_array(image: Shaped[np.ndarray, "..."], num_channels: int) -> None:
    problems = []
    if image.ndim != 3 or image.shape[2] != num_channels:
        problems.append(_shape_advice(image.shape, 2, num_channels))
    elif image.size == 0:
        problems.append("no pixels")
    if np.issubdtype(image.dtype, np.floating):
        problems.append("not uint8; if its values are in [0, 1], pass (image * 255).round().astype(np.uint8)")
    elif image.dtype not in (np.uint8, np.uint16):
        problems.append("not uint8 or uint16")
    allowed = f"(height, width, {num_channels}), uint8 or uint16{_RGB * (num_channels == 3)}"
    _refuse(f"array of shape {image.shape}, {image.dtype}", problems, allowed)


def _check_tensor(image: Shaped[Tensor, "..."], num_channels: int) -> None:
    problems = []
    if image.ndim != 3 or image.shape[0] != num_channels:
        problems.append(_shape_advice(tuple(image.shape), 0, num_channels))
    elif image.numel() == 0:
        problems.append("no pixels")
    if not image.is_floating_point():
        problems.append("not floating point; if its values are in [0, 255], pass image / 255")
    elif image.numel():
        low, high = (bound.item() for bound in torch.aminmax(image.detach()))
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails both
            problems.append(f"values from {low:.4g} to {high:.4g}")
    kind = f"tensor of shape {tuple(image.shape)}, {str(image.dtype).removeprefix('torch.')}"
    allowed = f"({num_channels}, height, width), floating point in [0, 1]{_RGB * (num_channels == 3)}"
    _refuse(kind, problems, allowed)


def _shape_advice(shape: tuple[int, ...], channel_axis: int, num_channels: int) -> str:
    if len(shape) != 3:
        grey = "stack it three times along the channel axis" if num_channels == 3 else "add a channel axis"
        advice = {2: f"a grey image; {grey}", 4: "a batch; pass list(images)"}
        return advice.get(len(shape), "not an image")
    if shape[2 - channel_axis] == num_channels:
        call = "transpose(1, 2, 0)" if channel_axis else "permute(2, 0, 1)"
        return f"the channel axis is at the wrong end; pass image.{call}"
    if shape[channel_axis] == 4 and num_channels == 3:
        return f"4 channels; without transparency it is {'image[:, :, :3]' if channel_axis else 'image[:3]'}"
    if shape[channel_axis] == 1 and num_channels == 3:
        return "a grey image; repeat its channel three times"
    return f"{shape[channel_axis]} channels instead of {num_channels}"


def _refuse(kind: str, problems: list[str], allowed: str) -> None:
    if problems:
        raise ImageError(f"{kind}: {'; '.join(problems)}. Allowed: {allowed}")
