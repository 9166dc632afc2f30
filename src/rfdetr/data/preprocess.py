"""Images -> what the detector sees. Training, evaluation and prediction share the last step, normalisation.

Two resizes exist because the published numbers were made with both: evaluation shrinks with antialiasing (PIL),
prediction without.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

# ImageNet's channel statistics, as DINOv2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def to_tensor(image: Image.Image | UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """An 8-bit RGB image as numbers in [0, 1]."""
    pixels = torch.from_numpy(np.array(image))  # a copy: PIL's memory is read-only
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)


def normalize(images: Float[Tensor, "*B 3 height width"]) -> Float[Tensor, "*B 3 height width"]:
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def for_evaluation(image: Image.Image, resolution: int) -> Float[Tensor, "3 resolution resolution"]:
    """Squeezed to a square with antialiasing, and normalised."""
    return normalize(to_tensor(image.resize((resolution, resolution), Image.Resampling.BILINEAR)))


def for_prediction(image: Float[Tensor, "3 height width"], resolution: int) -> Float[Tensor, "3 resolution resolution"]:
    """An image with values in [0, 1], squeezed to a square without antialiasing, and normalised."""
    size = (resolution, resolution)
    resized = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=False)
    return normalize(resized[0])
