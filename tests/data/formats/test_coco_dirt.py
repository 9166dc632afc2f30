"""COCO files in which something is meant otherwise, or which lose objects without a word if nobody looks."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from rfdetr.data.reading import Dataset, read_dataset

from ..tiny_coco import CAT_AND_DOG, annotation, category, image, write_coco

SQUARE = [[10, 20, 40, 20, 40, 30, 10, 30]]


def said(dataset: Dataset, severity: str = "warning") -> list[str]:
    return [problem.message for problem in dataset.problems if problem.severity == severity]


def read(root: Path, masks: bool = False, **tables: Any) -> Dataset:
    return read_dataset(write_coco(root, **tables), ["train"], masks)


def with_row(root: Path, masks: bool = False, **changes: Any) -> Dataset:
    """Two good objects, and one of id 5 with a defect."""
    good = [annotation(number, segmentation=SQUARE) for number in (1, 2)]
    return read(root, masks, annotations=[*good, annotation(5, **{"segmentation": SQUARE, **changes})])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(
            '{"images": [],\n}',
            "not JSON: Expecting property name enclosed in double quotes in line 2, column 1",
            id="a comma too many",
        ),
        pytest.param(
            '{"images": [],\n"annotations": [],\n"images": []}',
            'the list "images" is there twice, again in line 3. Join them',
            id="a list twice",
        ),
        pytest.param("{1: 2}", "not JSON: Expecting property name enclosed in double quotes in line 1", id="no name"),
        pytest.param("null", "expected an object {...}, got null", id="null"),
        pytest.param("7", "expected an object {...}, got a number", id="a number"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (write_coco(tmp_path) / "train/_annotations.coco.json").write_text(text)
    (message,) = said(read_dataset(tmp_path, ["train"]), "error")[:1]
    assert message.startswith(complaint)


@pytest.mark.parametrize(
    ("box", "complaint"),
    [
        pytest.param(
            [10, 20, True, 8],
            "annotations whose 'bbox' is not [x, y, width, height] in numbers (left out) (1): id 5 has "
            "[10, 20, True, 8]",
            id="true",
        ),
        pytest.param(
            [0, 0, 1e30, 5], "boxes that reach farther than any picture (left out) (1): id 5 has [0, 0, 1e+30, 5]",
            id="to the stars",
        ),
        pytest.param(
            [50, 20, 1e-9, 5], "boxes too narrow for numbers of 32 bits (left out) (1): id 5 has [50, 20, 1e-09, 5]",
            id="a hair",
        ),
        pytest.param(
            [59.99999999, 20, 5, 5],
            "boxes too narrow for numbers of 32 bits (left out) (1): id 5 has [60, 20, 5, 5]",
            id="a hair at the edge",
        ),
    ],
)  # fmt: skip
def test_boxes_of_which_nothing_is_left_are_named(tmp_path: Path, box: list[float], complaint: str) -> None:
    dataset = with_row(tmp_path, bbox=box)
    assert said(dataset) == [complaint]
    assert len(dataset.splits["train"].training_objects(0).labels) == 2


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        pytest.param(
            {"annotations": [annotation(n, bbox=[1, 2]) for n in range(3)] + [annotation(4)]},
            "3 of 4 annotations cannot be used: see the warnings for why",
            id="annotations",
        ),
        pytest.param(
            {"images": [image(1), image(2, file_name=None), image(3, id=None)], "annotations": [annotation(1)]},
            "2 of 3 images cannot be used: see the warnings for why",
            id="images",
        ),
    ],
)
def test_most_of_a_list_must_be_of_use(tmp_path: Path, tables: dict[str, Any], complaint: str) -> None:
    assert said(read(tmp_path, **tables), "error") == [complaint]


@pytest.mark.parametrize("step", [-1, 1])
def test_one_list_counts_from_0_and_the_other_from_1(tmp_path: Path, step: int) -> None:
    categories = [category(number, f"class {number}") for number in (1, 2, 3)]
    rows = [annotation(number, category_id=number % 3 + 1 + step) for number in range(9)]
    (complaint,) = said(read(tmp_path, categories=categories, annotations=rows), "error")
    assert complaint == (
        f"annotations have category ids from {1 + step} to {3 + step}, categories from 1 to 3: one of them counts from "
        "0, the other from 1, it seems. Let both do the same"
    )


def test_a_single_annotation_of_a_foreign_category_is_no_sign_of_that(tmp_path: Path) -> None:
    rows = [annotation(1, category_id=1), annotation(2, category_id=1), annotation(3, category_id=0)]
    dataset = read(tmp_path, categories=[category(1, "cat"), category(2, "dog")], annotations=rows)
    assert said(dataset, "error") == []
    assert said(dataset) == ["annotations of category ids that are not in categories (left out) (1): id 3 has 0"]


@pytest.mark.parametrize("make", [lambda n: f"img-{n}", lambda n: 2**70 + n], ids=["words", "beyond 64 bits"])
def test_ids_that_are_no_numbers_of_64_bits_are_numbered_in_their_order(tmp_path: Path, make: Any) -> None:
    images = [image(1, id=make(2)), image(2, id=make(1))]
    rows = [annotation(1, image_id=make(1), category_id="b"), annotation(2, image_id=make(2), category_id="a")]
    dataset = read(tmp_path, images=images, annotations=rows, categories=[category(0, "one"),
                   category(0, "cat", id="b"), category(0, "dog", id="a")])  # fmt: skip
    split = dataset.splits["train"]
    assert split.image_ids.tolist() == [0, 1]
    assert dataset.classes.names == ("one", "cat", "dog")
    assert [dataset.classes.names[label] for label in split.labels] == ["dog", "cat"]


@pytest.mark.parametrize("key", [None, "five"])
def test_an_annotation_without_a_number_for_an_id_is_named_by_its_place(tmp_path: Path, key: Any) -> None:
    assert said(with_row(tmp_path, id=key, bbox=[90, 90, 5, 5])) == [
        "boxes that lie outside of their image (left out) (1): entry 3 has [90, 90, 5, 5]"
    ]


def test_accents_may_be_composed_or_not(tmp_path: Path) -> None:
    for split, form in (("train", "NFC"), ("valid", "NFD")):
        names = [category(3, unicodedata.normalize(form, "café")), category(7, "dog")]  # type: ignore[arg-type]
        write_coco(tmp_path, split, categories=names)
    dataset = read_dataset(tmp_path)
    assert dataset.problems == []
    assert dataset.splits["valid"].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("number", "severity"), [(2, "warning"), (4, "error")], ids=["some leave the image", "most leave it"]
)
def test_boxes_that_begin_at_their_centre_are_suspected(tmp_path: Path, number: int, severity: str) -> None:
    rows = [annotation(n, bbox=[45, 25, 29, 29] if n < number else [30, 20, 10, 10]) for n in range(6)]
    messages = said(read(tmp_path, annotations=rows), severity)
    percent = {2: "33%", 4: "67%"}[number]
    assert messages[0] == (
        f"{percent} of the boxes leave the image, and none would if [x, y, width, height] had x and y of the centre. "
        "COCO's boxes are [x, y, width, height] in pixels, from its left top corner"
    )


CODE_ELSEWHERE = {"size": [40, 60], "counts": [0, 40, 2360]}


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        pytest.param(
            CODE_ELSEWHERE,
            "run-length code whose pixels lie beside the box of its object (the box serves as mask) (1): id 5",
            id="code",
        ),
        pytest.param(
            [[10, 20, 40, 20, 10, 20]], "polygons that cover no pixel (the box serves as mask) (1): id 5", id="a line"
        ),
        pytest.param(
            [[10, 20, 40, 30, 10, 20, 40, 30]],
            "polygons that cover no pixel (the box serves as mask) (1): id 5",
            id="to and fro",
        ),
        pytest.param(
            [[0, 0, 60, 0, 60, 40, 0, 40]],
            "objects whose box and outline differ by more than half (both are used) (1): id 5",
            id="the whole image",
        ),
    ],
)
def test_outlines_that_are_not_of_their_box(tmp_path: Path, segmentation: Any, complaint: str) -> None:
    assert said(with_row(tmp_path, masks=True, segmentation=segmentation)) == [complaint]


def test_a_polygon_that_crosses_itself_is_used(tmp_path: Path) -> None:
    """Its halves have equal areas of opposite sign."""
    assert said(with_row(tmp_path, masks=True, segmentation=[[10, 20, 40, 30, 40, 20, 10, 30]])) == []


def test_categories_alone_make_no_coco_file(tmp_path: Path) -> None:
    """As the notes that Label Studio leaves beside YOLO's files."""
    (write_coco(tmp_path) / "train.json").write_text(json.dumps({"categories": CAT_AND_DOG}))
    assert read_dataset(tmp_path).problems == []
