import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from rfdetr.data.annotations import Annotations
from rfdetr.data.coco import read_coco
from rfdetr.evaluation.coco_metrics import CocoEvaluator
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.types import Predictions

from .scenes import (
    CLASSES,
    Thing,
    as_coco,
    crowded_scene,
    ground_truth,
    guess,
    predictions,
    pycocotools_metrics,
    run_pycocotools,
)

CAT, DOG = 0, 1
BOX, FAR = (10.0, 10.0, 20.0, 20.0), (100.0, 100.0, 40.0, 40.0)


def evaluate(truth: Annotations, guesses: list[Predictions], max_dets: int = 500) -> EvaluationResult:
    return evaluator_of(truth, guesses, max_dets).compute()


def evaluator_of(truth: Annotations, guesses: list[Predictions], max_dets: int = 500) -> CocoEvaluator:
    evaluator = CocoEvaluator(truth, max_dets)
    for start in range(0, len(guesses), 5):
        rows = slice(start, start + 5)
        evaluator.update(truth.image_ids[rows].tolist(), guesses[rows])
    return evaluator


def assert_equals_pycocotools(evaluator: CocoEvaluator, annotation_file: dict[str, Any]) -> None:
    result = evaluator.compute()
    results = json.loads(json.dumps(evaluator.coco_results()))  # as a reader of the file gets them
    evaluation = run_pycocotools(annotation_file, results, evaluator.max_dets)
    metrics, per_class = pycocotools_metrics(evaluation, evaluator.max_dets)
    assert {name: result[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)
    assert result.per_class == pytest.approx(per_class, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_dets", [1, 3, 100, 500])
def test_crowds_empty_images_equal_scores_and_all_sizes_give_pycocotools_numbers(seed: int, max_dets: int) -> None:
    truth, guesses = crowded_scene(seed)
    assert truth.is_crowd.any()
    assert_equals_pycocotools(evaluator_of(truth, guesses, max_dets), as_coco(truth))


@pytest.mark.parametrize("dataset", ["bccd", "fruits-nuts-seg"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_real_annotations_give_pycocotools_numbers(dataset: str, split: Any, shared: Path) -> None:
    folder = shared / "data" / dataset
    truth = read_coco(folder, split, read_coco(folder, "train").classes)
    rng = np.random.default_rng(0)
    guesses = [guess(truth, image, rng) for image in range(len(truth))]
    annotation_file = json.loads((folder / split / "_annotations.coco.json").read_text())
    assert_equals_pycocotools(evaluator_of(truth, guesses), annotation_file)


def test_class_ids_need_not_be_contiguous_nor_sorted() -> None:
    """As in the tables of COCO's published weights."""
    truth, guesses = crowded_scene(seed=5)
    ids = np.array([90, 1, 13])
    classes = replace(CLASSES, class_ids=(90, 1, 13))
    category_id_of = dict(zip(classes.class_ids, classes.category_ids, strict=True))
    truth = replace(truth, labels=ids[truth.labels], classes=classes, category_id_of=category_id_of)
    guesses = [replace(image, labels=torch.from_numpy(ids)[image.labels]) for image in guesses]
    assert_equals_pycocotools(evaluator_of(truth, guesses), as_coco(truth))
    assert list(evaluate(truth, guesses).per_class) == ["cat", "dog", "owl"]


def test_perfect_predictions_score_1() -> None:
    result = evaluate(ground_truth([Thing(0, CAT, BOX)]), [predictions((CAT, 0.75, BOX))])
    undefined, threshold = {"mAP_medium": None, "mAP_large": None}, {"F1_threshold": 0.0}
    ones = ("mAP_50_95", "mAP_50", "mAP_75", "mAP_small", "mAR", "F1", "precision", "recall")
    assert dict(result) == {**{name: pytest.approx(1) for name in ones}, **undefined, **threshold}
    assert (result.num_images, result.num_objects) == (1, 1)


def test_what_no_object_defines_is_none() -> None:
    """All objects are small cats."""
    result = evaluate(ground_truth([Thing(0, CAT, BOX)]), [predictions((CAT, 0.75, BOX), (DOG, 0.5, FAR))])
    assert result["mAP_medium"] is None
    assert result["mAP_large"] is None
    assert result.per_class == {"cat": pytest.approx(1), "dog": None, "owl": None}


def test_no_predictions_score_0() -> None:
    result = evaluate(ground_truth([Thing(0, CAT, BOX)]), [])
    assert result["mAP_50_95"] == result["mAR"] == result["F1"] == result["precision"] == result["recall"] == 0
    assert result["F1_threshold"] is None
    assert result.per_class["cat"] == 0


@pytest.mark.parametrize("guesses", [[], [predictions((CAT, 0.9, BOX))]], ids=["no predictions", "a prediction"])
@pytest.mark.parametrize("things", [[], [Thing(0, CAT, BOX, is_crowd=True)]], ids=["no objects", "only a crowd region"])
def test_without_objects_nothing_is_defined(things: list[Thing], guesses: list[Predictions]) -> None:
    result = evaluate(ground_truth(things), guesses)
    assert set(result.values()) == {None}
    assert set(result.per_class.values()) == {None}
    assert result.num_objects == 0


def test_an_object_with_annotation_id_0_can_be_found() -> None:
    """Roboflow counts from 0; pycocotools takes a match with object 0 for none."""
    truth = ground_truth([Thing(0, CAT, BOX)])
    truth.annotation_ids[0] = 0
    assert evaluate(truth, [predictions((CAT, 0.75, BOX))])["mAP_50_95"] == pytest.approx(1)


def test_an_image_counts_once_with_its_first_predictions() -> None:
    truth = ground_truth([Thing(0, CAT, BOX)], num_images=2)
    evaluator = CocoEvaluator(truth)
    evaluator.update([17, 17], [predictions((CAT, 0.75, BOX)), predictions((CAT, 0.9, FAR))])
    evaluator.update([7, 17], [predictions(), predictions((CAT, 0.8, FAR))])
    assert [row["score"] for row in evaluator.coco_results()] == [0.75]


def test_unknown_classes_and_values_that_are_not_finite_are_left_out() -> None:
    evaluator = CocoEvaluator(ground_truth([Thing(0, CAT, BOX)]))
    nan = float("nan")
    rows = [(3, 0.9, BOX), (CAT, nan, BOX), (CAT, 0.9, (nan, nan, nan, nan)), (CAT, 0.5, BOX)]
    evaluator.update([7], [predictions(*rows)])
    assert [row["score"] for row in evaluator.coco_results()] == [0.5]
    assert evaluator.compute()["mAP_50_95"] == pytest.approx(1)


def test_an_image_that_is_not_in_the_ground_truth_is_refused() -> None:
    with pytest.raises(KeyError, match="8"):
        CocoEvaluator(ground_truth([])).update([8], [predictions()])


def test_coco_results_have_the_ids_of_the_dataset_and_plain_numbers() -> None:
    evaluator = CocoEvaluator(ground_truth([], num_images=2))
    evaluator.update([17, 7], [predictions((DOG, 0.5, BOX)), predictions((CAT, 0.25, FAR))])
    assert evaluator.coco_results() == [
        {"image_id": 17, "category_id": 5, "bbox": [10.0, 10.0, 20.0, 20.0], "score": 0.5},
        {"image_id": 7, "category_id": 3, "bbox": [100.0, 100.0, 40.0, 40.0], "score": 0.25},
    ]


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """They share the images unevenly, and both have seen the first one. One of them is this process."""
    child = start_processes(evaluate_share, (1, tmp_path), nprocs=1, join=False, start_method="spawn")
    evaluate_share(0, 0, tmp_path)
    child.join()
    truth, guesses = crowded_scene(seed=6)
    evaluator = evaluator_of(truth, guesses)
    expected = json.loads(json.dumps([evaluator.compute().to_json(), len(evaluator.coco_results())]))
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected, expected]


def evaluate_share(_: int, rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", timeout=timedelta(seconds=90), rank=rank, world_size=2)
    truth, guesses = crowded_scene(seed=6)
    evaluator = CocoEvaluator(truth)
    for row in [0, *range(len(truth))[10:]] if rank else range(10):
        evaluator.update([int(truth.image_ids[row])], [guesses[row]])
    result = evaluator.compute()
    assert evaluator.compute() == result  # nothing is counted again
    (folder / f"{rank}.json").write_text(json.dumps([result.to_json(), len(evaluator.coco_results())]))
    dist.destroy_process_group()
