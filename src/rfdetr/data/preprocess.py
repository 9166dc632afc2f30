"""Images -> what the detector sees. Training, evaluation and prediction share the last step, normalisation.

Two resizes exist because the published numbers were made with both: evaluation shrinks with antialiasing (PIL),
prediction without.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

# ImageNet's channel statistics, as DINOv2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def to_pixels(image: Image.Image | UInt8[np.ndarray, "height width 3"]) -> UInt8[Tensor, "3 height width"]:
    """The pixels as they are; their memory is still that of an image, channel beside channel."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # a copy: PIL's memory is read-only


def to_tensor(image: Image.Image | UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """An 8-bit RGB image as numbers in [0, 1]."""
    return to_pixels(image).contiguous().float().div_(255)


def normalize(images: Shaped[Tensor, "*B 3 height width"]) -> Float[Tensor, "*B 3 height width"]:
    """Pixels of unsigned integers, of which the largest is 1, or numbers in [0, 1], as the detector wants them."""
    if not images.is_floating_point():
        images = images.float().div_(torch.iinfo(images.dtype).max)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean).div_(std)


def squeezed(image: Image.Image, resolution: int) -> UInt8[Tensor, "3 resolution resolution"]:
    """The pixels of the image as a square, made with antialiasing."""
    return to_pixels(image.resize((resolution, resolution), Image.Resampling.BILINEAR))


def for_evaluation(image: Image.Image, resolution: int) -> Float[Tensor, "3 resolution resolution"]:
    """Squeezed to a square with antialiasing, and normalised."""
    return normalize(squeezed(image, resolution))


def for_prediction(image: Float[Tensor, "3 height width"], resolution: int) -> Float[Tensor, "3 resolution resolution"]:
    """An image with values in [0, 1], squeezed to a square without antialiasing, and normalised."""
    size = (resolution, resolution)
    resized = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=False)
    return normalize(resized[0])
