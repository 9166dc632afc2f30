"""A split as tar shards in the manner of WebDataset: a picture and a JSON file of the same key for each image."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from rfdetr.data.formats.coco_layout import ROBOFLOW
from rfdetr.data.formats.folders import suffix_of
from rfdetr.data.locating import IMAGE_SUFFIXES
from rfdetr.data.shard_index import INDEX, make_index, write_index
from rfdetr.data.writing.coco import Row, Split, image, note_renamed, objects, write_annotations
from rfdetr.data.writing.names import Names
from rfdetr.data.writing.pictures import content, suffix


def write_split(split: Split, folder: Path, images_per_shard: int, problems: list[str]) -> None:
    """Shards, their index and the COCO file of all. What there is to say of the result is noted.

    Raises:
        OSError: they cannot be written.
        ImageError: a picture cannot be read; names it.
    """
    folder.mkdir(parents=True)
    names = Names()
    placed: list[str] = []
    shards: list[Path] = []
    for start in range(0, len(split.annotations), images_per_shard):
        shards.append(folder / f"shard-{len(shards):06d}.tar")
        with shards[-1].open("xb") as file, _tar_writer(file) as tar:
            for index in range(start, min(start + images_per_shard, len(split.annotations))):
                placed.append(names.add(split.pictures.name(index)))
                tar.write(_sample(split, index, placed[-1]))
    annotations = folder / ROBOFLOW
    write_annotations(split, placed, annotations)
    write_index(make_index(shards, annotations), folder / INDEX)
    note_renamed(names, problems)


def _tar_writer(file: Any) -> Any:
    """The same bytes at any time: WebDataset would note when it was written."""
    # It loads torch, seconds that reading and writing other formats does not need.
    return import_module("webdataset").TarWriter(file, encoder=False, compress=False, mtime=0)


def _sample(split: Split, index: int, name: str) -> dict[str, Any]:
    """A key without dots, at the first of which WebDataset ends it: the name is in the JSON file."""
    own = suffix_of(name.rpartition("/")[2])
    kind = own if own in IMAGE_SUFFIXES else suffix(split.pictures, index)
    row: Row = {**image(split, index, name), "annotations": [_named(split, row) for row in objects(split, index)]}
    return {
        "__key__": f"{index:09d}",
        kind[1:]: content(split.pictures, index),
        "json": json.dumps(row, allow_nan=False).encode("ascii"),
    }


def _named(split: Split, row: Row) -> Row:
    classes = split.annotations.classes
    return {**row, "category": classes.names[classes.category_ids.index(row["category_id"])]}
