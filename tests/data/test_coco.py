from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import coco as pycocotools

from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO
from rfdetr.data.coco import read_coco
from rfdetr.errors import DatasetError
from rfdetr.masks import decode, to_rle

from .tiny_coco import CAT_AND_DOG, annotation, category, image, write_coco


def message(root: Path, split: Any = "train", classes: ClassTable | None = None, masks: bool = False) -> str:
    with pytest.raises(DatasetError) as error:
        read_coco(root, split, classes, masks)
    return str(error.value)


def file_of(root: Path) -> Path:
    return root / "train" / "_annotations.coco.json"


def test_objects_lie_together_by_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [
        annotation(10, image_id=9, category_id=7),
        annotation(11, image_id=1, bbox=[-1.5, 2, 3, 4], area=11.5),
        annotation(12, image_id=9, iscrowd=1),
    ]
    images = [image(9, file_name="2.png"), image(5, file_name="2.png"), image(1, width=61)]
    split = read_coco(write_coco(tmp_path, images=images, annotations=rows), "train")

    assert len(split) == 3
    assert split.file_names.tolist() == ["2.png", "2.png", "1.png"]
    assert split.image_path(2) == tmp_path / "train" / "1.png"
    assert split.image_ids.tolist() == [9, 5, 1]
    assert split.sizes_hw.tolist() == [[40, 60], [40, 60], [40, 61]]
    assert split.offsets.tolist() == [0, 2, 2, 3]
    assert split.annotation_ids.tolist() == [10, 12, 11]
    assert split.labels.tolist() == [1, 0, 0]
    assert split.is_crowd.tolist() == [False, True, False]
    assert split.areas.tolist() == [300, 300, 11.5]
    assert split.boxes_xywh[2].tolist() == [-1.5, 2, 3, 4]
    assert split.boxes_xywh.dtype == split.areas.dtype == np.float64


def test_area_and_iscrowd_may_be_missing(tmp_path: Path) -> None:
    row = annotation(1, bbox=[0, 0, 2.5, 4])
    del row["area"], row["iscrowd"]
    split = read_coco(write_coco(tmp_path, annotations=[row, annotation(2, area=None)]), "train")
    assert split.areas.tolist() == [10, 300]
    assert split.is_crowd.tolist() == [False, False]


def test_a_split_without_objects_can_be_evaluated(tmp_path: Path) -> None:
    split = read_coco(write_coco(tmp_path, "valid", annotations=[]), "valid")
    assert split.boxes_xywh.shape == (0, 4)
    assert split.offsets.tolist() == [0, 0, 0]


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    file = file_of(write_coco(tmp_path))
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert len(read_coco(tmp_path, "train")) == 2


def test_images_may_lie_in_subfolders(tmp_path: Path) -> None:
    write_coco(tmp_path, images=[image(1, file_name="day/1.png"), image(2)])
    (tmp_path / "train/day").mkdir()
    (tmp_path / "train/1.png").rename(tmp_path / "train/day/1.png")
    assert read_coco(tmp_path, "train").image_path(0) == tmp_path / "train/day/1.png"


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        pytest.param([category(7, "dog"), category(3, "cat")], ["cat", "dog"], id="sorted by id"),
        pytest.param(
            [category(0, "animals"), category(3, "cat", supercategory="animals")], ["cat"], id="a parent is no class"
        ),
        pytest.param(
            [category(0, "ant", supercategory="cat"), category(3, "cat")],
            ["ant", "cat"],
            id="unless objects bear its name",
        ),
        pytest.param(
            [category(3, "cat", supercategory="cat"), category(4, "dog", supercategory="dog")],
            ["cat", "dog"],
            id="its own parent is a class",
        ),
        pytest.param(
            [category(0, "cat"), category(3, "cat", supercategory="cat")], ["cat"], id="a parent of the same name"
        ),
        pytest.param(
            [category(3, "cat"), category(4, "none", supercategory=None)], ["cat", "none"], id="'none' means no parent"
        ),
    ],
)
def test_class_table(tmp_path: Path, categories: list[Any], names: list[str]) -> None:
    classes = read_coco(write_coco(tmp_path, categories=categories), "train").classes
    assert list(classes.names) == names
    assert list(classes.class_ids) == list(range(len(names)))


