import json
import pickle
from dataclasses import replace
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pycocotools import mask as mask_tools
from torch.multiprocessing.spawn import start_processes

from rfdetr.data.annotations import Annotations
from rfdetr.data.reading import read_split
from rfdetr.evaluation import coco_metrics, results_file
from rfdetr.evaluation.coco_metrics import CocoEvaluator
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.masks import encode, seen
from rfdetr.models.postprocess import full_size_masks
from rfdetr.types import Predictions

from .scenes import (
    CLASSES,
    GRID,
    SIDE,
    Thing,
    as_coco,
    crowded_scene,
    ground_truth,
    guess,
    predictions,
    pycocotools_metrics,
    run_pycocotools,
    scored,
    with_masks,
)

CAT, DOG = 0, 1
BOX, FAR = (10.0, 10.0, 20.0, 20.0), (100.0, 100.0, 40.0, 40.0)


def evaluate(truth: Annotations, guesses: list[Predictions], max_dets: int = 500) -> EvaluationResult:
    evaluator = CocoEvaluator(truth, max_dets)
    evaluator.update(truth.image_ids[: len(guesses)].tolist(), guesses)
    return evaluator.compute()


def assert_equals_pycocotools(
    truth: Annotations,
    guesses: list[Predictions],
    annotation_file: dict[str, Any],
    folder: Path,
    max_dets: int = 500,
) -> EvaluationResult:
    """On the results file; with masks, of masks too."""
    result, rows = scored(truth, guesses, folder, max_dets)
    found = {"bbox": (result.metrics, result.per_class)}
    if truth.segmentations is not None:
        of_masks = {name[5:]: value for name, value in result.items() if name.startswith("segm_")}
        found["segm"] = (of_masks, result.segm_per_class)
    for kind, (metrics, per_class) in found.items():
        evaluation = run_pycocotools(annotation_file, rows, max_dets, kind)  # type: ignore[arg-type]
        expected, expected_per_class = pycocotools_metrics(evaluation, max_dets)
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert per_class == pytest.approx(expected_per_class, abs=1e-9)
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_dets", [1, 3, 100, 500])
def test_crowds_empty_images_equal_scores_and_all_sizes_give_pycocotools_numbers(
    seed: int, max_dets: int, tmp_path: Path
) -> None:
    truth, guesses = crowded_scene(seed)
    assert truth.is_crowd.any()
    assert_equals_pycocotools(truth, guesses, as_coco(truth), tmp_path, max_dets)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_dets", [2, 500])
def test_masks_give_pycocotools_numbers(seed: int, max_dets: int, tmp_path: Path) -> None:
    """Polygons and code, crowds with masks and without, empty masks, a class without objects."""
    truth, guesses = with_masks(*crowded_scene(seed), seed)
    truth = replace(truth, labels=np.minimum(truth.labels, 1))
    result = assert_equals_pycocotools(truth, guesses, as_coco(truth), tmp_path, max_dets)
    of_masks = [result[f"segm_mAP_{name}"] for name in ("50_95", "50", "75", "small", "medium", "large")]
    assert all(of_masks)
    assert of_masks[0] != result["mAP_50_95"]
    assert result.segm_per_class["owl"] is None


