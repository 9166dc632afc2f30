import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfdetr.classes import ClassTable
from rfdetr.inference.detections import Detections, named_detections
from rfdetr.report.draw import PALETTE, PAPER, Color, Panel, comparison, draw_detections

CLASSES = ClassTable.from_categories([(0, "cat"), (1, "a name much longer than its box")])
GREY = (128, 128, 128)


def blank(width: int = 400, height: int = 300) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def found(boxes: list[list[float]], class_ids: list[int], scores: list[float] | None = None) -> Detections:
    return named_detections(
        np.array(boxes, float).reshape(-1, 4),
        np.array(class_ids, int),
        CLASSES,
        None if scores is None else np.array(scores),
    )


def bounds(image: Image.Image, color: Color) -> tuple[int, int, int, int]:
    """First and last column and row that hold the colour, as xyxy."""
    rows, columns = np.nonzero((np.asarray(image) == color).all(axis=-1))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_a_box_lies_where_it_should_with_its_label_above() -> None:
    image = draw_detections(blank(), found([[50, 100, 250, 200]], [0]))
    left, top, right, bottom = bounds(image, PALETTE[0])
    assert (left, right, bottom) == (50, 250, 200)
    assert 80 < top < 100
    assert image.getpixel((150, 150)) == GREY


def test_the_image_itself_is_left_alone() -> None:
    image = blank()
    draw_detections(image, found([[50, 100, 250, 200]], [0]))
    assert image.getcolors() == [(400 * 300, GREY)]


def test_without_detections_the_image_is_copied() -> None:
    assert draw_detections(blank(), found([], [], [])).getcolors() == [(400 * 300, GREY)]


def test_a_class_keeps_its_colour() -> None:
    image = draw_detections(blank(), found([[10, 40, 90, 90], [150, 40, 290, 90]], [1, 0], [0.9, 0.5]))
    assert image.getpixel((150, 60)) == PALETTE[0]
    assert image.getpixel((10, 60)) == PALETTE[1]


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0.0, 0.0, 20.0, 20.0], id="top left"),
        pytest.param([380.0, 280.0, 400.0, 300.0], id="bottom right"),
        pytest.param([0.0, 0.0, 400.0, 300.0], id="whole image"),
        pytest.param([-50.0, -50.0, 900.0, 900.0], id="larger than the image"),
        pytest.param([200.0, 150.0, 200.0, 150.0], id="a point"),
    ],
)
@pytest.mark.parametrize("size", [(400, 300), (40, 8)], ids=str)
def test_any_box_is_drawn_inside_any_image(box: list[float], size: tuple[int, int]) -> None:
    image = draw_detections(blank(*size), found([box], [1], [0.5]))
    assert image.size == size
    bounds(image, PALETTE[1])


def test_labels_do_not_cover_each_other() -> None:
    one = draw_detections(blank(), found([[100, 100, 200, 200]], [0], [0.9]))
    two = draw_detections(blank(), found([[100, 100, 200, 200], [100, 100, 200, 200]], [0, 1], [0.9, 0.3]))
    label = (100, 80, 150, 99)
    assert one.crop(label).tobytes() == two.crop(label).tobytes()


def test_lines_and_text_grow_with_the_image() -> None:
    small, large = (
        draw_detections(blank(side, side), found([[side / 4, side / 4, side / 2, side / 2]], [0]))
        for side in (220, 2200)
    )
    count = [np.all(np.asarray(image)[image.height * 3 // 8] == PALETTE[0], axis=-1).sum() for image in (small, large)]
    assert count == [2, 20]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode(mode: str) -> None:
    assert draw_detections(Image.new(mode, (60, 60)), found([[5, 20, 50, 50]], [0])).mode == "RGB"


def test_a_comparison_shows_truth_left_and_prediction_right() -> None:
    panel = Panel("a.jpg", blank(), found([[40, 100, 200, 200]], [0]), found([[40, 100, 200, 200]], [1], [0.9]))
    sheet = comparison([panel, panel, panel], columns=2, tile_width=200)
    left, _, right, bottom = bounds(sheet, GREY)
    assert left < 40
    assert min(sheet.width - right, sheet.height - bottom) > 10
    assert bounds(sheet, PALETTE[0])[0] < bounds(sheet, PALETTE[1])[0]
    assert bounds(sheet, PALETTE[0])[2] > sheet.width / 2
    assert sheet.getpixel((sheet.width - 5, sheet.height - 5)) == PAPER


def test_boxes_scale_with_the_tile() -> None:
    panel = Panel("", blank(), found([[100, 120, 200, 200]], [0]), found([], [], []))
    sheet = comparison([panel], columns=1, tile_width=800)
    left, _, right, bottom = bounds(sheet, PALETTE[0])
    x, y, *_ = bounds(sheet, GREY)
    assert (left - x, right - x, bottom - y) == (200, 400, 400)


def test_images_of_different_shapes_share_a_sheet() -> None:
    panels = [
        Panel(name, blank(*size), found([], []), found([], []))
        for name, size in (("wide", (300, 100)), ("tall", (100, 300)))
    ]
    sheet = comparison(panels, columns=2, tile_width=100)
    assert sheet.height > 300


@pytest.mark.shared
def test_real_annotations_are_drawn(shared: Path) -> None:
    folder = shared / "data" / "bccd" / "valid"
    file = json.loads((folder / "_annotations.coco.json").read_text())
    boxes = np.array([a["bbox"] for a in file["annotations"] if a["image_id"] == file["images"][0]["id"]])
    boxes[:, 2:] += boxes[:, :2]
    with Image.open(folder / file["images"][0]["file_name"]) as image:
        drawn = draw_detections(image, named_detections(boxes, np.zeros(len(boxes), int), CLASSES))
    x1, _, x2, _ = bounds(drawn, PALETTE[0])
    assert abs(x1 - boxes[:, 0].min()) <= 1
    assert abs(x2 - min(boxes[:, 2].max(), drawn.width - 1)) <= 1
