"""EvaluationResult: numbers, table, JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

# The table is laid out like this, column by column. `mAR` is the recall at the most detections that count.
_BLOCKS = (
    (("mAP 50:95", "mAP_50_95"), ("mAP 50", "mAP_50"), ("mAP 75", "mAP_75"), ("mAR", "mAR")),
    (("small", "mAP_small"), ("medium", "mAP_medium"), ("large", "mAP_large")),
    (("F1", "F1"), ("precision", "precision"), ("recall", "recall"), ("at threshold", "F1_threshold")),
)
_MAX_CLASS_ROWS = 12
_GAP = "     "


@dataclass(frozen=True)
class EvaluationResult(Mapping[str, float | None]):
    """Metrics by name, each in [0, 1]; None where it is not defined, as mAP_large without a large object.

    `F1`, `precision` and `recall` are those at the confidence threshold with the best F1, `F1_threshold`.
    """

    metrics: dict[str, float | None]
    per_class: dict[str, float | None]  # class name -> AP at IoU 0.50:0.95
    num_images: int
    num_objects: int  # crowd regions not counted

    def __getitem__(self, name: str) -> float | None:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_json(self) -> dict[str, Any]:
        """The metrics by name, then `per_class`, `num_images` and `num_objects`; nothing in it is NaN."""
        return {
            **self.metrics,
            "per_class": self.per_class,
            "num_images": self.num_images,
            "num_objects": self.num_objects,
        }

    def table(self) -> str:
        """The numbers for people: a few lines of plain text without trailing newline; `-` is undefined."""
        lines = [f"{self.num_images} images, {self.num_objects} objects", ""]
        lines += _side_by_side([[(label, self.metrics[key]) for label, key in block] for block in _BLOCKS])
        if self.per_class:
            rows = list(self.per_class.items())
            height = max(min(len(rows), _MAX_CLASS_ROWS), ceil(len(rows) / 3))
            lines += ["", "AP 50:95 per class", ""]
            lines += _side_by_side([rows[start : start + height] for start in range(0, len(rows), height)])
        return "\n".join(lines)


def _side_by_side(blocks: Sequence[Sequence[tuple[str, float | None]]]) -> list[str]:
    """Lines with the k-th row of every block; a shorter block ends in blanks."""
    columns = []
    for block in blocks:
        width = max(len(label) for label, _ in block)
        cells = [f"{label:<{width}}  {'-' if value is None else f'{value:.3f}':<5}" for label, value in block]
        columns.append(cells + [" " * (width + 7)] * (max(map(len, blocks)) - len(cells)))
    return [_GAP.join(row).rstrip() for row in zip(*columns, strict=True)]
