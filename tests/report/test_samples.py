from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from supervision import Detections

from rfdetr.classes import ClassTable
from rfdetr.data.annotations import Annotations
from rfdetr.data.reading import read_split
from rfdetr.inference.detections import named_detections
from rfdetr.masks import encode
from rfdetr.report.ground_truth import pick_samples
from rfdetr.report.marks import PALETTE
from rfdetr.report.samples import sample_sheet

from ..data.tiny_coco import annotation, image, write_coco

CLASSES = ClassTable.from_categories([(3, "cat"), (7, "dog")])
GREY = (128, 128, 128)


def write_split(root: Path, objects: list[int], crowded: tuple[int, ...] = ()) -> Path:
    """A dataset whose images have so many objects each."""
    rows = [number for number, count in enumerate(objects) for _ in range(count)]
    annotations = [
        annotation(row, image_id=number, iscrowd=int(number in crowded)) for row, number in enumerate(rows, start=1)
    ]
    write_coco(root, images=[image(number) for number in range(len(objects))], annotations=annotations)
    for number in range(len(objects)):
        Image.new("RGB", (60, 40)).save(root / "train" / f"{number}.png")
    return root


def sheet_of(predict: Any, split: Annotations, indices: list[int]) -> Image.Image:
    sheet = sample_sheet(predict, split, indices)
    assert sheet is not None
    return sheet


@pytest.mark.parametrize(
    ("objects", "count", "picked"),
    [
        pytest.param([1] * 10, 4, [0, 2, 5, 7], id="from all over the split"),
        pytest.param([1] * 3, 8, [0, 1, 2], id="no more than there are"),
        pytest.param([0, 1, 0, 2, 0, 1], 3, [1, 3, 5], id="images with objects"),
        pytest.param([0, 1, 0, 0, 0, 1], 4, [1, 5, 0, 3], id="those without where the others do not suffice"),
        pytest.param([1, 1], 0, [], id="none"),
    ],
)
def test_pick_samples(objects: list[int], count: int, picked: list[int], tmp_path: Path) -> None:
    assert pick_samples(read_split(write_split(tmp_path, objects), "train"), count) == picked


def test_a_crowd_is_no_object_to_show(tmp_path: Path) -> None:
    assert pick_samples(read_split(write_split(tmp_path, [1, 1], crowded=(0,)), "train"), 1) == [1]


def write_picture(root: Path, size_wh: tuple[int, int], outline: str = "polygon") -> Path:
    """A grey picture with a cat in the middle, whose sides and mask are half as long as those of the picture."""
    width, height = size_wh
    left, top, right, bottom = width // 4, height // 4, width * 3 // 4, height * 3 // 4
    mask = np.zeros((1, height, width), bool)
    mask[:, top:bottom, left:right] = True
    (code,) = encode(mask)
    outlines = {
        "polygon": [[left, top, right, top, right, bottom, left, bottom]],
        "code": {**code, "counts": code["counts"].decode()},
    }
    cat = annotation(1, bbox=[left, top, right - left, bottom - top], segmentation=outlines[outline])
    write_coco(root, images=[image(1, width=width, height=height)], annotations=[cat])
    Image.new("RGB", size_wh, GREY).save(root / "train" / "1.png")
    return root


def half(sheet: Image.Image, part: str) -> np.ndarray:
    """The tile of the truth or that of the prediction, with its title."""
    columns = np.flatnonzero((np.asarray(sheet) == GREY).all(axis=-1).any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    left, right = (columns[0], middle) if part == "truth" else (middle, columns[-1] + 1)
    return np.asarray(sheet)[:, left:right]


def bounds(pixels: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    rows, columns = np.nonzero((pixels == color).all(axis=-1))
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def find_dog(found: np.ndarray) -> Detections:
    """A dog where the cat is."""
    height, width = found.shape[:2]
    box = np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
    return named_detections(box, np.array([1]), CLASSES, np.array([0.9]))


def test_truth_and_prediction_stand_side_by_side(tmp_path: Path) -> None:
    sheet = sheet_of(find_dog, read_split(write_picture(tmp_path, (480, 360)), "train"), [0])
    cat, dog = half(sheet, "truth"), half(sheet, "prediction")
    (left, _, right, bottom), (x, y, *_) = bounds(cat, PALETTE[0]), bounds(cat, GREY)
    assert (left - x, right - x, bottom - y) == (120, 360, 270)
    assert bounds(dog, PALETTE[1])[3] == bottom
    assert not (cat == PALETTE[1]).all(axis=-1).any()
    assert not (dog == PALETTE[0]).all(axis=-1).any()


@pytest.mark.parametrize("size_wh", [(480, 360), (1536, 1152)], ids=str)
@pytest.mark.parametrize("outline", ["polygon", "code"])
def test_masks_of_the_truth_are_shown_where_they_were_read(
    outline: str, size_wh: tuple[int, int], tmp_path: Path
) -> None:
    root = write_picture(tmp_path, size_wh, outline)
    with_masks, without = (
        half(sheet_of(find_dog, read_split(root, "train", masks=masks), [0]), "truth").astype(int)
        for masks in (True, False)
    )
    tint = [round(0.6 * 128 + 0.4 * value) for value in PALETTE[0]]
    center = (np.array(without.shape[:2]) // 2).tolist()
    assert np.allclose(with_masks[center[0], center[1]], tint, atol=1)
    assert without[center[0], center[1]].tolist() == list(GREY)
    rows, columns = np.nonzero((with_masks != without).any(axis=-1))
    assert abs(np.ptp(columns) + 1 - 240) <= 4  # the box lies on its outermost pixels
    assert abs(np.ptp(rows) + 1 - 180) <= 4


def test_large_photographs_are_made_smaller_before_they_are_looked_at(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def look(found: np.ndarray) -> Detections:
        seen.append((found.shape[1], found.shape[0]))
        return find_dog(found)

    for name, size_wh in (("small", (480, 240)), ("large", (2048, 1024))):
        sheet = sheet_of(look, read_split(write_picture(tmp_path / name, size_wh), "train"), [0])
        assert bounds(half(sheet, "truth"), PALETTE[0])[3] == bounds(half(sheet, "prediction"), PALETTE[1])[3]
    assert seen == [(480, 240), (1024, 512)]


def test_a_long_file_name_leaves_room_for_the_titles(tmp_path: Path) -> None:
    root = write_picture(tmp_path, (480, 360))
    file, old = root / "train" / "_annotations.coco.json", "1.png"
    sheets = []
    for new in (f"{'x' * 60}.png", f"{'x' * 120}.png"):
        file.write_text(file.read_text().replace(f'"{old}"', f'"{new}"'))
        (root / "train" / old).rename(root / "train" / new)
        sheets.append(sheet_of(find_dog, read_split(root, "train"), [0]).tobytes())
        old = new
    assert sheets[0] == sheets[1]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "masks"), [("bccd", False), ("fruits-nuts-seg", True)])
def test_real_pictures(name: str, masks: bool, shared: Path) -> None:
    split = read_split(shared / "data" / name, "valid", masks=masks)
    indices = pick_samples(split, 3)
    nothing = named_detections(np.zeros((0, 4)), np.zeros(0, int), split.classes, np.zeros(0))
    sheet = sheet_of(lambda _: nothing, split, indices)
    assert sheet.width > 1900
    used = {color for _, color in sheet.getcolors(2**24) or []}
    assert {PALETTE[int(label)] for index in indices for label in split.training_objects(index).labels} <= used
