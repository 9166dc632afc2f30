"""COCO annotation files -> RawSplit."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from rfdetr.data.cleaning import check_share
from rfdetr.data.formats.coco_outlines import box_around, polygon_problem, run_length_code, side
from rfdetr.data.formats.folders import same_text
from rfdetr.data.json_stream import read_lists
from rfdetr.data.problems import Problems, brief
from rfdetr.data.raw import Category, Outlines, RawSplit, SplitFiles
from rfdetr.errors import DatasetError

TABLES = ("images", "annotations", "categories")
NOWHERE = -1
"""Row of an image or category that an annotation names and that is not there; it has been reported."""

_ID_LIMIT = 2**62
"""Larger ids (uuids as numbers, for one) are numbered as words are, and annotations without an id by their entry."""
_FEW = 0.05
"""Part of the annotations; more of unknown categories are no accident."""
_FORM = "is not [x, y, width, height] in numbers (left out)"


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the file of a split says, with the problems that one entry has by itself."""
    reader = _Reader(files, masks, problems)
    seen = set()
    try:
        for table, entry in read_lists(files.file, TABLES):
            seen.add(table)
            if entry is not None:
                reader.take(table, entry)
    except DatasetError as error:
        problems.error(files.file, str(error).removeprefix(f"{files.file}: "))
        return RawSplit(files, outlines=reader.empty_outlines())
    missing = [table for table in TABLES if table not in seen]
    if missing:
        problems.error(files.file, f"no list {_quoted(missing)}. A COCO file has {_quoted(TABLES)}")
        return RawSplit(files, outlines=reader.empty_outlines())
    reader.resolve()
    return reader.raw


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


