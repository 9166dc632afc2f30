"""Pictures of any size -> what the detector sees, without a copy of all their pixels as numbers."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.preprocess import MEAN, STD

NUMBERS_AT_ONCE = 40_000
"""Of the result: they stay in the cache of a core from step to step, and their memory with the process."""


def for_prediction(picture: Pixels, resolution: int) -> Float[Tensor, "N resolution resolution"]:
    """A picture squeezed to a square without antialiasing, and normalised; of floating-point numbers, those in [0, 1].

    The published numbers were made with torch's bilinear interpolation, which reads four pixels for one of the result.
    Only these become numbers: of a photo they are few. And in numpy: torch would do it on threads that keep waiting
    for more, for some milliseconds, on the cores where OpenVINO's are to start.
    """
    height, width, channels = picture.shape
    columns, rows = _neighbours(width, resolution), _neighbours(height, resolution)
    plane = np.arange(channels)[:, None]
    # Channel after channel, in a row of the picture as it lies in memory.
    left, right = ((column * channels + plane).ravel() for column in (columns.first, columns.second))
    share = np.tile(columns.share, channels)
    lines = np.ascontiguousarray(picture).reshape(height, -1)
    read, places = np.unique(np.stack([rows.first, rows.second]), return_inverse=True)
    upper, lower = places.reshape(2, -1)  # before its version 2 numpy returns them flat
    whole = 1 if np.issubdtype(picture.dtype, np.floating) else np.iinfo(picture.dtype).max
    mean, std = (whole * np.resize(np.array(values, np.float32), (channels, 1, 1)) for values in (MEAN, STD))
    result = np.empty((channels, resolution, resolution), np.float32)
    count = max(1, NUMBERS_AT_ONCE // (channels * resolution))
    for start in range(0, resolution, count):
        part = slice(start, start + count)
        first = upper[part][0]
        taken = lines[read[first : lower[part][-1] + 1]]
        squeezed = _between(taken.take(left, axis=1), taken.take(right, axis=1), share)
        values = _between(squeezed[upper[part] - first], squeezed[lower[part] - first], rows.share[part, None])
        planes = values.reshape(-1, channels, resolution).transpose(1, 0, 2)
        planes -= mean
        np.divide(planes, std, out=result[:, part])
    return torch.from_numpy(result)


class _Neighbours(NamedTuple):
    """The two pixels of an axis that each one of the result lies between, and how far towards the second."""

    first: Int[np.ndarray, "R"]
    second: Int[np.ndarray, "R"]
    share: Float32[np.ndarray, "R"]


def _neighbours(size: int, count: int) -> _Neighbours:
    # In torch's roundings: the quotient to float32, then product and difference as one.
    step = np.float64(np.float32(size) / np.float32(count))
    at = np.maximum((np.arange(count) + 0.5) * step - 0.5, 0).astype(np.float32)
    first = at.astype(np.int64)
    return _Neighbours(first, np.minimum(first + 1, size - 1), at - first.astype(np.float32))


def _between(
    first: Shaped[np.ndarray, "rows n"], second: Shaped[np.ndarray, "rows n"], share: Float32[np.ndarray, "..."]
) -> Float32[np.ndarray, "rows n"]:
    between: Float32[np.ndarray, "rows n"] = np.subtract(second, first, dtype=np.float32)
    between *= share
    between += first
    return between