def test_all_categories_are_classes_where_every_one_is_a_parent(tmp_path: Path) -> None:
    circle = [category(1, "a", supercategory="b"), category(2, "b", supercategory="a")]
    split = read_coco(write_coco(tmp_path, "valid", annotations=[], categories=circle), "valid")
    assert split.classes.names == ("a", "b")


def test_the_training_classes_hold_for_other_splits_by_name(tmp_path: Path) -> None:
    classes = read_coco(write_coco(tmp_path), "train").classes
    other_ids = [category(1, "dog"), category(2, "bird"), category(3, "cat")]
    rows = [annotation(1, category_id=1), annotation(2, category_id=3)]
    valid = read_coco(write_coco(tmp_path, "valid", annotations=rows, categories=other_ids), "valid", classes)
    assert valid.classes is classes
    assert valid.labels.tolist() == [1, 0]
    assert valid.category_id_of == {0: 3, 1: 1}


def test_labels_are_class_ids_and_not_positions_in_the_table(tmp_path: Path) -> None:
    rows = [annotation(1, category_id=7), annotation(2)]
    assert read_coco(write_coco(tmp_path, annotations=rows), "train", COCO).labels.tolist() == [18, 17]


def test_objects_that_the_training_classes_lack(tmp_path: Path) -> None:
    classes = ClassTable.from_categories([(0, "cat")])
    rows = [annotation(1), annotation(2, category_id=7), annotation(3, category_id=7)]
    assert message(write_coco(tmp_path, annotations=rows), classes=classes) == (
        f"{file_of(tmp_path)}: annotations of categories that are no classes of the model (cat) (2): "
        "id 2 is a 'dog', id 3 is a 'dog'"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param('{\n"images": [1,]}', "not JSON: {} in line 2, column", id="not JSON"),
        pytest.param("", "not JSON: Expecting value in line 1, column 1", id="empty file"),
        pytest.param(
            "[]",
            'expected an object with "images", "annotations", "categories", got a list',
            id="results, not a dataset",
        ),
        pytest.param("[" * 100_000, "cannot be read: maximum recursion depth exceeded", id="endless brackets"),
        pytest.param("9" * 5000, "cannot be read: Exceeds the limit (4300", id="endless number"),
        pytest.param(
            '{"images": [], "categories": {}}',
            'no list "annotations", "categories". A COCO file has "images", "annotations", "categories"',
            id="tables missing",
        ),
    ],
)
def test_not_a_coco_file(tmp_path: Path, text: str, complaint: str) -> None:
    file_of(write_coco(tmp_path)).write_text(text, encoding="utf-8")
    start, _, end = complaint.partition("{}")
    assert message(tmp_path).startswith(f"{file_of(tmp_path)}: {start}")
    assert end in message(tmp_path)


