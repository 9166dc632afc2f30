"""COCO annotation files -> Annotations."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.config.runs import Split
from rfdetr.data.annotations import Annotations
from rfdetr.data.layout import find_split
from rfdetr.data.segmentations import pack
from rfdetr.data.validation import FIELDS, Problems, Row, check_segmentations, is_whole, well_formed
from rfdetr.errors import DatasetError

# Values of "supercategory" that mean none.
_NO_PARENT = ("none", "null", "")


def read_coco(
    dataset_dir: str | Path, split: Split, classes: ClassTable | None = None, masks: bool = False
) -> Annotations:
    """One split of a dataset. Its categories become classes by their names.

    Without `classes` the split brings its own table. The table of the training split goes with all splits, whatever
    ids they give to the same names. With `masks` every object must have one; without, they are not looked at.

    Raises:
        DatasetError: names everything that keeps the split from being used, each kind with a few examples.
    """
    image_dir, file = find_split(dataset_dir, split)
    images, annotations, table, class_ids = _checked(split, image_dir, file, classes, masks)
    index_of = {row["id"]: index for index, row in enumerate(images)}
    image_index = np.array([index_of[row["image_id"]] for row in annotations], dtype=np.int64)
    order = np.argsort(image_index, kind="stable")  # objects of an image together, else in the order of the file
    counts = np.bincount(image_index, minlength=len(images))
    sizes_hw = np.array([_size_hw(row) for row in images], dtype=np.int64)
    outlines = [annotations[row].get("segmentation") for row in order] if masks else []
    return Annotations(
        split=split,
        image_dir=image_dir,
        annotation_file=file,
        classes=table,
        file_names=np.array([row["file_name"] for row in images]),
        image_ids=np.array([row["id"] for row in images], dtype=np.int64),
        sizes_hw=sizes_hw,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xywh=np.array([row["bbox"] for row in annotations], dtype=np.float64).reshape(-1, 4)[order],
        areas=np.array([_area(row) for row in annotations], dtype=np.float64)[order],
        labels=np.array([class_ids[row["category_id"]] for row in annotations], dtype=np.int64)[order],
        is_crowd=np.array([bool(row.get("iscrowd")) for row in annotations], dtype=np.bool_)[order],
        annotation_ids=np.array([row["id"] for row in annotations], dtype=np.int64)[order],
        category_id_of={class_id: category_id for category_id, class_id in class_ids.items()},
        segmentations=pack(outlines, sizes_hw[image_index[order]]) if masks else None,
    )


def _checked(
    split: Split, image_dir: Path, file: Path, classes: ClassTable | None, masks: bool
) -> tuple[list[Row], list[Row], ClassTable, dict[int, int]]:
    """Images, annotations, classes, and class ids by category id, once nothing is wrong with them."""
    content = _load(file)
    problems = Problems(file)
    images = well_formed("images", content["images"], problems)
    annotations = well_formed("annotations", content["annotations"], problems)
    categories = well_formed("categories", content["categories"], problems)

    _check_ids({"images": images, "categories": categories}, content, problems)
    _check_files(images, image_dir, problems)
    _check_references(annotations, content, problems)
    if masks:
        check_segmentations(annotations, {row["id"]: _size_hw(row) for row in images}, problems)
    used = {row["category_id"] for row in annotations}
    table = classes if classes is not None else _class_table(categories, used, problems)
    class_ids = _class_ids(table, categories, annotations, problems)
    all_well_formed = len(annotations) == len(content["annotations"])
    if split == "train" and all_well_formed and not any(map(_is_trainable, annotations)):
        problems.lines.append("no object to train on: no annotations but crowd regions and boxes without area")
    problems.raise_if_any()
    return images, annotations, table, class_ids


def _load(file: Path) -> dict[str, list[Any]]:
    """The tables of an annotation file (a byte order mark is fine)."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: not a text file in UTF-8") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of nested brackets
        raise DatasetError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected an object with {_quoted(FIELDS)}, got a {type(content).__name__}")
    missing = [table for table in FIELDS if not isinstance(content.get(table), list)]
    if missing:
        raise DatasetError(f"{file}: no list {_quoted(missing)}. A COCO file has {_quoted(FIELDS)}")
    return {table: content[table] for table in FIELDS}


