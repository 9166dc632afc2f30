import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import coco as pycocotools

from rfdetr.data.reading import read_dataset, read_split
from rfdetr.errors import DatasetError
from rfdetr.masks import decode, to_rle

from ..tiny_coco import CAT_AND_DOG, annotation, category, image, write_coco


def said(root: Path, severity: str, masks: bool = False) -> list[str]:
    """The problems of a kind, without the name of the file."""
    problems = read_dataset(root, ["train"], masks).problems
    return [problem.message for problem in problems if problem.severity == severity]


def file_of(root: Path) -> Path:
    return root / "train" / "_annotations.coco.json"


def test_objects_lie_together_by_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [
        annotation(10, image_id=9, category_id=7),
        annotation(11, image_id=1, bbox=[-1, 2, 3, 4], area=11.5),
        annotation(12, image_id=9, iscrowd=1),
    ]
    split = read_split(write_coco(tmp_path, images=[image(9, file_name="2.png"), image(1)], annotations=rows), "train")
    assert [split.pictures.name(index) for index in range(len(split))] == ["2.png", "1.png"]
    assert split.image_ids.tolist() == [9, 1]
    assert split.sizes_hw.tolist() == [[40, 60], [40, 60]]
    assert split.offsets.tolist() == [0, 2, 3]
    assert split.labels.tolist() == [1, 0, 0]
    assert split.is_crowd.tolist() == [False, True, False]
    assert split.areas.tolist() == [300, 300, 11.5]
    assert split.boxes_xywh[2].tolist() == [-1, 2, 3, 4]
    assert split.boxes_xywh.dtype == split.areas.dtype == np.float64


def test_area_iscrowd_width_and_height_may_be_missing(tmp_path: Path) -> None:
    row, picture = annotation(1, bbox=[0, 0, 2.5, 4]), image(1)
    del row["area"], row["iscrowd"], picture["width"], picture["height"]
    root = write_coco(tmp_path, images=[picture, image(2)], annotations=[row, annotation(2, area=None)])
    split = read_split(root, "train")
    assert split.areas.tolist() == [10, 300]
    assert split.is_crowd.tolist() == [False, False]
    assert split.sizes_hw.tolist() == [[40, 60], [40, 60]]
    assert read_dataset(root, ["train"]).problems == []


def test_a_split_without_objects_can_be_evaluated(tmp_path: Path) -> None:
    split = read_split(write_coco(tmp_path, "valid", annotations=[]), "valid")
    assert split.boxes_xywh.shape == (0, 4)
    assert split.offsets.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte order mark"),
        pytest.param(lambda text: text.replace(b", ", b",\r\n\t") + b" \r\n\r\n", id="Windows line ends and blanks"),
        pytest.param(lambda text: text.decode().encode("utf-16"), id="UTF-16"),
    ],
)
def test_what_editors_do_to_text_is_no_problem(tmp_path: Path, change: Any) -> None:
    file = file_of(write_coco(tmp_path))
    file.write_bytes(change(file.read_bytes()))
    dataset = read_dataset(tmp_path, ["train"])
    assert dataset.problems == []
    assert len(dataset.splits["train"].labels) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param('{\n"images": [1,]}', "not JSON: Expecting value in line 2, column 14", id="not JSON"),
        pytest.param('{"images": [\n{}\n{}]}', "not JSON: Expecting ',' delimiter in line 3, column 1", id="no comma"),
        pytest.param(
            '{"images": [],\n"annotations": [{"id',
            "not JSON: Unterminated string starting at in line 2, column 18",
            id="cut off in a name",
        ),
        pytest.param('{"images": [{}', "not JSON: the file ends too early in line 1, column 15", id="cut off"),
        pytest.param("", "not JSON: the file ends too early in line 1, column 1", id="empty file"),
        pytest.param('{"images": []} {}', "not JSON: Extra data in line 1, column 16", id="two of them"),
        pytest.param("[]", "expected an object {...}, got a list [...]", id="results, not a dataset"),
        pytest.param("[" * 100_000, "cannot be read: maximum recursion depth exceeded", id="endless brackets"),
        pytest.param('{"images": [' + "9" * 5000, "cannot be read: Exceeds the limit (4300", id="endless number"),
        pytest.param(
            '{"images": [], "categories": {}}',
            'no list "annotations", "categories". A COCO file has "images", "annotations", "categories"',
            id="tables missing",
        ),
        pytest.param(b'{"images": "\xff\xfe"}', "not a text file in UTF-8", id="not text"),
    ],
)
def test_not_a_coco_file(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    file_of(write_coco(tmp_path)).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError) as error:
        read_split(tmp_path, "train")
    assert str(error.value).startswith(f"{file_of(tmp_path)}: {complaint}")