def test_not_a_text_file(tmp_path: Path) -> None:
    file_of(write_coco(tmp_path)).write_bytes(b'{"images": "\xff\xfe"}')
    assert message(tmp_path) == f"{file_of(tmp_path)}: not a text file in UTF-8"


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        pytest.param({"images": []}, "no images", id="no images"),
        pytest.param({"annotations": [], "categories": []}, "no categories", id="no categories"),
        pytest.param(
            {"images": [image(1), image(2), image(2)]}, "ids of images used more than once (1): 2", id="image id twice"
        ),
        pytest.param(
            {"categories": [*CAT_AND_DOG, category(3, "cow")]},
            "ids of categories used more than once (1): 3",
            id="category id twice",
        ),
        pytest.param(
            {"categories": [*CAT_AND_DOG, category(4, "cat")]},
            "names of categories used more than once (1): 'cat'",
            id="category name twice",
        ),
        pytest.param(
            {"images": [image(number) for number in (1, 3, 4, 5, 6)]},
            "images without a file in {folder} (4): 3.png (id 3), 4.png (id 4), 5.png (id 5), ...",
            id="missing files",
        ),
        pytest.param(
            {"annotations": [annotation(1), annotation(5, image_id=99)]},
            "annotations of image ids that are not in images (1): id 5 has 99",
            id="unknown image",
        ),
        pytest.param(
            {"annotations": [annotation(1), annotation(5, category_id=4)]},
            "annotations of category ids that are not in categories (1): id 5 has 4",
            id="unknown category",
        ),
        pytest.param(
            {"annotations": [annotation(1, iscrowd=1), annotation(2, bbox=[3, 4, 0, 9])]},
            "no object to train on: no annotations but crowd regions and boxes without area",
            id="nothing to learn",
        ),
    ],
)
def test_problems(tmp_path: Path, tables: dict[str, list[Any]], complaint: str) -> None:
    folder = write_coco(tmp_path, "train", **tables) / "train"
    assert complaint.format(folder=folder) in message(tmp_path)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    write_coco(
        tmp_path,
        images=[image(1), image(2, width=0), image(3)],
        annotations=[annotation(1, bbox=[1, 2, 3]), annotation(2, image_id=2), annotation(3, image_id=8)],
    )
    assert message(tmp_path).splitlines() == [
        f"{file_of(tmp_path)} has 4 problems:",
        "  images whose 'width' is not a positive whole number (1): id 2 has 0",
        "  annotations whose 'bbox' is not [x, y, width, height] in finite numbers, width and height not negative (1): "
        "id 1 has [1, 2, 3]",
        f"  images without a file in {tmp_path}/train (1): 3.png (id 3)",
        "  annotations of image ids that are not in images (1): id 3 has 8",
    ]


POINT = "polygons that are a point or lie beside the box of their object (are both in pixels?) (1): id 1 has "


def test_masks_belong_to_their_boxes(tmp_path: Path) -> None:
    rows = [
        annotation(1, image_id=2, bbox=[1, 1, 8, 8], segmentation=[[1, 1, 9, 1, 9, 9]]),
        annotation(2, segmentation={"size": [40, 60], "counts": [5, 2, 2393]}),
        annotation(3, iscrowd=1),
        annotation(4, image_id=2, bbox=[4, 4, 5, 5], segmentation=[[4, 4, 8, 4, 8, 8, 4, 8], [6, 6, 9, 6, 9, 9, 6, 9]]),
    ]
    split = read_coco(write_coco(tmp_path, annotations=rows), "train", masks=True)
    assert split.annotation_ids.tolist() == [2, 3, 1, 4]
    assert split.segmentations is not None
    areas = [decode(to_rle(split.segmentations[row], (40, 60))).sum() for row in range(4)]
    assert areas == [2, 0, 28, 16 + 9 - 4]


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        pytest.param([[0.2, 0.5, 0.7, 0.5, 0.7, 0.7]], POINT + "x 0.2 to 0.7, y 0.5 to 0.7", id="parts of the image"),
        pytest.param([[20, 25, 20, 25, 20, 25]], POINT + "x 20 to 20, y 25 to 25", id="a point in the box"),
        pytest.param([[45, 20, 50, 20, 50, 30]], POINT + "x 45 to 50, y 20 to 30", id="beside the box"),
        pytest.param([[1e299] * 6], POINT + "x 1e+299 to 1e+299", id="far away"),
        pytest.param(
            {"size": [40, 60], "counts": [2400]},
            "run-length code without a pixel of its object (1): id 1",
            id="nothing",
        ),
    ],
)
def test_an_outline_that_would_make_an_empty_mask(tmp_path: Path, segmentation: Any, complaint: str) -> None:
    rows = [annotation(1, segmentation=segmentation)]
    assert complaint in message(write_coco(tmp_path, annotations=rows), masks=True)


