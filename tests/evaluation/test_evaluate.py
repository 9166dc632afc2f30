import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_tools

from rfdetr.config.presets import preset
from rfdetr.config.runs import EvaluateConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.collation import on_device
from rfdetr.data.loading import evaluation_loader
from rfdetr.data.reading import read_split
from rfdetr.errors import ImageError
from rfdetr.evaluation.evaluate import evaluate, run_all
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import full_size_masks, postprocess
from rfdetr.types import ImageBatch, RawOutputs

from ..data.packing import pack, path_of
from .scenes import as_coco, pycocotools_metrics, run_pycocotools

CPU = torch.device("cpu")
SIZES_HW = [(90 - 5 * k, 60 + 10 * k) for k in range(5)]
TINY = preset("nano").replace(
    resolution=64,
    positional_encoding_size=4,
    encoder_width=32,
    encoder_heads=2,
    encoder_depth=2,
    out_feature_indexes=(1, 2),
    hidden_dim=32,
    sa_nheads=2,
    ca_nheads=2,
    dec_layers=1,
    num_classes=3,
    num_queries=16,
    num_select=64,
    group_detr=1,
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """With random weights, it predicts a small box of every class in the middle of each of the 4 x 4 cells."""
    return Detector(TINY).eval()


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    """Five noise images of several sizes; but for the last, each has one object, in the middle of its second cell."""
    rng = np.random.default_rng(0)
    images, objects = [], []
    (tmp_path / "test").mkdir()
    for k, (height, width) in enumerate(SIZES_HW):
        noise = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "test" / f"{k}.png")
        images.append({"id": 40 - k, "file_name": f"{k}.png", "width": width, "height": height})
        box = [0.35 * width, 0.35 * height, 0.05 * width, 0.05 * height]
        objects.append({"id": k + 1, "image_id": 40 - k, "category_id": 7 + k % 3, "bbox": box, "area": 9})
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(("cat", "dog", "owl"))]
    content = {"images": images, "annotations": objects[:-1], "categories": categories}
    (tmp_path / "test" / "_annotations.coco.json").write_text(json.dumps(content))
    return read_split(tmp_path, "test")


def evaluate_with_rows(
    detector: Detector, annotations: Annotations, settings: EvaluateConfig
) -> tuple[EvaluationResult, list[dict[str, Any]]]:
    file = path_of(annotations, 0).parent / "predictions.json"
    result = evaluate(detector, annotations, settings, CPU, file)
    return result, json.loads(file.read_text())


def config(annotations: Annotations, **settings: Any) -> EvaluateConfig:
    usual: dict[str, Any] = {"batch_size": 2, "num_workers": 0}
    return EvaluateConfig(dataset_dir=path_of(annotations, 0).parents[1], **{**usual, **settings})