class _Ids:
    """Ids as whole numbers: those given as text are read as numbers, or numbered where they are none."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.from_text = 0
        self.examples: list[str] = []

    def number(self, value: Any) -> int | None:
        """None if it is no id."""
        if type(value) is int:
            return value if -_ID_LIMIT < value < _ID_LIMIT else self._numbered(str(value))
        if type(value) is float and value.is_integer() and abs(value) < _ID_LIMIT:
            return int(value)
        if not isinstance(value, str) or not value.strip():
            return None
        self.from_text += 1
        if len(self.examples) < 3:
            self.examples.append(brief(value))
        try:
            return self.number(int(value))
        except ValueError:
            return self._numbered(value.strip())

    def _numbered(self, word: str) -> int:
        return self.words.setdefault(word, -_ID_LIMIT - 1 - len(self.words))


class _Reader:
    def __init__(self, files: SplitFiles, masks: bool, problems: Problems) -> None:
        self.masks = masks
        self.raw = RawSplit(files, outlines=self.empty_outlines())
        self.file = files.file
        self.problems = problems
        self.ids = _Ids()
        self.image_rows: dict[int, int] = {}
        self.rows_of_names: dict[str, int] = {}
        self.left_out: set[int] = set()  # ids of images that were reported
        self.category_rows: dict[int, int] = {}
        self.counts = dict.fromkeys(TABLES, 0)
        self.images_left_out = 0
        self.raw.place = _place
        self.image_keys, self.category_keys = array("q"), array("q")  # of each object

    def empty_outlines(self) -> Outlines | None:
        return Outlines() if self.masks else None

    def take(self, table: str, entry: Any) -> None:
        self.counts[table] += 1
        if not isinstance(entry, dict):
            self.images_left_out += table == "images"
            self._leave_out(f"entries of {table} that are not objects (left out)", f"entry {self.counts[table]}")
        elif table == "images":
            self._image(entry)
        elif table == "annotations":
            self._annotation(entry)
        else:
            self._category(entry)

    def _leave_out(self, kind: str, example: str) -> None:
        self.problems.warning(self.file, kind, example)

    def _image(self, row: dict[str, Any]) -> None:
        name, key = row.get("file_name"), self.ids.number(row.get("id"))
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            if key is not None:
                self.left_out.add(key)
            self.images_left_out += 1
            self._leave_out("images without a file name (left out)", self._entry("images", row))
            return
        if key is None:
            self.images_left_out += 1
            self._leave_out("images without a usable 'id' (left out)", f"{name} has {brief(row.get('id'))}")
            return
        if key in self.image_rows:
            self._same_id(key, name)
            return
        if name in self.rows_of_names:
            self._leave_out("files listed as more than one image (made one)", name)
            self.image_rows[key] = self.rows_of_names[name]
            return
        self.image_rows[key] = self.rows_of_names[name] = self.raw.add_image(name, key, self._size(row, name))

    def _same_id(self, key: int, name: str) -> None:
        other = self.raw.names[self.image_rows[key]]
        if other == name:
            self._leave_out("images listed more than once (the first counts)", name)
        else:
            kind = "ids of images used more than once, so that it is unclear which one their annotations belong to"
            self.problems.error(self.file, kind, f"{key} is {other} and {name}")

    def _size(self, row: dict[str, Any], name: str) -> tuple[int, int]:
        """(0, 0) where the picture has to say it."""
        height, width = side(row.get("height")), side(row.get("width"))
        if height and width:
            return height, width
        if row.get("height") is not None or row.get("width") is not None:
            kind = "images whose width or height is not a positive whole number (taken from the picture)"
            self._leave_out(kind, f"{name} has {brief(row.get('width'))} x {brief(row.get('height'))}")
        return 0, 0

    def _category(self, row: dict[str, Any]) -> None:
        name, key = row.get("name"), self.ids.number(row.get("id"))
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if key is None or not isinstance(name, str) or not name.strip():
            wrong = "name" if key is not None else "id"
            kind = f"categories without a usable {wrong!r}"
            self.problems.error(self.file, kind, f"{self._entry('categories', row)} has {brief(row.get(wrong))}")
            return
        parent = row.get("supercategory")
        category = Category(key, same_text(name.strip()), parent if isinstance(parent, str) else None)
        if key not in self.category_rows:
            self.category_rows[key] = len(self.raw.categories)
            self.raw.categories.append(category)
        elif self.raw.categories[self.category_rows[key]].name == category.name:
            self._leave_out("categories listed more than once (the first counts)", category.name)
        else:
            other = self.raw.categories[self.category_rows[key]].name
            kind = "ids of categories used more than once"
            self.problems.error(self.file, kind, f"{key} is {other!r} and {category.name!r}")

    def _annotation(self, row: dict[str, Any]) -> None:
        image, category = self.ids.number(row.get("image_id")), self.ids.number(row.get("category_id"))
        for key, value in (("image_id", image), ("category_id", category)):
            if value is None:
                kind = f"annotations whose {key!r} is no id (left out)"
                self._leave_out(kind, f"{self._entry('annotations', row)} has {brief(row.get(key))}")
        if image is None or category is None:
            return
        polygons, code = self._outline(row)
        box = self._box(row, polygons, code)
        if box is None:
            return
        is_crowd = row.get("iscrowd")
        if is_crowd not in (0, 1, None, "0", "1"):
            self._leave_out("annotations whose 'iscrowd' is not 0 or 1 (taken as 0)", self._entry("annotations", row))
        number = row.get("id")
        if type(number) is not int or not -_ID_LIMIT < number < _ID_LIMIT:
            number = -_ID_LIMIT - self.counts["annotations"]
        self.image_keys.append(image)
        self.category_keys.append(category)
        area, is_group = _area(row.get("area")), is_crowd in (1, "1")
        self.raw.add_object(NOWHERE, NOWHERE, box, number, area=area, is_crowd=is_group, polygons=polygons, code=code)

    def _box(
        self, row: dict[str, Any], polygons: list[list[float]], code: tuple[bytes, tuple[int, int]] | None
    ) -> list[float] | None:
        """None where there is none; it may still be nonsense."""
        value = row.get("bbox")
        try:
            array("d").fromlist(value)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            if isinstance(value, list) and any(isinstance(number, str) for number in value):
                return self._box_of_text(row, value)
        else:
            if len(value) == 4 and bool not in map(type, value):  # type: ignore[arg-type]
                return value
        if not value and (polygons or code):
            self._leave_out("annotations without a box (taken from their outline)", self._entry("annotations", row))
            return box_around(polygons, code)
        kind = f"annotations whose 'bbox' {_FORM}"
        self._leave_out(kind, f"{self._entry('annotations', row)} has {brief(value)}")
        return None

    def _box_of_text(self, row: dict[str, Any], value: list[Any]) -> list[float] | None:
        try:
            box = [float(number) for number in value]
        except (TypeError, ValueError, OverflowError):
            box = []
        where = self._entry("annotations", row)
        if len(box) != 4:
            self._leave_out(f"annotations whose 'bbox' {_FORM}", f"{where} has {brief(value)}")
            return None
        self._leave_out("boxes whose numbers are text (read as numbers)", f"{where} has {brief(value)}")
        return box

    def _outline(self, row: dict[str, Any]) -> tuple[list[list[float]], tuple[bytes, tuple[int, int]] | None]:
        """Polygons or run-length code; neither where there is none that is sound."""
        value = row.get("segmentation")
        if not value:
            return [], None
        if self.raw.outlines is None and row.get("bbox"):
            # It is only asked whether there is one.
            return ([[]], None) if isinstance(value, list) else ([], (b"", (0, 0)))
        if isinstance(value, list):
            polygons = [value] if all(isinstance(number, int | float) for number in value) else value
            problems = [(polygon, polygon_problem(polygon)) for polygon in polygons]
            for polygon, problem in problems:
                if problem:
                    where = self._entry("annotations", row)
                    self._leave_out(f"polygons {problem} (left out)", f"{where} has {brief(polygon)}")
            return [polygon for polygon, problem in problems if not problem], None
        try:
            return [], run_length_code(value)
        except ValueError as error:
            given = brief(value["counts"] if isinstance(value, dict) and "counts" in value else value)
            self._leave_out(f"{error} (not used)", f"{self._entry('annotations', row)} has {given}")
            return [], None

    def _entry(self, table: str, row: dict[str, Any]) -> str:
        given = row.get("id")
        return f"id {given}" if isinstance(given, int | str) and given != "" else f"entry {self.counts[table]}"

    def resolve(self) -> None:
        """Say which image and category each object belongs to, now that all are known."""
        if self.ids.from_text:
            more = ", ..." * (self.ids.from_text > len(self.ids.examples))
            examples = f"({self.ids.from_text}): {', '.join(self.ids.examples)}{more}"
            self.problems.warning(self.file, f"ids given as text (read as numbers, or numbered) {examples}")
        for table in ("images", "categories"):
            if not self.counts[table]:
                self.problems.error(self.file, f"no {table}")
        raw = self.raw
        raw.images = _looked_up(self.image_keys, self.image_rows)
        raw.labels = _looked_up(self.category_keys, self.category_rows)
        raw.image_ids = array("q", _renumbered(raw.image_ids))
        category_ids = _renumbered([category.id for category in raw.categories])
        raw.categories = [replace(row, id=number) for row, number in zip(raw.categories, category_ids, strict=True)]
        words = {number: word for word, number in self.ids.words.items()}
        for table, noun, keys, rows in (
            ("images", "image", self.image_keys, raw.images),
            ("categories", "category", self.category_keys, raw.labels),
        ):
            for row in np.flatnonzero(np.frombuffer(rows, np.int64) == NOWHERE).tolist():
                key = keys[row]
                if table == "images" and key in self.left_out:
                    continue
                kind = f"annotations of {noun} ids that are not in {table} (left out)"
                self._leave_out(kind, f"{_place(raw, row)} has {words.get(key, key)}")
        self._suspect_count_of_categories()
        check_share("images", self.counts["images"], self.counts["images"] - self.images_left_out, raw, self.problems)
        check_share("annotations", self.counts["annotations"], len(raw.images), raw, self.problems)

    def _suspect_count_of_categories(self) -> None:
        """Ids counted from 0 in one list and from 1 in the other would give almost every object another class."""
        known, (used, counts) = set(self.category_rows), np.unique(self.category_keys, return_counts=True)
        unknown = sum(count for key, count in zip(used.tolist(), counts.tolist(), strict=True) if key not in known)
        if not known or unknown < max(2, _FEW * len(self.category_keys)):
            return
        for step, unused in ((1, max(known)), (-1, min(known))):
            if unused not in used and known.issuperset((used + step).tolist()):
                self.problems.error(
                    self.file,
                    f"annotations have category ids from {used.min()} to {used.max()}, categories from {min(known)} to "
                    f"{max(known)}: one of them counts from 0, the other from 1, it seems. Let both do the same",
                )


def _place(raw: RawSplit, row: int) -> str:
    number = raw.object_ids[row]
    return f"entry {-_ID_LIMIT - number}" if number <= -_ID_LIMIT else f"id {number}"


def _renumbered(ids: Sequence[int]) -> list[int]:
    """Those of words come behind the others, in the order of the file."""
    following = count(max((number for number in ids if number > -_ID_LIMIT), default=-1) + 1)
    return [number if number > -_ID_LIMIT else next(following) for number in ids]


def _looked_up(keys: "array[int]", rows: dict[int, int]) -> "array[int]":
    return array("q", [rows.get(key, NOWHERE) for key in keys])


def _area(value: Any) -> float:
    is_number = isinstance(value, int | float) and 0 <= value < 1e300
    return float(value) if is_number else float("nan")
