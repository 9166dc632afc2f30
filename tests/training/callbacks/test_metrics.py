from typing import Any

from rfdetr.training.callbacks.metrics import as_csv


def test_columns_appear_in_the_order_of_their_first_row() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "train/loss": 2.5},
        {"epoch": 2, "train/loss": 1.5, "val/mAP_50": None, "val/AP/a, b": 0.5},
    ]
    assert as_csv(rows) == 'epoch,train/loss,val/mAP_50,"val/AP/a, b"\n1,2.5,,\n2,1.5,,0.5\n'
