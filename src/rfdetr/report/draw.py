"""Detections on images, and truth beside prediction on one sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfdetr.report.marks import DARK, PAPER, Mark, draw_marks, mark_of

if TYPE_CHECKING:
    from supervision import Detections

GAP = 12


class Panel(NamedTuple):
    """One image of a comparison."""

    caption: str
    image: Image.Image
    truth: Detections
    predicted: Detections


def draw_detections(image: Image.Image, detections: Detections) -> Image.Image:
    """A copy of the image with masks, boxes, names and scores, as far as there are any; the best on top."""
    return draw_marks(image, list(_marks(detections, image.size)))


def _marks(detections: Detections, size_wh: tuple[int, int]) -> Iterator[Mark]:
    for box, mask, score, class_id, _, data in detections:
        name = str(data.get("class_name", ""))
        yield mark_of(box, int(class_id or 0), name, size_wh, mask, None if score is None else float(score))


def comparison(panels: Sequence[Panel], columns: int = 2, tile_width: int = 480) -> Image.Image:
    """A sheet of pairs, truth on the left and prediction on the right, `columns` pairs in a row."""
    pairs = [_pair(panel, tile_width) for panel in panels]
    rows = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    heights = [max(pair.height for pair in row) for row in rows]
    width = max(len(row) for row in rows) * (pairs[0].width + 2 * GAP) + 2 * GAP
    sheet = Image.new("RGB", (width, sum(heights) + 2 * GAP * (len(rows) + 1)), PAPER)
    top = 2 * GAP
    for row, height in zip(rows, heights, strict=True):
        for column, pair in enumerate(row):
            sheet.paste(pair, (2 * GAP + column * (pair.width + 2 * GAP), top))
        top += height + 2 * GAP
    return sheet


def _pair(panel: Panel, tile_width: int) -> Image.Image:
    """Truth and prediction of one image, enlarged or shrunk before drawing so that the text is crisp."""
    scale = tile_width / panel.image.width
    tile_height = max(1, round(panel.image.height * scale))
    image = panel.image.convert("RGB").resize((tile_width, tile_height), Image.Resampling.LANCZOS)
    text_height = max(12, tile_width // 28)
    font, header = ImageFont.load_default(text_height), round(1.7 * text_height)
    pair = Image.new("RGB", (2 * tile_width + GAP // 2, header + tile_height), PAPER)
    draw = ImageDraw.Draw(pair)
    for left, title, detections in (
        (0, f"{panel.caption}   truth", panel.truth),
        (tile_width + GAP // 2, "prediction", panel.predicted),
    ):
        draw.text((left, header / 2), title, fill=DARK, font=font, anchor="lm")
        resized = _resize(detections, scale, image.size)
        pair.paste(draw_detections(image, resized), (left, header))
    return pair


def _resize(detections: Detections, scale: float, size_wh: tuple[int, int]) -> Detections:
    """The detections of an image that was enlarged or shrunk to `size_wh`."""
    boxes, (width, height) = detections.xyxy * scale, size_wh
    if detections.mask is None:
        return replace(detections, xyxy=boxes)
    masks = np.empty((len(boxes), height, width), bool)
    for resized, mask in zip(masks, detections.mask, strict=True):
        shape = Image.fromarray(mask).convert("L").resize(size_wh, Image.Resampling.BILINEAR)
        resized[:] = np.asarray(shape) > 127
    return replace(detections, xyxy=boxes, mask=masks)