@pytest.mark.parametrize("dataset", ["bccd", "fruits-nuts-seg"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_real_annotations_give_pycocotools_numbers(dataset: str, split: Any, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / dataset
    truth = read_split(folder, split)
    rng = np.random.default_rng(0)
    guesses = [guess(truth, image, rng) for image in range(len(truth))]
    annotation_file = json.loads((folder / split / "_annotations.coco.json").read_text())
    assert_equals_pycocotools(truth, guesses, annotation_file, tmp_path)


def test_real_masks_give_pycocotools_numbers(shared: Path, tmp_path: Path) -> None:
    """All three forms of masks; the guesses are the objects themselves, seen on a coarse grid and moved."""
    folder = shared / "data" / "fruits-nuts-seg"
    truth = read_split(folder, "valid", masks=True)
    rng = np.random.default_rng(0)
    guesses = [moved_objects(truth, image, rng) for image in range(len(truth))]
    annotation_file = json.loads((folder / "valid" / "_annotations.coco.json").read_text())
    result = assert_equals_pycocotools(truth, guesses, annotation_file, tmp_path)
    assert result["segm_mAP_50_95"] > 0.2  # type: ignore[operator]


def moved_objects(truth: Annotations, image: int, rng: np.random.Generator) -> Predictions:
    objects, size_hw = truth.training_objects(image), truth.size_hw(image)
    height, width = size_hw
    region = (0.0, 0.0, float(width), float(height))
    masks = [seen(outline, size_hw, region, (80, 80)) for outline in objects.segmentations or []]
    shifts = rng.integers(-1, 2, (len(masks), 2))
    moved = [np.roll(mask, shift, axis=(0, 1)) for mask, shift in zip(masks, shifts.tolist(), strict=True)]
    logits = torch.from_numpy(np.array(moved) - 0.5).float()
    boxes, labels = torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels)
    return Predictions(boxes, torch.linspace(0.9, 0.1, len(masks)), labels, logits)


def test_class_ids_need_not_be_contiguous_nor_sorted(tmp_path: Path) -> None:
    """As in the tables of COCO's published weights."""
    truth, guesses = crowded_scene(seed=5)
    ids = np.array([90, 1, 13])
    classes = replace(CLASSES, class_ids=(90, 1, 13))
    category_id_of = dict(zip(classes.class_ids, classes.category_ids, strict=True))
    truth = replace(truth, labels=ids[truth.labels], classes=classes, category_id_of=category_id_of)
    guesses = [replace(image, labels=torch.from_numpy(ids)[image.labels]) for image in guesses]
    result = assert_equals_pycocotools(truth, guesses, as_coco(truth), tmp_path)
    assert list(result.per_class) == ["cat", "dog", "owl"]


@pytest.mark.parametrize("ids", [[-5, -3, -4], [2**60, 2**60 + 1, 2**60 + 2]], ids=["negative", "too large for floats"])
def test_image_ids_may_be_any_whole_numbers(ids: list[int]) -> None:
    truth = replace(ground_truth([Thing(row, CAT, BOX) for row in range(3)], 3), image_ids=np.array(ids))
    assert evaluate(truth, [predictions((CAT, 0.75, BOX)) for _ in ids])["mAP_50"] == pytest.approx(1)


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


def test_an_image_counts_once_with_its_first_predictions() -> None:
    truth = ground_truth([Thing(0, CAT, BOX)], num_images=2)
    evaluator = CocoEvaluator(truth)
    evaluator.update([17, 17], [predictions((CAT, 0.75, BOX)), predictions((CAT, 0.9, FAR))])
    evaluator.update([7, 17], [predictions(), predictions((CAT, 0.8, FAR))])
    result = evaluator.compute()
    assert [result["mAP_50_95"], result["precision"]] == pytest.approx([1, 1])


def test_unknown_classes_and_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    nan = float("nan")
    rows = [(3, 0.9, BOX), (CAT, nan, BOX), (CAT, 0.9, (nan, nan, nan, nan)), (CAT, 0.5, BOX)]
    result, left = scored(ground_truth([Thing(0, CAT, BOX)]), [predictions(*rows)], tmp_path)
    assert [row["score"] for row in left] == [0.5]
    assert result["mAP_50_95"] == pytest.approx(1)


def test_what_is_left_out_takes_its_mask_along(tmp_path: Path) -> None:
    """The masks are rows of pixels: as many as their place in the predictions says."""
    truth, _ = with_masks(ground_truth([Thing(0, CAT, BOX)]), [], seed=0)
    logits = torch.full((4, GRID, GRID), -1.0)
    for index in range(4):
        logits[index, : 10 * (index + 1)] = 1
    guesses = predictions((3, 0.9, BOX), (CAT, 0.8, BOX), (CAT, float("nan"), BOX), (CAT, 0.5, BOX))
    _, left = scored(truth, [replace(guesses, mask_logits=logits)], tmp_path)
    heights = [mask_tools.area(row["segmentation"]) / SIDE * GRID / SIDE for row in left]
    assert heights == pytest.approx([20, 40], abs=0.5)


def test_masks_of_a_diverged_model_are_empty_and_found_nowhere(tmp_path: Path) -> None:
    truth, guesses = with_masks(ground_truth([Thing(0, CAT, BOX)]), [predictions((CAT, 0.8, BOX))], seed=0)
    nan = torch.full((1, GRID, GRID), float("nan"))
    result, _ = scored(truth, [replace(guesses[0], mask_logits=nan)], tmp_path)
    assert [result["mAP_50"], result["segm_mAP_50"]] == pytest.approx([1, 0])


def test_ground_truth_with_masks_needs_predictions_with_masks() -> None:
    truth, _ = with_masks(ground_truth([Thing(0, CAT, BOX)]), [], seed=0)
    with pytest.raises(ValueError, match="the ground truth has masks, the predictions have none"):
        CocoEvaluator(truth).update([7], [predictions((CAT, 0.8, BOX))])


def test_what_is_kept_of_a_detection_is_smaller_than_its_mask() -> None:
    truth, guesses = with_masks(*crowded_scene(seed=0), seed=0)
    noise = torch.randn(1, GRID, GRID, generator=torch.Generator().manual_seed(0))
    evaluator = CocoEvaluator(truth)
    for image_id, image in zip(truth.image_ids.tolist(), guesses, strict=True):
        evaluator.update([image_id], [replace(image, mask_logits=noise.expand(len(image.scores), -1, -1))])
    (bitmaps,) = full_size_masks(noise, (SIDE, SIDE))
    assert len(encode(bitmaps.numpy())[0]["counts"]) > 2000
    evaluator._match_waiting()
    assert not evaluator._waiting
    kept = pickle.dumps((evaluator._judged, evaluator._boxes._stream, evaluator._masks and evaluator._masks._stream))
    assert len(kept) / sum(len(image.scores) for image in guesses) < 200


def test_an_image_that_is_not_in_the_ground_truth_is_refused() -> None:
    with pytest.raises(KeyError, match="8"):
        CocoEvaluator(ground_truth([])).update([8], [predictions()])


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """They share the images unevenly, and both have seen the first one. One of them is this process."""
    child = start_processes(evaluate_share, (1, tmp_path), nprocs=1, join=False, start_method="spawn")
    evaluate_share(0, 0, tmp_path)
    child.join()
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    rows = json.loads((tmp_path / "of_both.json").read_text())
    expected, expected_rows = scored(*with_masks(*crowded_scene(seed=6), seed=6), tmp_path)
    assert found == [expected.to_json()] * 2
    key = itemgetter("image_id", "score", "bbox")
    assert sorted(rows, key=key) == sorted(expected_rows, key=key)


def evaluate_share(_: int, rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", timeout=timedelta(seconds=90), rank=rank, world_size=2)
    truth, guesses = with_masks(*crowded_scene(seed=6), seed=6)
    with pytest.MonkeyPatch.context() as patch, ResultsFile.open(folder / "of_both.json", truth) as results:
        patch.setattr(results_file, "_CHARACTERS_AT_ONCE", 5000)
        evaluator = CocoEvaluator(truth, results=results)
        own = slice(10) if rank == 0 else slice(10, None)
        evaluator.update(truth.image_ids[own].tolist(), guesses[own])
        results.save()
    if rank == 1:
        evaluator.results = None
        evaluator.update([int(truth.image_ids[0])], [replace(guesses[0], scores=1 - guesses[0].scores)])
    result = evaluator.compute()
    assert evaluator.compute() == result  # nothing is counted again
    (folder / f"{rank}.json").write_text(json.dumps(result.to_json()))
    dist.destroy_process_group()


def test_predictions_after_the_metrics_are_refused() -> None:
    truth, guesses = crowded_scene(seed=0)
    evaluator = CocoEvaluator(truth)
    evaluator.compute()
    with pytest.raises(RuntimeError, match="predictions come too late"):
        evaluator.update(truth.image_ids[:1].tolist(), guesses[:1])


@pytest.mark.parametrize("at_once", [1, 7, 10**6])
def test_it_is_the_same_how_many_boxes_and_images_are_matched_together(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images without a prediction wait, too, and what waits is bounded."""
    truth, guesses = crowded_scene(seed=0)
    guesses[2::3] = [predictions() for _ in guesses[2::3]]
    expected = evaluate(truth, guesses)
    monkeypatch.setattr(coco_metrics, "_AT_ONCE", at_once)
    evaluator = CocoEvaluator(truth)
    for image_id, image in zip(truth.image_ids.tolist(), guesses, strict=True):
        evaluator.update([image_id], [image])
        assert len(evaluator._waiting_rows) < at_once
    assert evaluator.compute() == expected
