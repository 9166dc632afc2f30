from pathlib import Path

import numpy as np
import pytest

from rfdetr.evaluation import matching
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.evaluation.matching import judge, match

from .scenes import Box, Thing, as_coco, crowded_scene, ground_truth, predictions, run_pycocotools, scored

CAT, DOG = 0, 1


def matched(things: list[Thing], *rows: tuple[int, float, Box]) -> list[str]:
    """What becomes of each prediction of one image."""
    table = DetectionTable.from_predictions([0], [predictions(*rows)])
    is_correct, is_ignored = match(ground_truth(things), table)
    return [
        "found" if right else "ignored" if left else "wrong" for right, left in zip(is_correct, is_ignored, strict=True)
    ]


@pytest.mark.parametrize(
    ("things", "rows", "expected"),
    [
        pytest.param([], [(CAT, 0.9, (0, 0, 10, 10))], ["wrong"], id="nothing to find"),
        pytest.param([Thing(0, CAT, (0, 0, 10, 10))], [], [], id="nothing predicted"),
        pytest.param([Thing(0, CAT, (0, 0, 10, 10))], [(DOG, 0.9, (0, 0, 10, 10))], ["wrong"], id="other class"),
        pytest.param([Thing(0, CAT, (0, 0, 10, 10))], [(CAT, 0.9, (0, 0, 10, 5))], ["found"], id="IoU exactly 0.5"),
        pytest.param([Thing(0, CAT, (0, 0, 10, 10))], [(CAT, 0.9, (0, 0, 10, 4))], ["wrong"], id="IoU below 0.5"),
        pytest.param([Thing(0, CAT, (0, 0, 0, 0))], [(CAT, 0.9, (0, 0, 0, 0))], ["wrong"], id="empty boxes"),
        pytest.param(
            [Thing(0, CAT, (0, 0, 10, 10))],
            [(CAT, 0.5, (0, 0, 10, 10)), (CAT, 0.9, (0, 0, 10, 9)), (CAT, 0.7, (0, 0, 10, 10))],
            ["wrong", "found", "wrong"],
            id="best score wins, not best overlap",
        ),
        pytest.param(
            [Thing(0, CAT, (0, 0, 10, 10)), Thing(0, CAT, (0, 0, 10, 8))],
            [(CAT, 0.9, (0, 0, 10, 9.5)), (CAT, 0.8, (0, 0, 10, 10))],
            ["found", "found"],
            id="the second takes what the first left",
        ),
        pytest.param(
            [Thing(0, CAT, (0, 0, 40, 40), is_crowd=True)],
            [(CAT, 0.9, (0, 0, 10, 10)), (CAT, 0.8, (10, 10, 10, 10)), (CAT, 0.7, (35, 0, 10, 10))],
            ["ignored", "ignored", "ignored"],
            id="many on a crowd region, one of them by half",
        ),
        pytest.param(
            [Thing(0, CAT, (0, 0, 40, 40), is_crowd=True), Thing(0, CAT, (5, 5, 10, 10))],
            [(CAT, 0.9, (5, 5, 10, 10)), (CAT, 0.8, (5, 5, 10, 10))],
            ["found", "ignored"],
            id="an object in a crowd region",
        ),
    ],
)
def test_match(things: list[Thing], rows: list[tuple[int, float, Box]], expected: list[str]) -> None:
    assert matched(things, *rows) == expected


def test_a_chain_of_displaced_detections_ends_as_if_taken_one_by_one() -> None:
    """Each box overlaps its two neighbours enough, and the better scored one comes later: every round moves one."""
    things = [Thing(0, CAT, (2 * k, 0, 10, 10)) for k in range(8)]
    rows = [(CAT, 0.1 + 0.1 * k, (2.0 * k + 0.9, 0.0, 10.0, 10.0)) for k in range(8)]
    assert matched(things, *rows) == ["found"] * 8


@pytest.mark.parametrize("pairs_at_once", [7, matching._PAIRS_AT_ONCE])
def test_it_counts_what_pycocotools_counts(pairs_at_once: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", pairs_at_once)
    truth, guesses = crowded_scene(seed=0)
    _, rows = scored(truth, guesses, tmp_path)
    cells = run_pycocotools(as_coco(truth), rows, max_dets=500).evalImgs
    cells = [cell for cell in cells if cell is not None and cell["aRng"] == [0, 1e10]]
    hits = sum(((cell["dtMatches"][0] > 0) & (cell["dtIgnore"][0] == 0)).sum() for cell in cells)
    ignored = sum(cell["dtIgnore"][0].sum() for cell in cells)

    is_correct, is_ignored = match(truth, DetectionTable.from_predictions(range(len(truth)), guesses))
    assert is_ignored.sum() == ignored > 0
    assert is_correct.sum() == hits > 0
    assert not np.any(is_correct & is_ignored)


def test_images_may_come_in_parts_and_any_order() -> None:
    truth, guesses = crowded_scene(seed=1)
    whole = DetectionTable.from_predictions(range(len(truth)), guesses)
    is_correct, is_ignored = match(truth, whole)
    for images in (range(10, 4, -1), [23, 3]):
        part = DetectionTable.from_predictions(images, [guesses[image] for image in images])
        kept = np.concatenate([np.flatnonzero(whole.images == image) for image in images])
        found = match(truth, part)
        np.testing.assert_array_equal(found[0], is_correct[kept])
        np.testing.assert_array_equal(found[1], is_ignored[kept])


def test_what_lies_on_a_crowd_region_is_not_judged() -> None:
    things = [Thing(0, CAT, (0, 0, 40, 40), is_crowd=True), Thing(0, DOG, (0, 0, 10, 10))]
    rows = [(CAT, 0.9, (0, 0, 10, 10)), (DOG, 0.8, (0, 0, 10, 10)), (DOG, 0.75, (50, 50, 10, 10))]
    judged = judge(ground_truth(things), DetectionTable.from_predictions([0], [predictions(*rows)]))
    assert judged["label"].tolist() == [DOG, DOG]
    assert judged["is_correct"].tolist() == [True, False]
