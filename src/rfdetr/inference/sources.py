"""The forms in which a user may pass an image -> RGB numbers in [0, 1]."""

import io
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from rfdetr.data.images import open_image, to_rgb
from rfdetr.data.preprocess import to_tensor
from rfdetr.errors import ImageError
from rfdetr.weights.web import open_url, reason

ImageSource: TypeAlias = str | Path | Image.Image | UInt8[np.ndarray, "_ _ 3"] | Float[Tensor, "3 _ _"]

# Resizing in floating point overshoots [0, 1] by less than this.
ROUNDING = 1e-4


def load(source: ImageSource) -> Float[Tensor, "3 height width"]:
    """The pixels of a file, an http(s) address, a PIL image, an array (HWC, uint8) or a tensor (CHW in [0, 1]), RGB.

    Raises:
        ImageError: it cannot be read, or is of another kind; says what is allowed and how to get there.
    """
    match source:
        case str() if source.startswith(("http://", "https://")):
            return to_tensor(_download(source))
        case str() | Path():
            return to_tensor(open_image(source))
        case Image.Image():
            return to_tensor(to_rgb(source))
        case np.ndarray():
            _check_array(source)
            return to_tensor(source)
        case Tensor():
            _check_tensor(source)
            return source.detach().float()
    raise ImageError(
        f"a value of type {type(source).__name__} is not an image. "
        "Allowed: a path, an http(s) address, a PIL image, an RGB array (HWC, uint8), an RGB tensor (CHW, in [0, 1])"
    )


def _download(url: str) -> Image.Image:
    try:
        with open_url(url) as response:
            content = io.BytesIO(response.read())
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{url}: cannot be downloaded: {reason(error)}") from None
    try:
        return to_rgb(ImageOps.exif_transpose(Image.open(content)))
    except Exception:  # decoders raise whatever a damaged file leads them to
        raise ImageError(f"{url}: what is there is not an image, or is damaged") from None


def _check_array(image: Shaped[np.ndarray, "..."]) -> None:
    problems = []
    if image.ndim != 3 or image.shape[2] != 3:
        problems.append(_shape_advice(image.shape, channel_axis=2))
    elif image.size == 0:
        problems.append("no pixels")
    if np.issubdtype(image.dtype, np.floating):
        problems.append("not uint8; if its values are in [0, 1], pass (image * 255).round().astype(np.uint8)")
    elif image.dtype != np.uint8:
        problems.append("not uint8")
    _refuse(f"array of shape {image.shape}, {image.dtype}", problems, "(height, width, 3), uint8, RGB")


def _check_tensor(image: Shaped[Tensor, "..."]) -> None:
    problems = []
    if image.ndim != 3 or image.shape[0] != 3:
        problems.append(_shape_advice(tuple(image.shape), channel_axis=0))
    elif image.numel() == 0:
        problems.append("no pixels")
    if not image.is_floating_point():
        problems.append("not floating point; if its values are in [0, 255], pass image / 255")
    elif image.numel():
        low, high = (bound.item() for bound in torch.aminmax(image.detach()))
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails both
            problems.append(f"values from {low:.4g} to {high:.4g}")
    kind = f"tensor of shape {tuple(image.shape)}, {str(image.dtype).removeprefix('torch.')}"
    _refuse(kind, problems, "(3, height, width), floating point in [0, 1], RGB")


def _shape_advice(shape: tuple[int, ...], channel_axis: int) -> str:
    if len(shape) != 3:
        advice = {2: "a grey image; stack it three times along the channel axis", 4: "a batch; pass list(images)"}
        return advice.get(len(shape), "not an image")
    if shape[2 - channel_axis] == 3:
        call = "transpose(1, 2, 0)" if channel_axis else "permute(2, 0, 1)"
        return f"the channel axis is at the wrong end; pass image.{call}"
    if shape[channel_axis] == 4:
        return f"4 channels; without transparency it is {'image[:, :, :3]' if channel_axis else 'image[:3]'}"
    if shape[channel_axis] == 1:
        return "a grey image; repeat its channel three times"
    return f"{shape[channel_axis]} channels instead of 3"


def _refuse(kind: str, problems: list[str], allowed: str) -> None:
    if problems:
        raise ImageError(f"{kind}: {'; '.join(problems)}. Allowed: {allowed}")
