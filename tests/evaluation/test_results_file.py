import json
from dataclasses import replace
from pathlib import Path

import pytest

from rfdetr.evaluation import results_file
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.masks import Rle
from rfdetr.types import Predictions

from .scenes import ground_truth, predictions

CAT, DOG, OWL = 0, 1, 2
BOX, FAR = (10.0, 10.0, 20.0, 20.0), (100.0, 100.0, 40.0, 40.0)
TRUTH = ground_truth([], num_images=2)


def table(row: int, found: Predictions) -> DetectionTable:
    return DetectionTable.from_predictions([row], [found])


def test_rows_have_the_ids_of_the_dataset_and_plain_numbers(tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    with ResultsFile.open(file, TRUTH) as results:
        results.add(table(0, predictions((DOG, 0.5, BOX))))
        results.add(table(1, predictions((CAT, 0.25, FAR))), [Rle(size=[200, 200], counts=b"PPYo1")])
        results.save()
    assert json.loads(file.read_text()) == [
        {"image_id": 17, "category_id": 5, "bbox": [10.0, 10.0, 20.0, 20.0], "score": 0.5},
        {
            "image_id": 7,
            "category_id": 3,
            "bbox": [100.0, 100.0, 40.0, 40.0],
            "segmentation": {"size": [200, 200], "counts": "PPYo1"},
            "score": 0.25,
        },
    ]
    assert file.read_text().count("\n") == 4  # a row a line
    assert list(tmp_path.iterdir()) == [file]


def test_no_rows_are_an_empty_array(tmp_path: Path) -> None:
    with ResultsFile.open(tmp_path / "predictions.json", TRUTH) as results:
        results.save()
    assert json.loads((tmp_path / "predictions.json").read_text()) == []


def test_classes_that_the_file_does_not_know_are_left_out_with_their_masks(tmp_path: Path) -> None:
    truth = replace(TRUTH, category_id_of={DOG: 5})
    with ResultsFile.open(tmp_path / "predictions.json", truth) as results:
        found = table(0, predictions((CAT, 0.75, BOX), (DOG, 0.5, BOX)))
        results.add(found, [Rle(size=[200, 200], counts=counts) for counts in (b"0", b"1")])
        results.save()
    (row,) = json.loads((tmp_path / "predictions.json").read_text())
    assert (row["category_id"], row["segmentation"]["counts"]) == (5, "1")


def test_what_is_not_saved_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    file.write_text("old")
    with ResultsFile.open(file, TRUTH) as results:
        results.add(table(0, predictions((DOG, 0.5, BOX))))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_rows_that_are_copied_in_parts_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "_CHARACTERS_AT_ONCE", 250)
    with ResultsFile.open(tmp_path / "predictions.json", TRUTH) as results:
        for number in range(1, 31):
            results.add(table(0, predictions((OWL, number / 100, BOX))))
        results.save()
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [round(row["score"] * 100) for row in rows] == list(range(1, 31))
