"""EvaluationResult: numbers, table, JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

# The table is laid out like this, column by column. `mAR` is the recall at the most detections that count.
_AP = (("mAP 50:95", "mAP_50_95"), ("mAP 50", "mAP_50"), ("mAP 75", "mAP_75"), ("mAR", "mAR"))
_BY_SIZE = (("small", "mAP_small"), ("medium", "mAP_medium"), ("large", "mAP_large"))
_OPERATING_POINT = (
    ("F1", "F1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("at threshold", "F1_threshold"),
)
_MASKS = "segm_"
_Row: TypeAlias = tuple[str, float | None] | tuple[str, float | None, float | None]
_MAX_CLASS_ROWS = 12
_GAP = "     "


@dataclass(frozen=True)
class EvaluationResult(Mapping[str, float | None]):
    """Metrics by name, each in [0, 1]; None where it is not defined, as mAP_large without a large object.

    A name means the same for every model: `mAP_50_95` and `per_class` are of boxes; segmentation models have
    `segm_mAP_50_95` and `segm_per_class` beside them. `F1`, `precision` and `recall` (of boxes) are those at the
    confidence threshold with the best F1, `F1_threshold`.
    """

    metrics: dict[str, float | None]
    per_class: dict[str, float | None]  # class name -> AP at IoU 0.50:0.95
    num_images: int
    num_objects: int  # crowd regions not counted
    segm_per_class: dict[str, float | None] = field(default_factory=dict)
    num_not_finite: int = 0  # detections left out because their box or score was not a number
    num_unreadable: int = 0  # images left out, with their objects, because they could not be read; not in num_images

    def __getitem__(self, name: str) -> float | None:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    @property
    def has_masks(self) -> bool:
        return "segm_mAP_50_95" in self.metrics

    def to_json(self) -> dict[str, Any]:
        """The metrics by name, then `per_class`, `num_images` and `num_objects`; nothing in it is NaN.

        `num_unreadable`, too, where an image could not be read.
        """
        return {
            **self.metrics,
            "per_class": self.per_class,
            **({"segm_per_class": self.segm_per_class} if self.has_masks else {}),
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            **({"num_unreadable": self.num_unreadable} if self.num_unreadable else {}),
        }

    def table(self, per_class: bool = True) -> str:
        """The numbers for people: a few lines of plain text without trailing newline; `-` is undefined."""
        lines = [f"{self.num_images} images, {self.num_objects} objects{self._left_out()}", ""]
        boxes = _side_by_side([self._block(block) for block in (_AP, _BY_SIZE, _OPERATING_POINT)])
        if self.has_masks:
            masks = _side_by_side([self._block(block, _MASKS) for block in (_AP, _BY_SIZE)])
            lines += ["boxes", *boxes, "", "masks", *masks]
        else:
            lines += boxes
        if self.per_class and per_class:
            lines += ["", "AP 50:95 per class" + ": boxes, masks" * self.has_masks, ""]
            rows: list[_Row] = list(self.per_class.items())
            if self.has_masks:
                rows = [(name, value, self.segm_per_class[name]) for name, value in self.per_class.items()]
            height = max(min(len(rows), _MAX_CLASS_ROWS), ceil(len(rows) / 3))
            lines += _side_by_side([rows[start : start + height] for start in range(0, len(rows), height)])
        return "\n".join(lines)

    def _left_out(self) -> str:
        count = self.num_unreadable
        return f"; {count} more image{'s' * (count > 1)} could not be read" if count else ""

    def _block(self, block: Sequence[tuple[str, str]], prefix: str = "") -> list[_Row]:
        return [(label, self.metrics[prefix + key]) for label, key in block]


def _side_by_side(blocks: Sequence[Sequence[_Row]]) -> list[str]:
    """Lines with the k-th row of every block; a shorter block ends in blanks."""
    columns = []
    for block in blocks:
        width = max(len(label) for label, *_ in block)
        cells = [f"{label:<{width}}" + "".join(map(_cell, values)) for label, *values in block]
        columns.append(cells + [" " * len(cells[0])] * (max(map(len, blocks)) - len(cells)))
    return [_GAP.join(row).rstrip() for row in zip(*columns, strict=True)]


def _cell(value: float | None) -> str:
    return "  " + ("-" if value is None else f"{value:.3f}").ljust(5)
