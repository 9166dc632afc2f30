"""Detections in COCO's results format. They go to disk as they come, for the masks of a split can be gigabytes."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from typing_extensions import Self

from rfdetr.data.annotations import Annotations
from rfdetr.distributed import gathered, rank_and_world_size
from rfdetr.evaluation.detections import DetectionTable
from rfdetr.files import write_atomically
from rfdetr.masks import Rle

_CHARACTERS_AT_ONCE = 2**22


class ResultsFile:
    """A row for each detection, with the ids that the annotation file gives images and categories.

    Left out are detections of classes that the file does not know.

    Of a row with a box and a mask pycocotools takes the box's area. It sorts masks into small, medium and large as the
    metrics here do if it gets the rows without `bbox`.
    """

    def __init__(self, rows: TextIO, path: Path, truth: Annotations) -> None:
        self._rows = rows
        self._path = path
        self._truth = truth

    @classmethod
    @contextmanager
    def open(cls, path: Path, truth: Annotations) -> Iterator[Self]:
        """Nothing is at `path` before `save`; until then the rows are in a nameless file of the same folder."""
        with TemporaryFile("w+", encoding="utf-8", dir=path.parent) as rows:
            yield cls(rows, path, truth)

    def add(self, detections: DetectionTable, masks: Sequence[Rle] | None = None) -> None:
        """The k-th mask belongs to the k-th detection."""
        category_id_of = self._truth.category_id_of
        columns = zip(
            self._truth.image_ids[detections.images].tolist(),
            detections.labels.tolist(),
            detections.boxes_xywh.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
        for index, (image_id, label, box, score) in enumerate(columns):
            if label not in category_id_of:
                continue
            row: dict[str, Any] = {"image_id": image_id, "category_id": category_id_of[label], "bbox": box}
            if masks is not None:
                counts = masks[index]["counts"].decode("ascii")
                row["segmentation"] = {"size": masks[index]["size"], "counts": counts}
            self._rows.write(json.dumps({**row, "score": score}, allow_nan=False) + "\n")

    def save(self) -> None:
        """Put the rows of all processes in place as one JSON array. All call it, the first one writes."""
        if rank_and_world_size()[0] == 0:
            write_atomically(self._path, self._write)
        else:
            for _ in self._rows_of_all():
                pass

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            separator = "[\n"
            for row in self._rows_of_all():
                file.write(separator + row.rstrip("\n"))
                separator = ",\n"
            file.write("[]\n" if separator == "[\n" else "\n]\n")

    def _rows_of_all(self) -> Iterator[str]:
        """A few MB from each process at a time."""
        self._rows.seek(0)
        while any(parts := gathered(self._rows.readlines(_CHARACTERS_AT_ONCE))):
            yield from chain.from_iterable(parts)