def test_masks_are_looked_at_only_where_they_are_asked_for(tmp_path: Path) -> None:
    split = read_coco(write_coco(tmp_path, annotations=[annotation(1, segmentation="nonsense")]), "train")
    assert split.segmentations is None


POLYGONS_OR_CODE = (
    "annotations whose 'segmentation' is neither a list of polygons [[x, y, x, y, ...], ...] nor run-length code "
    "{'size': [height, width], 'counts': ...} (1): id 5 has "
)
NOT_RUNS = "run-length code whose 'counts' are not run lengths (1): id 5 has "
NOT_FULL = "run-length code that does not fill its image exactly (1): id 5 has "
NOT_FINITE = "polygons whose coordinates are not finite numbers (1): id 5 has "
OTHER_SIZE = "run-length code whose 'size' is not the [height, width] of its image (1): id 5 has "


def code(counts: Any, size: Any = (40, 60)) -> dict[str, Any]:
    return {"size": size, "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        pytest.param("abc", POLYGONS_OR_CODE + "'abc'", id="text"),
        pytest.param([1, 2, 3, 4, 5, 6], POLYGONS_OR_CODE + "[1, 2, 3, 4, 5, 6]", id="a polygon without its list"),
        pytest.param({"size": [40, 60]}, POLYGONS_OR_CODE + "{'size': [40, 60]}", id="code without counts"),
        pytest.param([[1, 2, 3, 4]], "polygons with fewer than three points (1): id 5 has [1, 2, 3, 4]", id="a line"),
        pytest.param([[0, 0, 9, 0, 9, 9], []], "polygons with fewer than three points (1): id 5 has []", id="no point"),
        pytest.param([[0] * 7], "polygons with an odd number of coordinates (1): id 5 has 7", id="odd"),
        pytest.param([[0, 0, 9, 0, 9, "9"]], NOT_FINITE + "'9'", id="a number as text"),
        pytest.param([[0, 0, 9, 0, 9, None]], NOT_FINITE + "None", id="null"),
        pytest.param([[0, 0, 9, 0, 9, float("nan")]], NOT_FINITE + "nan", id="NaN"),
        pytest.param([[0, 0, 9, 0, 9, float("inf")]], NOT_FINITE + "inf", id="inf"),
        pytest.param([[0, 0, 9, 0.5, 9, 10**400]], NOT_FINITE + "10000", id="beyond a double"),
        pytest.param(
            [[0, 0, 1e9, 0, 9, 9]],
            "polygons longer than all pixel edges of their image together (1): id 5 has a length of 2e+09 pixels",
            id="into the distance",
        ),
        pytest.param([[0, 0, 60, 1] * 100], "(1): id 5 has a length of 1.214e+04 pixels", id="to and fro without end"),
        pytest.param(code([2400], (60, 40)), OTHER_SIZE + "[60, 40], its image [40, 60]", id="size turned"),
        pytest.param(code("0", (2**31, 2**31)), OTHER_SIZE + "[2147483648, 2147483648], its", id="size huge"),
        pytest.param(code([2400], None), OTHER_SIZE + "None, its image [40, 60]", id="no size"),
        pytest.param(code([-1, 2401]), NOT_RUNS + "[-1, 2401]", id="negative run"),
        pytest.param(code([2**32, 1]), NOT_RUNS + "[4294967296, 1]", id="endless run"),
        pytest.param(code([0.5, 2399.5]), NOT_RUNS + "[0.5, 2399.5]", id="half a run"),
        pytest.param(code([True] * 3), NOT_RUNS + "[True, True, True]", id="a run that is no number"),
        pytest.param(code([2399]), NOT_FULL + "2399 of 2400 pixels", id="too short"),
        pytest.param(code([2400, 1]), NOT_FULL + "2401 of 2400 pixels", id="too long"),
        pytest.param(code([]), NOT_FULL + "0 of 2400 pixels", id="no runs"),
        pytest.param(code(""), NOT_RUNS + "''", id="no characters"),
        pytest.param(code("1"), NOT_FULL + "1 of 2400 pixels", id="too short, as a string"),
        pytest.param(code("0" * 10**6), NOT_FULL + "0 of 2400 pixels", id="a million runs of nothing"),
        pytest.param(code("o" * 10**6), NOT_RUNS + "'oooooooooooo...ooooooooooooo'", id="a million digits"),
        pytest.param(code("a1P"), NOT_RUNS + "'a1P'", id="a string cut off"),
        pytest.param(code("\ud800\xe9\u65e5"), NOT_RUNS + "'\\ud800", id="another alphabet"),
    ],
)
@pytest.mark.parametrize("is_crowd", [0, 1], ids=["object", "crowd"])
def test_a_damaged_mask(tmp_path: Path, segmentation: Any, complaint: str, is_crowd: int) -> None:
    good = annotation(1, segmentation=[[10, 20, 40, 20, 40, 30]])
    rows = [good, annotation(5, segmentation=segmentation, iscrowd=is_crowd)]
    text = message(write_coco(tmp_path, annotations=rows), masks=True)
    assert text.startswith(f"{file_of(tmp_path)}: ")
    assert complaint in text
    assert len(text) < 400


