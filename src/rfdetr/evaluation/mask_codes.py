"""Run-length code of coarse masks at the size of the image. No pixel is drawn: that took most of an evaluation's time.

Along a column a mask is linear between the rows of the grid, so that it begins and ends at the zeros of these lines.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from rfdetr.masks import Rle, from_runs

_VALUES_AT_ONCE = 1 << 18  # of columns at the size of the image and rows of the grid: bounds the memory
_LARGE = 1e30  # stands for infinity, with which lines cannot be drawn


def full_size_codes(mask_logits: Float[Tensor, "N h w"], size_hw: tuple[int, int]) -> list[Rle]:
    """The code of the bitmaps that `full_size_masks` draws; pixels whose logit is 0 but for rounding may differ.

    A logit that is not a number is outside.
    """
    width = size_hw[1]
    columns = mask_logits.float().cpu().mT.nan_to_num(-_LARGE, _LARGE, -_LARGE)
    left, right, share = _between(columns.shape[1], width)
    parts = columns.split(max(1, _VALUES_AT_ONCE // (width * columns.shape[2])))
    drawn = (torch.lerp(part[:, left], part[:, right], share.unsqueeze(1)) for part in parts)
    return [code for part in drawn for code in _codes(part.numpy(), size_hw)]


def _between(cells: int, pixels: int) -> tuple[Int64[Tensor, "P"], Int64[Tensor, "P"], Float[Tensor, "P"]]:
    """The cells before and after the centre of each pixel, and how near it is to the latter, as in `interpolate`."""
    place = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * cells / pixels - 0.5).clamp(0, cells - 1)
    before = place.long()
    return before, (before + 1).clamp(max=cells - 1), (place - before).float()


def _codes(columns: Float32[np.ndarray, "N width h"], size_hw: tuple[int, int]) -> list[Rle]:
    """For masks whose rows are still those of the grid."""
    (height, width), (count, _, rows) = size_hw, columns.shape
    values, pixels = columns.ravel(), height * width
    is_inside = values > 0
    is_change = np.empty_like(is_inside)
    np.not_equal(is_inside[1:], is_inside[:-1], out=is_change[1:])
    first = slice(None, None, width * rows)  # of each mask; outside lies before it
    is_change[first] = is_inside[first]
    cells = np.flatnonzero(is_change)
    column, row = np.divmod(cells, rows)
    # A place more for each mask: the end of one is not the start of the next.
    places = column * height + column // width
    within = np.flatnonzero(row)
    cell = cells[within]
    places[within] += _first_row(values[cell - 1], values[cell], row[within], rows, height)
    places.sort()  # they are but for rounding
    places = places[_is_alone(places)]
    starts = np.arange(count + 1) * (pixels + 1)
    ends = np.searchsorted(places, starts)
    return [from_runs(_runs(places[ends[i] : ends[i + 1]] - starts[i], pixels), size_hw) for i in range(count)]


def _first_row(
    before: Float32[np.ndarray, "K"],
    here: Float32[np.ndarray, "K"],
    row: Int64[np.ndarray, "K"],
    rows: int,
    height: int,
) -> Int64[np.ndarray, "K"]:
    """The first pixel row after the zero of the line from grid row `row - 1` to `row`. On the zero is outside."""
    start = before.astype(np.float64)
    place = (row - 0.5 + start / (start - here)) * (height / rows) - 0.5
    first = np.where(here > 0, np.floor(place) + 1, np.ceil(place))
    rounded: Int64[np.ndarray, "K"] = first.clip(0, height).astype(np.int64)
    return rounded


def _runs(changes: Int64[np.ndarray, "K"], pixels: int) -> list[int]:
    changes = changes[: np.searchsorted(changes, pixels)]
    runs: list[int] = np.diff(changes, prepend=0, append=pixels).tolist()
    return runs


def _is_alone(places: Int64[np.ndarray, "K"]) -> Bool[np.ndarray, "K"]:
    """The first of an odd number of equals: of two changes at one place nothing is seen."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    is_alone = np.zeros(len(places), np.bool_)
    is_alone[starts] = np.diff(starts, append=len(places)) % 2 == 1
    return is_alone
