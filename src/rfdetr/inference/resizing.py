"""Pictures of any size -> what the detector sees, without a copy of all their pixels as numbers."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.preprocess import channel_statistics

NUMBERS_AT_ONCE = 40_000
"""Of the result, made in one step: few enough for the cache of a core, and for memory that is used again and again."""


def for_prediction(picture: Pixels, resolution: int) -> Float[Tensor, "N resolution resolution"]:
    """A picture squeezed to a square without antialiasing, and normalised; of floating-point numbers, those in [0, 1].

    The published numbers were made with torch's bilinear interpolation, which reads four pixels for one of the result.
    Only these become numbers: of a photo they are few. This is in numpy because the threads of torch go on waiting for
    work, for some milliseconds, on the cores where those of OpenVINO are to start.
    """
    height, width, channels = picture.shape
    rows, columns = _neighbours(height, resolution), _in_each_plane(_neighbours(width, resolution), channels)
    read, places = np.unique(np.stack([rows.first, rows.second]), return_inverse=True)
    upper, lower = places.reshape(2, -1)  # before its version 2 numpy returns them flat
    whole = 1 if np.issubdtype(picture.dtype, np.floating) else np.iinfo(picture.dtype).max
    mean, std = ((whole * values).astype(np.float32) for values in channel_statistics(channels))
    result = np.empty((channels, resolution, resolution), np.float32)
    rows_at_once = max(1, NUMBERS_AT_ONCE // (channels * resolution))
    for start in range(0, resolution, rows_at_once):
        part = slice(start, start + rows_at_once)
        top, bottom = upper[part][0], lower[part][-1] + 1
        lines = _squeezed_lines(picture[read[top:bottom]], columns)
        values = _between(lines[upper[part] - top], lines[lower[part] - top], rows.share[part, None])
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


def _in_each_plane(columns: _Neighbours, channels: int) -> _Neighbours:
    """For channel after channel, as indices of the numbers in a row, where those of a pixel follow each other."""
    channel = np.arange(channels)[:, None]
    first, second = ((pixels * channels + channel).ravel() for pixels in (columns.first, columns.second))
    return _Neighbours(first, second, np.tile(columns.share, channels))


def _squeezed_lines(lines: Pixels, columns: _Neighbours) -> Float32[np.ndarray, "rows n"]:
    """Rows of a picture at the width of the result, channel after channel."""
    numbers = np.ascontiguousarray(lines).reshape(len(lines), -1)
    return _between(numbers.take(columns.first, axis=1), numbers.take(columns.second, axis=1), columns.share)


def _between(
    first: Shaped[np.ndarray, "rows n"], second: Shaped[np.ndarray, "rows n"], share: Float32[np.ndarray, "..."]
) -> Float32[np.ndarray, "rows n"]:
    between: Float32[np.ndarray, "rows n"] = np.subtract(second, first, dtype=np.float32)
    between *= share
    between += first
    return between
