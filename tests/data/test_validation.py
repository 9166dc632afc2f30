from pathlib import Path
from typing import Any

import pytest

from rfdetr.data.validation import Problems, well_formed
from rfdetr.errors import DatasetError

from .tiny_coco import annotation, category, image

BOX = "[x, y, width, height] in finite numbers, width and height not negative"


@pytest.mark.parametrize(
    ("table", "row", "complaint"),
    [
        pytest.param(
            "images", image(1, id="1"), "'id' is not a whole number (1): entry 2 of images has '1'", id="text id"
        ),
        pytest.param(
            "images", image(1, id=True), "'id' is not a whole number (1): entry 2 of images has True", id="bool"
        ),
        pytest.param("images", image(5, file_name=""), "'file_name' is not a file name (1): id 5 has ''", id="no name"),
        pytest.param(
            "images", image(5, height=4.5), "'height' is not a positive whole number (1): id 5 has 4.5", id="size"
        ),
        pytest.param("annotations", annotation(6, id=2**63), "'id' is not a whole number", id="id beyond 64 bits"),
        pytest.param("annotations", annotation(6, image_id=None), "(1): id 6 has None", id="null"),
        pytest.param("annotations", {"id": 6, "image_id": 1, "bbox": [0, 0, 1, 1]}, "(1): id 6 has none", id="missing"),
        pytest.param("annotations", annotation(6, bbox=[1, 2, 3]), f"'bbox' is not {BOX} (1): id 6", id="short box"),
        pytest.param("annotations", annotation(6, bbox=[1, 2, -3, 4]), "has [1, 2, -3, 4]", id="negative box"),
        pytest.param("annotations", annotation(6, bbox=[1, float("nan"), 3, 4]), "has [1, nan, 3, 4]", id="NaN box"),
        pytest.param("annotations", annotation(6, bbox=[1, 2, float("inf"), 4]), "has [1, 2, inf, 4]", id="inf box"),
        pytest.param("annotations", annotation(6, bbox=[1, 2, 10**400, 4]), "id 6 has [1, 2, 1000", id="endless box"),
        pytest.param("annotations", annotation(6, area=10**400), "id 6 has 1000", id="endless area"),
        pytest.param("annotations", annotation(6, bbox=["1", 2, 3, 4]), "has ['1', 2, 3, 4]", id="text box"),
        pytest.param("annotations", annotation(6, area=-1), "'area' is not a finite number, not negative", id="area"),
        pytest.param("annotations", annotation(6, iscrowd=2), "'iscrowd' is not 0 or 1 (1): id 6 has 2", id="crowd"),
        pytest.param("categories", category(3, ""), "'name' is not a name (1): id 3 has ''", id="nameless category"),
        pytest.param(
            "categories", "cat", "entries of categories that are not objects (1): entry 2", id="not an object"
        ),
    ],
)
def test_a_malformed_entry(table: str, row: Any, complaint: str) -> None:
    good = {"images": image(1), "annotations": annotation(1), "categories": category(1, "cat")}[table]
    problems = Problems(Path("file.json"))
    assert well_formed(table, [good, row], problems) == [good]
    assert len(problems.lines) == 1
    assert complaint in problems.lines[0]


def test_whole_numbers_may_be_written_as_decimals_in_sizes() -> None:
    problems = Problems(Path("file.json"))
    well_formed("images", [image(1, width=640.0)], problems)
    assert problems.lines == []


def test_long_values_are_cut() -> None:
    problems = Problems(Path("file.json"))
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    well_formed("annotations", [annotation(1, bbox=list(range(1000))), annotation(2, bbox=deep)], problems)
    assert len(problems.lines[0]) < 300


def test_a_report_shows_three_examples_of_a_kind() -> None:
    problems = Problems(Path("file.json"))
    problems.add("bad things", [])
    problems.raise_if_any()
    problems.add("bad things", ["one", "two", "three", "four"])
    with pytest.raises(DatasetError) as error:
        problems.raise_if_any()
    assert str(error.value) == "file.json: bad things (4): one, two, three, ..."
