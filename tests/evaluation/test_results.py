import json

import pytest

from rfdetr.evaluation.results import EvaluationResult

METRICS: dict[str, float | None] = {
    "mAP_50_95": 0.0,
    "mAP_50": 0.0625,
    "mAP_75": 0.125,
    "mAP_small": 0.25,
    "mAP_medium": 0.3125,
    "mAP_large": None,
    "mAR": 0.1875,
    "F1": 0.4375,
    "precision": 0.5,
    "recall": 0.5625,
    "F1_threshold": 0.625,
}


def test_it_is_a_mapping_from_metric_names_to_numbers() -> None:
    result = EvaluationResult(METRICS, {}, num_images=1, num_objects=2)
    assert dict(result) == METRICS
    assert result["mAP_50"] == 1 / 16
    assert result["mAP_large"] is None
    with pytest.raises(KeyError, match="mAP_60"):
        result["mAP_60"]


def test_json_has_the_metrics_at_its_top_and_null_for_what_is_undefined() -> None:
    result = EvaluationResult(METRICS, {"cat": 0.25, "dog": None}, num_images=3, num_objects=4)
    read = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert read == {**METRICS, "per_class": {"cat": 0.25, "dog": None}, "num_images": 3, "num_objects": 4}


def test_table_of_few_classes() -> None:
    result = EvaluationResult(METRICS, {"cat": 0.25, "red panda": None}, num_images=3, num_objects=14)
    assert result.table().splitlines() == [
        "3 images, 14 objects",
        "",
        "mAP 50:95  0.000     small   0.250     F1            0.438",
        "mAP 50     0.062     medium  0.312     precision     0.500",
        "mAP 75     0.125     large   -         recall        0.562",
        "mAR        0.188                       at threshold  0.625",
        "",
        "AP 50:95 per class",
        "",
        "cat        0.250",
        "red panda  -",
    ]


def test_table_puts_many_classes_in_three_columns_read_downwards() -> None:
    result = EvaluationResult(METRICS, {f"class {k}": k / 80 for k in range(80)}, num_images=3, num_objects=14)
    lines = result.table().splitlines()
    assert len(lines) == 9 + 27
    assert lines[9] == "class 0   0.000     class 27  0.338     class 54  0.675"
    assert lines[-1] == "class 26  0.325     class 53  0.662"


def test_table_without_classes_ends_with_the_metrics() -> None:
    assert EvaluationResult(METRICS, {}, num_images=3, num_objects=14).table().endswith("at threshold  0.625")


OF_MASKS = {f"segm_{name}": value for name, value in METRICS.items() if name.startswith("m")}


def test_table_with_masks() -> None:
    result = EvaluationResult(METRICS | OF_MASKS, {"cat": 0.25, "red panda": None}, 3, 14, {"cat": 0.5, "red panda": 0})
    assert result.table().splitlines() == [
        "3 images, 14 objects",
        "",
        "boxes",
        "mAP 50:95  0.000     small   0.250     F1            0.438",
        "mAP 50     0.062     medium  0.312     precision     0.500",
        "mAP 75     0.125     large   -         recall        0.562",
        "mAR        0.188                       at threshold  0.625",
        "",
        "masks",
        "mAP 50:95  0.000     small   0.250",
        "mAP 50     0.062     medium  0.312",
        "mAP 75     0.125     large   -",
        "mAR        0.188",
        "",
        "AP 50:95 per class: boxes, masks",
        "",
        "cat        0.250  0.500",
        "red panda  -      0.000",
    ]


def test_json_of_a_segmentation_model_has_its_classes_twice() -> None:
    result = EvaluationResult(METRICS | OF_MASKS, {"cat": 0.25}, 3, 4, segm_per_class={"cat": 0.5})
    read = result.to_json()
    assert read["segm_mAP_50"] == 0.0625
    assert (read["per_class"], read["segm_per_class"]) == ({"cat": 0.25}, {"cat": 0.5})
