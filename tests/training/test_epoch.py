from rfdetr.evaluation.results import EvaluationResult
from rfdetr.training.epoch import EMA, REGULAR, EpochReport


def test_a_row_has_everything_by_name_but_times() -> None:
    result = EvaluationResult({"mAP_50_95": 0.5, "mAP_large": None}, {"cat": 0.25}, num_images=1, num_objects=2)
    report = EpochReport(
        epoch=2,
        step=8,
        rates={"lr": 0.125, "lr_encoder": 0.25},
        losses={"loss": 3.0},
        images_per_second=10.0,
        results={REGULAR: result, EMA: result},
        val_losses={"loss": 4.0},
    )
    plain: dict[str, float | int | None] = {
        "epoch": 2,
        "step": 8,
        "train/lr": 0.125,
        "train/lr_encoder": 0.25,
        "train/loss": 3.0,
        "val/loss": 4.0,
        "val/mAP_50_95": 0.5,
        "val/mAP_large": None,
        "val/ema_mAP_50_95": 0.5,
        "val/ema_mAP_large": None,
    }
    assert report.row(per_class=False) == plain
    assert report.row(per_class=True) == {**plain, "val/AP/cat": 0.25, "val/ema_AP/cat": 0.25}


def test_each_class_has_an_ap_of_boxes_and_of_masks() -> None:
    result = EvaluationResult({"mAP_50_95": 0.5}, {"cat": 0.25}, 1, 2, segm_per_class={"cat": 0.125})
    report = EpochReport(2, 8, {"lr": 0.125}, {}, 10.0, results={REGULAR: result})
    assert {name: value for name, value in report.row(per_class=True).items() if "AP/" in name} == {
        "val/AP/cat": 0.25,
        "val/segm_AP/cat": 0.125,
    }
