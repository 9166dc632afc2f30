"""Images -> what the detector sees. Training, evaluation and prediction share the statistics of normalisation.

Two resizes exist because the published numbers were made with both: evaluation shrinks with antialiasing (PIL),
prediction without (`inference/resizing.py`).
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.resampling import resized

# ImageNet's channel statistics, as DINOv2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def channel_statistics(num_channels: int) -> tuple[Float64[np.ndarray, "C 1 1"], Float64[np.ndarray, "C 1 1"]]:
    """Mean and standard deviation; more channels than three take them again from the first on."""
    mean, std = (np.resize(values, (num_channels, 1, 1)) for values in (MEAN, STD))
    return mean, std


def to_pixels(picture: Pixels) -> Shaped[Tensor, "C height width"]:
    """A copy of the pixels as they are, channel after channel."""
    return torch.from_numpy(np.array(picture.transpose(2, 0, 1), order="C"))


def to_tensor(picture: Pixels) -> Float[Tensor, "C height width"]:
    """A picture as numbers in [0, 1]."""
    return in_unit_range(to_pixels(picture))


def as_source(picture: Pixels) -> Pixels | Float[Tensor, "C height width"]:
    """A picture as `predict` takes it: there arrays have 8 or 16 bits, and numbers in [0, 1] are a tensor."""
    return to_tensor(picture) if picture.dtype == np.float32 else picture


def in_unit_range(pixels: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The largest of unsigned integers is 1; numbers in [0, 1] stay."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(torch.iinfo(pixels.dtype).max)


def normalize(images: Shaped[Tensor, "*B C height width"]) -> Float[Tensor, "*B C height width"]:
    """Pixels of unsigned integers, of which the largest is 1, or numbers in [0, 1], as the detector wants them."""
    numbers = in_unit_range(images)
    mean, std = (
        # `new_tensor` would wait for all that the device has to do.
        torch.from_numpy(values).to(numbers.dtype).to(numbers.device, non_blocking=True)
        for values in channel_statistics(numbers.shape[-3])
    )
    # Fresh memory takes longer than the computation.
    centred = numbers - mean if numbers is images else numbers.sub_(mean)
    return centred.div_(std)


def squeezed(picture: Pixels, resolution: int) -> Shaped[Tensor, "C resolution resolution"]:
    """The pixels of the picture as a square, made with antialiasing."""
    return to_pixels(resized(picture, (resolution, resolution)))
