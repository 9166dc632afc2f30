import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from supervision import Detections

from rfdetr.classes import ClassTable
from rfdetr.inference.detections import named_detections
from rfdetr.report.draw import Panel, comparison, draw_detections
from rfdetr.report.marks import PALETTE, PAPER, Color

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


def filled(detections: Detections, width: int = 400, height: int = 300) -> Detections:
    """The same objects, with masks that fill the middle of their boxes: a tenth is left free on each side."""
    masks = np.zeros((len(detections), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, detections.xyxy.astype(int), strict=True):
        dx, dy = (x2 - x1) // 10, (y2 - y1) // 10
        mask[y1 + dy : y2 - dy, x1 + dx : x2 - dx] = True
    return replace(detections, mask=masks)


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


def pixel(image: Image.Image, x: int, y: int) -> Color:
    red, green, blue = np.asarray(image)[y, x].tolist()
    return red, green, blue


def test_a_mask_is_a_tint_with_a_rim_and_a_light_line_inside_it() -> None:
    detections = filled(found([[50, 100, 250, 200]], [0], [0.5]))
    image = draw_detections(blank(), detections)
    tint = pixel(image, 150, 150)
    assert all(abs(value - (0.6 * 128 + 0.4 * color)) <= 1 for value, color in zip(tint, PALETTE[0], strict=True))
    row = [pixel(image, x, 150) for x in range(60, 240)]  # the box begins at 50, its mask at 70
    assert row[:10] == row[-10:] == [GREY] * 10
    assert (row[10], row[-11]) == (PALETTE[0], PALETTE[0])
    assert (max(row), row[11]) == (row[11], row[-12])
    assert min(row[11]) > 200
    assert row[16:-16] == [tint] * 148


def test_boxes_and_labels_lie_on_masks() -> None:
    detections = found([[50, 100, 250, 200]], [0], [0.5])
    plain = draw_detections(blank(), detections)
    masked = draw_detections(blank(), replace(detections, mask=np.ones((1, 300, 400), bool)))
    color = np.all(np.asarray(plain) == PALETTE[0], axis=-1)
    assert color.sum() > 500
    assert np.all(np.asarray(masked)[color] == PALETTE[0])


@pytest.mark.parametrize("scores", [[0.9, 0.3], [0.3, 0.9]], ids=str)
def test_a_small_object_shows_on_a_large_one_whichever_is_surer(scores: list[float]) -> None:
    detections = filled(found([[20, 50, 380, 280], [150, 100, 250, 200]], [0, 1], scores))
    alone = draw_detections(blank(), filled(found([[20, 50, 380, 280]], [0], scores[:1])))
    below, tint = (pixel(image, 200, 170) for image in (alone, draw_detections(blank(), detections)))
    expected = [0.6 * value + 0.4 * color for value, color in zip(below, PALETTE[1], strict=True)]
    assert all(abs(value - wanted) <= 1 for value, wanted in zip(tint, expected, strict=True))


def test_objects_of_one_class_that_overlap_have_each_their_outline() -> None:
    detections = filled(found([[50, 100, 250, 200], [150, 100, 350, 200]], [0, 0], [0.9, 0.5]))
    row = np.asarray(draw_detections(blank(), detections))[150].astype(int)
    for edge in (70, 170, 229, 329):  # of both masks, also where they lie under the other
        inside = row[edge - 4 : edge + 5].sum(axis=-1)
        assert inside.max() > row[edge - 12].sum() + 60
        assert inside.max() > row[edge + 12].sum() + 60


@pytest.mark.parametrize("size", [(400, 300), (1, 300), (400, 1), (1, 1), (3, 5)], ids=str)
@pytest.mark.parametrize(
    "region",
    [
        pytest.param(np.s_[:, :], id="whole image"),
        pytest.param(np.s_[:0, :], id="empty"),
        pytest.param(np.s_[:1, :1], id="corner"),
        pytest.param(np.s_[-1:, -1:], id="other corner"),
        pytest.param(np.s_[:, ::2], id="stripes"),
    ],
)
def test_any_mask_is_drawn_in_any_image(region: tuple[slice, slice], size: tuple[int, int]) -> None:
    mask = np.zeros((1, size[1], size[0]), bool)
    mask[0][region] = True
    detections = replace(found([[0, 0, 0, 0]], [0], [0.5]), mask=mask)
    plain = draw_detections(blank(*size), replace(detections, mask=None))
    changed = np.any(np.asarray(draw_detections(blank(*size), detections)) != np.asarray(plain), axis=-1)
    untouched = np.all(np.asarray(plain) == GREY, axis=-1)
    assert np.array_equal(changed & untouched, mask[0] & untouched)


def test_without_objects_there_are_no_masks_to_draw() -> None:
    detections = replace(found([], [], []), mask=np.zeros((0, 300, 400), bool))
    assert draw_detections(blank(), detections).getcolors() == [(400 * 300, GREY)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("Café", "Cafe", id="accents"),
        pytest.param("50°", "50°", id="signs that the font has"),
        pytest.param("苹果", "class 0", id="chinese"),
        pytest.param("собака", "class 0", id="cyrillic"),
        pytest.param("قط", "class 0", id="arabic"),
        pytest.param("BMW 三", "class 0", id="in part"),
        pytest.param("\N{RED APPLE}", "class 0", id="emoji"),
        pytest.param("two\nlines", "class 0", id="line break"),
        pytest.param("", "class 0", id="none"),
    ],
)
def test_names_that_the_font_cannot_draw_give_way_to_the_class_id(name: str, shown: str) -> None:
    def draw(class_name: str) -> Image.Image:
        detections = found([[50, 100, 250, 200]], [0], [0.5])
        return draw_detections(blank(), replace(detections, data={"class_name": np.array([class_name])}))

    assert draw(name).tobytes() == draw(shown).tobytes()


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


@pytest.mark.parametrize("tile_width", [100, 800])
def test_masks_scale_with_the_tile(tile_width: int) -> None:
    masks = np.zeros((1, 300, 400), bool)
    masks[0, 120:200, 100:200] = True
    without = found([[0, 0, 0, 0]], [0])
    sheets = [
        np.asarray(comparison([Panel("", blank(), drawn, found([], [], []))], columns=1, tile_width=tile_width))
        for drawn in (replace(without, mask=masks), without)
    ]
    x, y, *_ = bounds(Image.fromarray(sheets[1]), GREY)
    rows, columns = np.nonzero((sheets[0] != sheets[1]).any(axis=-1))
    shown = (columns.min() - x, rows.min() - y, columns.max() + 1 - x, rows.max() + 1 - y)
    assert np.allclose(shown, np.array([100, 120, 200, 200]) * tile_width / 400, atol=1)


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