def test_pycocotools_on_annotation_file_and_results_gives_the_same_numbers(
    detector: Detector, annotations: Annotations
) -> None:
    result, rows = evaluate_with_rows(detector, annotations, config(annotations))
    assert len(rows) > 50
    file = json.loads(annotations.annotation_file.read_text())
    for row in file["annotations"]:
        row["iscrowd"] = 0  # pycocotools insists on it
    metrics, per_class = pycocotools_metrics(run_pycocotools(file, rows, max_dets=500), max_dets=500)
    assert result["mAR"] > 0  # type: ignore[operator]
    assert {name: result[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)
    assert result.per_class == pytest.approx(per_class, abs=1e-9)


@pytest.fixture(scope="module")
def segmenter() -> Detector:
    return Detector(TINY.replace(size="seg-nano", segmentation_head=True)).eval()


def outlined(annotations: Annotations) -> Annotations:
    """With the left part of its image as the mask of each object."""
    outlines = [[[0, 0, w * 0.9, 0, w * 0.9, h, 0, h]] for h, w in SIZES_HW[:-1]]
    return replace(annotations, segmentations=pack(outlines, annotations.sizes_hw[:-1]))


@torch.inference_mode()
def test_masks_are_those_of_the_detector_and_pycocotools_gives_the_same_numbers(
    segmenter: Detector, annotations: Annotations
) -> None:
    annotations = outlined(annotations)
    result, rows = evaluate_with_rows(segmenter, annotations, config(annotations))
    (batch,) = evaluation_loader(annotations, 64, batch_size=5, num_workers=0)
    outputs = segmenter(on_device(batch, CPU).images)
    images = postprocess(outputs, torch.tensor(SIZES_HW), TINY.num_select)
    for k, (image, size_hw) in enumerate(zip(images, SIZES_HW, strict=True)):
        assert image.mask_logits is not None
        known = image.labels < 3
        expected = torch.cat(list(full_size_masks(image.mask_logits[known], size_hw))).sum(dim=(1, 2))
        found = [row["segmentation"] for row in rows if row["image_id"] == 40 - k]
        assert {tuple(rle["size"]) for rle in found} == {size_hw}
        np.testing.assert_allclose([mask_tools.area(rle) for rle in found], expected, atol=3)

    metrics, per_class = pycocotools_metrics(run_pycocotools(as_coco(annotations), rows, 500, "segm"), max_dets=500)
    assert result["segm_mAR"] > 0  # type: ignore[operator]
    assert {name: result[f"segm_{name}"] for name in metrics} == pytest.approx(metrics, abs=1e-9)
    assert result.segm_per_class == pytest.approx(per_class, abs=1e-9)


def test_a_segmentation_model_on_boxes_alone_is_scored_by_boxes(segmenter: Detector, annotations: Annotations) -> None:
    result, rows = evaluate_with_rows(segmenter, annotations, config(annotations))
    assert not result.has_masks
    assert "segmentation" not in rows[0]


def test_an_evaluation_that_fails_leaves_no_file(detector: Detector, annotations: Annotations) -> None:
    path_of(annotations, len(annotations) - 1).unlink()
    before = sorted(path_of(annotations, 0).parent.iterdir())
    with pytest.raises(ImageError, match="no such file"):
        evaluate_with_rows(detector, annotations, config(annotations, max_bad_images=0))
    assert sorted(path_of(annotations, 0).parent.iterdir()) == before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_cannot_be_read_is_as_if_it_were_not_in_the_split(
    num_workers: int, detector: Detector, annotations: Annotations, capsys: pytest.CaptureFixture[str]
) -> None:
    path_of(annotations, 1).write_bytes(path_of(annotations, 1).read_bytes()[:100])
    others = annotations.subset(np.array([0, 2, 3, 4]))
    expected, rows_of_others = evaluate_with_rows(detector, others, config(annotations))
    result, rows = evaluate_with_rows(detector, annotations, config(annotations, num_workers=num_workers))
    assert capsys.readouterr().err.count(f"rfdetr: warning: {path_of(annotations, 1)}: ") == 1
    assert result == replace(expected, num_unreadable=1)
    assert result.num_images == 4
    assert {row["image_id"] for row in rows} == {row["image_id"] for row in rows_of_others}
    assert result.table().startswith(f"4 images, {result.num_objects} objects; 1 more image could not be read\n")
    assert result.to_json()["num_unreadable"] == 1


def test_boxes_are_in_pixels_of_the_original_images(detector: Detector, annotations: Annotations) -> None:
    _, rows = evaluate_with_rows(detector, annotations, config(annotations))
    for image_id, (height, width) in zip(annotations.image_ids, annotations.sizes_hw, strict=True):
        x, y, w, h = np.array([row["bbox"] for row in rows if row["image_id"] == image_id]).T
        assert min(x.min(), y.min()) >= 0
        assert (x + w).max() <= width + 1e-4
        assert (y + h).max() <= height + 1e-4


def test_the_batch_size_does_not_matter(detector: Detector, annotations: Annotations) -> None:
    _, ones = evaluate_with_rows(detector, annotations, config(annotations, batch_size=1))
    _, fives = evaluate_with_rows(detector, annotations, config(annotations, batch_size=5))
    assert [row["image_id"] for row in ones] == [row["image_id"] for row in fives]
    np.testing.assert_allclose([row["score"] for row in ones], [row["score"] for row in fives], atol=1e-5)


def test_per_class_numbers_can_be_left_out(detector: Detector, annotations: Annotations) -> None:
    result = evaluate(detector, annotations, config(annotations, log_per_class_metrics=False), CPU)
    assert result.per_class == {}


@pytest.mark.parametrize("is_training", [True, False])
def test_the_detector_is_left_in_the_mode_it_was_in(
    is_training: bool, detector: Detector, annotations: Annotations
) -> None:
    detector.train(is_training)
    evaluate(detector, annotations, config(annotations), CPU)
    assert detector.training == is_training
    path_of(annotations, 0).unlink()
    with pytest.raises(Exception, match="no such file"):
        evaluate(detector, annotations, config(annotations, max_bad_images=0), CPU)
    assert detector.training == is_training
    detector.eval()


def test_detectors_run_on_the_same_pass_score_as_each_alone(detector: Detector, annotations: Annotations) -> None:
    other = Detector(TINY, seed=1)
    observed: list[tuple[str, int, bool]] = []

    def observe(name: str, outputs: RawOutputs, batch: ImageBatch) -> None:
        observed.append((name, len(batch.targets), outputs["pred_logits"].requires_grad))

    evaluators, _ = run_all(
        {"one": detector, "other": other},
        annotations,
        batch_size=3,
        max_dets=500,
        num_workers=0,
        device=CPU,
        dtype=None,
        observe=observe,
    )
    assert observed == [("one", 3, False), ("other", 3, False), ("one", 2, False), ("other", 2, False)]
    for name, model in (("one", detector), ("other", other)):
        assert evaluators[name].compute() == evaluate(model, annotations, config(annotations, batch_size=3), CPU)
    assert evaluators["one"].compute() != evaluators["other"].compute()


def test_mixed_precision_changes_little(detector: Detector, annotations: Annotations) -> None:
    _, exact = evaluate_with_rows(detector, annotations, config(annotations))
    _, rounded = evaluate_with_rows(detector, annotations, config(annotations).replace(precision="bf16"))
    exact_scores, rounded_scores = (np.array([row["score"] for row in rows]) for rows in (exact, rounded))
    # The mean: which of two equally good proposals is looked at may change with rounding.
    assert np.abs(rounded_scores - exact_scores).mean() < 0.05 * exact_scores.mean()
    assert (rounded_scores != exact_scores).any()