def test_a_line_number_is_right_far_into_a_large_file(tmp_path: Path) -> None:
    file = file_of(write_coco(tmp_path, annotations=[annotation(number) for number in range(30_000)]))
    lines = json.dumps(json.loads(file.read_text()), indent=0).splitlines()
    assert sum(map(len, lines)) > 2 * 2**20
    lines[250_000] = "?"
    file.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"in line 250001, column 1$"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        pytest.param({"images": []}, "no images", id="no images"),
        pytest.param({"annotations": [], "categories": []}, "no categories", id="no categories"),
        pytest.param(
            {"images": [image(1), image(2), image(2, file_name="1.png")]},
            "ids of images used more than once, so that it is unclear which one their annotations belong to (1): "
            "2 is 2.png and 1.png",
            id="image id twice",
        ),
        pytest.param(
            {"categories": [*CAT_AND_DOG, category(3, "cow")]},
            "ids of categories used more than once (1): 3 is 'cat' and 'cow'",
            id="category id twice",
        ),
        pytest.param(
            {"categories": [*CAT_AND_DOG, category(4, "cat ")]},
            "names of classes used more than once (1): 'cat' (ids 3, 4)",
            id="category name twice",
        ),
        pytest.param(
            {"categories": [*CAT_AND_DOG, category(4, "")]},
            "categories without a usable 'name' (1): id 4 has ''",
            id="category without name",
        ),
        pytest.param(
            {"annotations": [annotation(1, iscrowd=1), annotation(2, iscrowd=1)]},
            "no object to train on",
            id="nothing to learn",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, tables: dict[str, Any], complaint: str) -> None:
    assert complaint in said(write_coco(tmp_path, **tables), "error")