def _quoted(names: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _check_ids(tables: dict[str, list[Row]], content: dict[str, list[Any]], problems: Problems) -> None:
    for table, rows in tables.items():
        if not content[table]:
            problems.lines.append(f"no {table}")
        problems.add(f"ids of {table} used more than once", _repeated(row["id"] for row in rows))


def _repeated(values: Iterable[int | str]) -> list[str]:
    return [repr(value) for value, count in Counter(values).items() if count > 1]


def _check_files(images: list[Row], image_dir: Path, problems: Problems) -> None:
    missing = _missing_files(image_dir, [row["file_name"] for row in images])
    problems.add(
        f"images without a file in {image_dir}",
        [f"{images[index]['file_name']} (id {images[index]['id']})" for index in missing],
    )


def _missing_files(image_dir: Path, names: list[str]) -> list[int]:
    """Which of the names stand for no file. Lists each folder once: asking for each file is slow on network drives."""
    folders = {name.rpartition("/")[0] for name in names}
    present = {
        f"{folder}/{path.name}" if folder else path.name
        for folder in folders
        if (image_dir / folder).is_dir()
        for path in (image_dir / folder).iterdir()
    }
    return [i for i, name in enumerate(names) if name not in present and not (image_dir / name).is_file()]


def _check_references(annotations: list[Row], content: dict[str, list[Any]], problems: Problems) -> None:
    """Images and categories that annotations name must exist; one reported as malformed does."""
    for table, key, noun in (("images", "image_id", "image"), ("categories", "category_id", "category")):
        ids = (row.get("id") for row in content[table] if isinstance(row, dict))
        known = {number for number in ids if is_whole(number)}
        unknown = [row for row in annotations if row[key] not in known]
        problems.add(
            f"annotations of {noun} ids that are not in {table}", [f"id {row['id']} has {row[key]}" for row in unknown]
        )


def _class_table(categories: list[Row], used: set[int], problems: Problems) -> ClassTable:
    """Classes 0..n-1 from a split's categories.

    Roboflow adds a category for the group of all others. Such parents, unless something is labelled as one, are not
    classes; if nothing else remains, all are.
    """
    rows = [row for row in categories if row["id"] in used or not _is_parent(row, categories)] or categories
    problems.add("names of categories used more than once", _repeated(row["name"] for row in rows))
    return ClassTable.from_categories((row["id"], row["name"]) for row in rows)


def _is_parent(category: Row, categories: list[Row]) -> bool:
    name = category["name"]
    return name not in _NO_PARENT and any(
        other.get("supercategory") == name for other in categories if other["id"] != category["id"]
    )


def _class_ids(table: ClassTable, categories: list[Row], annotations: list[Row], problems: Problems) -> dict[int, int]:
    """Category id of this file -> class id, for all categories that have annotations."""
    class_id_of_name = dict(zip(table.names, table.class_ids, strict=True))
    foreign = {row["id"]: row["name"] for row in categories if row["name"] not in class_id_of_name}
    problems.add(
        f"annotations of categories that are no classes of the model ({', '.join(table.names[:10])}"
        f"{', ...' * (len(table) > 10)})",
        [
            f"id {row['id']} is a {foreign[row['category_id']]!r}"
            for row in annotations
            if row["category_id"] in foreign
        ],
    )
    return {row["id"]: class_id_of_name[row["name"]] for row in categories if row["id"] not in foreign}


def _is_trainable(annotation: Row) -> bool:
    return not annotation.get("iscrowd") and min(annotation["bbox"][2:]) > 0


def _size_hw(image: Row) -> tuple[int, int]:
    return int(image["height"]), int(image["width"])


def _area(annotation: Row) -> float:
    area = annotation.get("area")
    width, height = annotation["bbox"][2:]
    return float(width * height if area is None else area)