@pytest.mark.parametrize("nothing", [None, [], {}, ""], ids=repr)
def test_objects_need_a_mask_and_crowd_regions_do_not(tmp_path: Path, nothing: Any) -> None:
    rows = [
        annotation(1),
        annotation(2, segmentation=nothing),
        annotation(3, segmentation=nothing, iscrowd=1),
        annotation(4, image_id=2, segmentation=[[10, 20, 40, 20, 40, 30]]),
    ]
    assert message(write_coco(tmp_path, annotations=rows), masks=True) == (
        f"{file_of(tmp_path)}: annotations without a 'segmentation' (a segmentation model needs a mask for each "
        "object: add them, or use a detection size) (2): id 1, id 2"
    )


def test_damaged_masks_are_named_beside_all_other_problems(tmp_path: Path) -> None:
    rows = [annotation(1), annotation(2, image_id=9), annotation(3, segmentation=[[1, 2]])]
    assert message(write_coco(tmp_path, annotations=rows), masks=True).splitlines()[1:] == [
        "  annotations of image ids that are not in images (1): id 2 has 9",
        "  annotations without a 'segmentation' (a segmentation model needs a mask for each object: add them, or use a "
        "detection size) (1): id 1",
        "  polygons with fewer than three points (1): id 3 has [1, 2]",
    ]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_real_masks_are_those_of_pycocotools(shared: Path, split: Any) -> None:
    """Polygons, run-length code as a string and as a list."""
    truth = read_coco(shared / "data/fruits-nuts-seg", split, masks=True)
    theirs = pycocotools.COCO(truth.annotation_file)
    assert truth.segmentations is not None
    for row, number in enumerate(truth.annotation_ids.tolist()):
        counts = to_rle(truth.segmentations[row], (480, 640))["counts"]
        assert theirs.annToRLE(theirs.anns[number])["counts"] in (counts, counts.decode())


def test_real_annotations(shared: Path) -> None:
    split = read_coco(shared / "data/bccd", "train")
    assert split.classes.names == ("Platelets", "RBC", "WBC")
    assert len(split) == 205
    assert np.bincount(split.labels).tolist() == [209, 2381, 214]


def test_many_objects(tmp_path: Path) -> None:
    rows = [annotation(number, image_id=1 + number % 2) for number in range(30_000)]
    split = read_coco(write_coco(tmp_path, annotations=rows), "train")
    assert split.offsets.tolist() == [0, 15_000, 30_000]