BOX = "annotations whose 'bbox' is not [x, y, width, height] in numbers (left out) (1): id 5 has "


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param({"image_id": 99}, "annotations of image ids that are not in images (left out) (1): id 5 has 99"),
        pytest.param(
            {"category_id": 4}, "annotations of category ids that are not in categories (left out) (1): id 5 has 4"
        ),
        pytest.param({"image_id": None}, "annotations whose 'image_id' is no id (left out) (1): id 5 has None"),
        pytest.param({"bbox": None}, BOX + "None"),
        pytest.param({"bbox": [1, 2, 3]}, BOX + "[1, 2, 3]"),
        pytest.param({"bbox": [1, 2, 3, None]}, BOX + "[1, 2, 3, None]"),
        pytest.param({"bbox": ["a", "b", 1, 2]}, BOX + "['a', 'b', 1, 2]"),
        pytest.param({"bbox": {"x": 1}}, BOX + "{'x': 1}"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_object_that_is_left_out(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    root = write_coco(tmp_path, annotations=[annotation(1), annotation(2), annotation(5, **row)])
    assert said(root, "warning") == [complaint]
    assert len(read_split(root, "train").labels) == 2


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param(
            {"bbox": ["10", "20.5", 30, 10]},
            "boxes whose numbers are text (read as numbers) (1): id 5 has ['10', '20.5', 30, 10]",
        ),
        pytest.param({"image_id": "1"}, "ids given as text (read as numbers, or numbered) (1): '1'"),
        pytest.param({"id": 1}, "ids of annotations used more than once (all count) (1): 1"),
        pytest.param({"iscrowd": "no"}, "annotations whose 'iscrowd' is not 0 or 1 (taken as 0) (1): id 5"),
        pytest.param(
            {"bbox": None, "segmentation": [[10, 20, 40, 20, 40, 30]]},
            "annotations without a box (taken from their outline) (1): id 5",
        ),
        pytest.param(
            {"bbox": [], "segmentation": {"size": [40, 60], "counts": [420, 5, 35, 5, 1935]}},
            "annotations without a box (taken from their outline) (1): id 5",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_object_that_is_mended(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    root = write_coco(tmp_path, annotations=[annotation(1), annotation(5, **row)])
    assert said(root, "warning") == [complaint]
    assert len(read_split(root, "train").labels) == 2


def test_a_box_is_taken_from_its_outline(tmp_path: Path) -> None:
    rows = [
        annotation(1, bbox=None, segmentation=[[10, 20, 40, 20, 40, 30], [5, 25, 8, 25, 8, 26]]),
        annotation(2, bbox=None, segmentation={"size": [40, 60], "counts": [422, 5, 35, 5, 1933]}),
        annotation(3, bbox=None, segmentation={"size": [40, 60], "counts": [430, 45, 1925]}),
    ]
    split = read_split(write_coco(tmp_path, annotations=rows), "train")
    assert split.boxes_xywh.tolist() == [[5, 20, 35, 10], [10, 22, 2, 5], [10, 0, 2, 40]]


def test_ids_may_be_words(tmp_path: Path) -> None:
    images = [image(1, id="one"), image(2, id="two")]
    rows = [annotation(1, image_id="two"), annotation(2, image_id="one", category_id="7")]
    split = read_split(write_coco(tmp_path, images=images, annotations=rows), "train")
    assert split.offsets.tolist() == [0, 1, 2]
    assert split.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("images", "complaint", "objects"),
    [
        pytest.param([image(1), image(1)], "images listed more than once (the first counts) (1): 1.png", 2),
        pytest.param(
            [image(1), image(2, file_name="1.png")], "files listed as more than one image (made one) (1): 1.png", 3
        ),
        pytest.param(
            [image(1), image(2, width="wide")],
            "images whose width or height is not a positive whole number (taken from the picture) (1): "
            "2.png has 'wide' x 40",
            3,
        ),
        pytest.param([image(1), image(2, file_name="")], "images without a file name (left out) (1): id 2", 2),
        pytest.param([image(1), "2.png"], "entries of images that are not objects (left out) (1): entry 2", 2),
    ],
    ids=lambda value: str(value)[:30],
)
def test_images_with_defects(tmp_path: Path, images: list[Any], complaint: str, objects: int) -> None:
    rows = [annotation(1), annotation(2), annotation(3, image_id=2)]
    root = write_coco(tmp_path, images=images, annotations=rows)
    assert complaint in said(root, "warning")
    assert len(read_split(root, "train").labels) == objects


def test_a_thousand_equal_problems_are_one_line(tmp_path: Path) -> None:
    rows = [annotation(number, bbox=[5, 5, -1, 5] if number % 3 == 0 else [5, 5, 5, 5]) for number in range(3000)]
    assert said(write_coco(tmp_path, annotations=rows), "warning") == [
        "boxes of negative width or height (left out) (1000): id 0 has [5, 5, -1, 5], id 3 has [5, 5, -1, 5], "
        "id 6 has [5, 5, -1, 5], ..."
    ]


def test_masks_belong_to_their_boxes(tmp_path: Path) -> None:
    rows = [
        annotation(1, image_id=2, bbox=[1, 1, 8, 8], segmentation=[[1, 1, 9, 1, 9, 9]]),
        annotation(2, bbox=[0, 5, 1, 2], segmentation={"size": [40, 60], "counts": [5, 2, 2393]}),
        annotation(3, iscrowd=1),
        annotation(4, image_id=2, bbox=[4, 4, 5, 5], segmentation=[[4, 4, 8, 4, 8, 8, 4, 8], [6, 6, 9, 6, 9, 9, 6, 9]]),
    ]
    split = read_split(write_coco(tmp_path, annotations=rows), "train", masks=True)
    assert split.segmentations is not None
    areas = [decode(to_rle(split.segmentations[row], (40, 60))).sum() for row in range(4)]
    assert areas == [2, 0, 28, 16 + 9 - 4]


OTHER = (
    "outlines that are neither polygons [[x, y, x, y, ...], ...] nor run-length code "
    "{'size': [height, width], 'counts': ...} (not used) (1): id 5 has "
)
NOT_RUNS = "run-length code whose 'counts' are not run lengths (not used) (1): id 5 has "
NOT_FULL = "run-length code that does not fill its size exactly (not used) (1): id 5 has "
NOT_NUMBERS = "polygons whose coordinates are not numbers (left out) (1): id 5 has "
NOT_FINITE = "polygons whose coordinates are not finite numbers (left out) (1): id 5 has "
NO_SIZE = "run-length code whose 'size' is not [height, width] (not used) (1): id 5 has "
OTHER_SIZE = "run-length code whose 'size' is not the [height, width] of its image (the box serves as mask) (1): id 5"
LONG = "polygons longer than all pixel edges of their image together (the box serves as mask) (1): id 5"
BESIDE = (
    "polygons that are a point or lie beside the box of their object (are both in pixels?) (the box serves as mask) "
    "(1): id 5"
)


def code(counts: Any, size: Any = (40, 60)) -> dict[str, Any]:
    return {"size": size, "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        pytest.param("abc", OTHER + "'abc'", id="text"),
        pytest.param({"size": [40, 60]}, OTHER + "{'size': [40, 60]}", id="code without counts"),
        pytest.param(
            [[1, 2, 3, 4]], "polygons with fewer than three points (left out) (1): id 5 has [1, 2, 3, 4]", id="a line"
        ),
        pytest.param([[0] * 7], "polygons with an odd number of coordinates (left out) (1): id 5 has", id="odd"),
        pytest.param([[0, 0, 9, 0, 9, "9"]], NOT_NUMBERS + "[0, 0, 9, 0, 9, '9']", id="a number as text"),
        pytest.param([[0, 0, 9, 0, 9, None]], NOT_NUMBERS, id="null"),
        pytest.param([[0, 0, 9, 0, 9, float("nan")]], NOT_FINITE + "[0, 0, 9, 0, 9, nan]", id="NaN"),
        pytest.param([[0, 0, 9, 0, 9, 10**400]], NOT_NUMBERS, id="beyond a double"),
        pytest.param([[0, 0, 1e9, 0, 9, 9]], LONG, id="into the distance"),
        pytest.param([[0, 0, 60, 1] * 100], LONG, id="to and fro without end"),
        pytest.param([[0.2, 0.5, 0.7, 0.5, 0.7, 0.7]], BESIDE, id="parts of the image"),
        pytest.param([[20, 25, 20, 25, 20, 25]], BESIDE, id="a point in the box"),
        pytest.param([[45, 20, 50, 20, 50, 30]], BESIDE, id="beside the box"),
        pytest.param(code([2, 2398], (60, 40)), OTHER_SIZE, id="size turned"),
        pytest.param(code("0", (2**31, 2**31)), NO_SIZE, id="size huge"),
        pytest.param(code([2400], None), NO_SIZE, id="no size"),
        pytest.param(code([-1, 2401]), NOT_RUNS + "[-1, 2401]", id="negative run"),
        pytest.param(code([0.5, 2399.5]), NOT_RUNS + "[0.5, 2399.5]", id="half a run"),
        pytest.param(code([True] * 3), NOT_RUNS + "[True, True, True]", id="a run that is no number"),
        pytest.param(code([2399]), NOT_FULL + "[2399]", id="too short"),
        pytest.param(code([]), NOT_FULL + "[]", id="no runs"),
        pytest.param(code(""), NOT_RUNS + "''", id="no characters"),
        pytest.param(code("0" * 10**6), NOT_FULL, id="a million runs of nothing"),
        pytest.param(code("o" * 10**6), NOT_RUNS + "'oooooooooooo...ooooooooooooo'", id="a million digits"),
        pytest.param(code("\ud800\xe9\u65e5"), NOT_RUNS, id="another alphabet"),
        pytest.param(
            code([2400]), "run-length code without a pixel of its object (not used) (1): id 5 has [2400]", id="nothing"
        ),
        pytest.param(None, "objects without an outline (the box serves as mask) (1): id 5", id="none"),
    ],
)
def test_an_object_whose_outline_cannot_be_used_has_its_box_as_mask(
    tmp_path: Path, segmentation: Any, complaint: str
) -> None:
    good = annotation(1, segmentation=[[10, 20, 40, 20, 40, 30]])
    root = write_coco(tmp_path, annotations=[good, annotation(5, segmentation=segmentation), {**good, "id": 6}])
    (first, *rest) = said(root, "warning", masks=True)
    assert first.startswith(complaint)
    assert rest in ([], ["objects without an outline (the box serves as mask) (1): id 5"])
    assert len(first) < 300
    split = read_split(root, "train", masks=True)
    assert split.segmentations is not None
    masks = [decode(to_rle(split.segmentations[row], (40, 60))) for row in range(3)]
    assert masks[1][20:30, 10:40].all()
    assert masks[1].sum() == 300
    assert (masks[0] == masks[2]).all()
    assert 0 < masks[0].sum() < 300


def test_outlines_are_looked_at_only_where_they_are_asked_for(tmp_path: Path) -> None:
    root = write_coco(tmp_path, annotations=[annotation(1, segmentation="nonsense")])
    assert said(root, "warning") == []
    assert read_split(root, "train").segmentations is None


def test_a_dataset_without_any_outline_is_not_for_segmentation(tmp_path: Path) -> None:
    assert said(write_coco(tmp_path), "error", masks=True) == [
        "no object has an outline that can be used. A segmentation model needs masks; use a detection size"
    ]


@pytest.mark.shared
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_real_masks_are_those_of_pycocotools(shared: Path, split: Any) -> None:
    """Polygons, run-length code as a string and as a list."""
    truth = read_split(shared / "data/fruits-nuts-seg", split, masks=True)
    theirs = pycocotools.COCO(truth.annotation_file)
    assert truth.segmentations is not None
    numbers = [number for image_id in truth.image_ids.tolist() for number in theirs.getAnnIds(imgIds=[image_id])]
    assert len(numbers) == len(truth.segmentations) > 20
    for row, number in enumerate(numbers):
        counts = to_rle(truth.segmentations[row], (480, 640))["counts"]
        assert theirs.annToRLE(theirs.anns[number])["counts"] in (counts, counts.decode())


@pytest.mark.shared
def test_real_annotations(shared: Path) -> None:
    dataset = read_dataset(shared / "data/bccd")
    assert dataset.problems == []
    assert dataset.classes.names == ("Platelets", "RBC", "WBC")
    assert len(dataset.splits["train"]) == 205
    assert np.bincount(dataset.splits["train"].labels).tolist() == [209, 2381, 214]
