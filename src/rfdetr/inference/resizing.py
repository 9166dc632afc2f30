"""Pictures of any size -> what the detector sees, without a copy of all their pixels as numbers."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.preprocess import normalize


def for_prediction(picture: Pixels, resolution: int) -> Float[Tensor, "N resolution resolution"]:
    """A picture squeezed to a square without antialiasing, and normalised; of floating-point numbers, those in [0, 1].

    The published numbers were made with torch's bilinear interpolation, which reads two rows for one of the result.
    Only these are looked at: of a photo they are few.
    """
    upper, lower, share = _rows_read(picture.shape[0], resolution)
    rows = _numbers(picture[upper]).lerp_(_numbers(picture[lower]), share[:, None, None])
    squeezed = F.interpolate(
        rows.permute(2, 0, 1)[None], (resolution, resolution), mode="bilinear", align_corners=False, antialias=False
    )
    whole = 1 if np.issubdtype(picture.dtype, np.floating) else np.iinfo(picture.dtype).max
    return normalize(squeezed[0].contiguous().div_(whole))


def _rows_read(height: int, count: int) -> tuple[Int[np.ndarray, "R"], Int[np.ndarray, "R"], Float[Tensor, "R"]]:
    """For each row of the result the two of the picture it lies between, and how far towards the second."""
    # In torch's roundings: the quotient to float32, then product and difference as one.
    step = torch.tensor(float(height)) / count
    at = ((torch.arange(count) + 0.5).double() * step.double() - 0.5).float().clamp_(min=0)
    upper = at.long()
    return upper.numpy(), (upper + 1).clamp_(max=height - 1).numpy(), at - upper


def _numbers(pixels: Pixels) -> Float[Tensor, "..."]:
    return torch.from_numpy(pixels.astype(np.float32))
