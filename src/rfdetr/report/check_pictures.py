"""Pictures of a dataset with their boxes and masks, alone and as one sheet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfdetr.config.runs import Split
from rfdetr.data.annotations import Annotations
from rfdetr.data.images import to_eight_bits
from rfdetr.data.statistics import SplitStatistics
from rfdetr.errors import ImageError
from rfdetr.report.ground_truth import caption, pick_samples, small_picture, truth
from rfdetr.report.marks import DARK, PAPER, draw_marks, drawable, mark_of

SIDE = 480
"""Pixels of the longer side of a picture."""
_MOST_NAMES = 40  # on a picture; more would hide it
_GAP, _HEADER, _COLUMNS = 14, 26, 4


@dataclass(frozen=True)
class Tile:
    """A picture of a split with its objects drawn."""

    split: Split
    name: str
    num_objects: int
    image: Image.Image


def tiles(splits: Mapping[Split, Annotations], numbers: Mapping[Split, SplitStatistics], count: int) -> list[Tile]:
    """Up to `count` pictures, half of them of the first split; those that cannot be read are passed over."""
    first = -(-count // 2) if len(splits) > 1 else count
    others = -(-(count - first) // max(1, len(splits) - 1))
    found: list[Tile] = []
    for name, split in splits.items():
        rows = chosen(split, numbers[name], others if found else first)
        found += [tile for row in rows if (tile := _tile(name, split, row))]
    return found[:count]


def chosen(split: Annotations, numbers: SplitStatistics, count: int) -> list[int]:
    """Images from all over the split; up to half of them show each class, the rarest first."""
    rows: list[int] = []
    for class_id in np.argsort(numbers.objects_per_class, kind="stable"):
        images = numbers.images[numbers.labels == class_id]
        if len(images) and len(rows) < count // 2:
            rows.append(int(images[len(images) // 2]))
    return list(dict.fromkeys([*rows, *pick_samples(split, count)]))[:count]


def _tile(name: Split, split: Annotations, row: int) -> Tile | None:
    try:
        image = to_eight_bits(small_picture(split, row, SIDE))
    except ImageError:  # among the problems
        return None
    scale = SIDE / max(image.size)
    if scale > 1:  # names on it are to be read
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    objects = truth(split, row, (image.height, image.width))
    name_of = split.classes.name_of if len(objects.labels) <= _MOST_NAMES else {}
    marks = []
    for index, (box, label) in enumerate(zip(objects.boxes, objects.labels.tolist(), strict=True)):
        mask = None if objects.masks is None else objects.masks[index]
        mark = mark_of(box, label, name_of.get(label, ""), image.size, mask)
        marks.append(mark if name_of else mark._replace(text=""))
    return Tile(name, caption(split, row), len(marks), draw_marks(image, marks))


def sheet(found: Sequence[Tile]) -> Image.Image:
    """All of them on one picture, each with a line above it that says what it is."""
    columns = min(_COLUMNS, len(found))
    rows = [found[start : start + columns] for start in range(0, len(found), columns)]
    heights = [_HEADER + max(tile.image.height for tile in row) + _GAP for row in rows]
    canvas = Image.new("RGB", (columns * (SIDE + _GAP) + _GAP, sum(heights) + _GAP), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for left, top, tile in _places(rows, heights):
        text = f"{tile.split}   {drawable(tile.name) or '...'}   {tile.num_objects}"
        draw.text((left, top + _HEADER / 2), text, fill=DARK, font=font, anchor="lm")
        canvas.paste(tile.image, (left, top + _HEADER))
    return canvas


def _places(rows: Sequence[Sequence[Tile]], heights: Sequence[int]) -> Iterator[tuple[int, int, Tile]]:
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            yield _GAP + column * (SIDE + _GAP), top, tile
        top += height
