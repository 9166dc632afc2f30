"""Shortcuts to what readers make of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.data.annotations import Annotations
from rfdetr.data.formats.coco_outlines import run_length_code
from rfdetr.data.raw import Outlines
from rfdetr.data.segmentations import Segmentations, packed
from rfdetr.data.sources import PictureFiles


def pack(values: Sequence[Any], sizes_hw: Any) -> Segmentations:
    """From `segmentation` fields of a COCO file; a missing one becomes no polygons."""
    outlines = Outlines()
    for value in values:
        if isinstance(value, dict):
            outlines.add_code(*run_length_code(value))
        else:
            outlines.add_polygons(value or [])
    return packed(outlines, np.asarray(sizes_hw))


def path_of(annotations: Annotations, index: int) -> Path:
    assert isinstance(annotations.pictures, PictureFiles)
    return annotations.pictures.path(index)
