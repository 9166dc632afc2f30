from pathlib import Path
from typing import Any

from rfdetr.training.history import write_csv


def test_columns_appear_in_the_order_of_their_first_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "train/loss": 2.5},
        {"epoch": 2, "train/loss": 1.5, "val/mAP_50": None, "val/AP/a, b": 0.5},
    ]
    write_csv(tmp_path / "metrics.csv", rows)
    assert (tmp_path / "metrics.csv").read_text() == (
        'epoch,train/loss,val/mAP_50,"val/AP/a, b"\n1,2.5,,\n2,1.5,,0.5\n'
    )


def test_numbers_are_written_to_their_last_digit(tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", [{"train/loss": 0.1 + 0.2}])
    assert (tmp_path / "metrics.csv").read_text() == "train/loss\n0.30000000000000004\n"
