"""Tables with a row for each object, as people who came from TensorFlow have them.

Columns filename, class, xmin, ymin, xmax, ymax, maybe width and height of the image, in any order. A row without class
and box makes its image background.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from rfdetr.config.runs import Split
from rfdetr.data.cleaning import check_share
from rfdetr.data.formats.folders import SPLIT_NAMES, Presence, alike
from rfdetr.data.formats.named_classes import NamedClasses
from rfdetr.data.problems import Problems, brief
from rfdetr.data.raw import Outlines, RawSplit, SplitFiles

_COLUMNS = {
    "filename": ("filename", "file_name", "file", "image", "image_path", "image_name", "img", "path", "file_path"),
    "class": ("class", "label", "class_name", "category", "name"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIZE = ("width", "height")
_REQUIRED = ("filename", "class", *_CORNERS)
_DELIMITERS = (",", ";", "\t", "|")
_FILES_OF_SPLIT = (
    *("{}/_annotations.csv", "{}/annotations.csv", "{}/labels.csv", "{}_labels.csv", "{}_annotations.csv", "{}.csv"),
    *("annotations/{}.csv", "annotations/{}_labels.csv"),
)
_FILES_WITHOUT_SPLITS = ("_annotations.csv", "annotations.csv", "labels.csv")
_FOLDERS = ("{}", "{}/images", "images/{}", "images", ".")
_LOOKED_AT = 20  # rows that show where the images lie


def find(root: Path, _problems: Problems) -> dict[Split, SplitFiles]:
    """The splits of a dataset. Empty where there are no such tables."""
    found: dict[Split, SplitFiles] = {}
    for split, names in SPLIT_NAMES.items():
        files = ((name, _found(root, form.format(name))) for name in names for form in _FILES_OF_SPLIT)
        match = next(((name, file) for name, file in files if _is_ours(file)), None)
        if match:
            found[split] = _split_files(root, split, *match)
    if not found:
        whole = next(filter(_is_ours, (_found(root, name) for name in _FILES_WITHOUT_SPLITS)), None)
        found = {"train": _split_files(root, "train", "train", whole)} if whole else {}
    return found


def _found(root: Path, path: str) -> Path:
    return Path(alike(str(root), () if path == "." else path.split("/")))


def _is_ours(file: Path) -> bool:
    """Other tables may have such a name, but those of Roboflow: it is worth a message what is wrong with one."""
    if not file.is_file() or file.name == "_annotations.csv":
        return file.is_file()
    try:
        with _open(file) as stream:
            return len(_Table(stream).places) > 1
    except (OSError, ValueError):
        return True


def _split_files(root: Path, split: Split, name: str, file: Path) -> SplitFiles:
    folders = [_found(root, form.format(name)) for form in _FOLDERS]
    folder = _image_folder([folder for folder in dict.fromkeys((*folders, file.parent)) if folder.is_dir()], file)
    return SplitFiles("csv", split, dataset_dir=root, root=folder, file=file, watched=(file, folder))


def _image_folder(folders: list[Path], file: Path) -> Path:
    """That of the folders which holds most of the first images, whether listed by their path or by name alone."""
    try:
        with _open(file) as stream:
            names = [row.name.replace("\\", "/") for row in islice(_Table(stream), _LOOKED_AT)]
    except (OSError, ValueError):
        names = []
    present = Presence()

    def number_of_images(folder: Path) -> int:
        return sum(
            f"{folder}/{name.removeprefix('./')}" in present or f"{folder}/{name.rpartition('/')[2]}" in present
            for name in names
        )

    return max(folders, key=number_of_images)


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the table of a split says."""
    raw = RawSplit(files, outlines=Outlines() if masks else None)
    raw.place = lambda raw, row: f"line {raw.object_ids[row]}"
    classes = NamedClasses()
    rows: dict[str, int] = {}
    try:
        with _open(files.file) as stream:
            table = _Table(stream)
            missing = [name for name in _REQUIRED if name not in table.places]
            if missing:
                problems.error(files.file, _no_columns(missing, table))
                return raw
            left_out = sum(not _take(row, raw, rows, classes, problems) for row in table)
            check_share("rows with objects", len(raw.images) + left_out, len(raw.images), raw, problems)
    except OSError as error:
        problems.error(files.file, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.error(files.file, "not a text file in UTF-8 (save it with this encoding)")
    except ValueError as error:
        problems.error(files.file, str(error))
    classes.finish(raw)
    return raw


def _no_columns(missing: list[str], table: "_Table") -> str:
    return (
        f"no column {', '.join(missing)}. The first line must name filename, class, xmin, ymin, xmax, ymax (width and "
        f"height are optional), got {brief(table.delimiter.join(table.header))}"
    )


@dataclass(slots=True)
class _Row:
    line: int
    name: str
    label: str
    corners: list[str]
    size_wh: tuple[str, str]
    has_more: bool
    """It has more cells than the header."""


class _Table:
    """Rows of a table. The header tells the delimiter: the one that makes the most columns that we know.

    Raises:
        ValueError: not a table (the message has the line), or not in UTF-8; on iteration, too.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.num_lines = 1  # read so far
        first = stream.readline()
        if first.lower().startswith("sep="):  # of Excel
            first = stream.readline()
            self.num_lines = 2
        self.delimiter = max(_DELIMITERS, key=lambda delimiter: len(_places(_cells(first, delimiter))))
        self.header = _cells(first, self.delimiter)
        self.places = _places(self.header)

    def __iter__(self) -> Iterator[_Row]:
        end = len(self.header)
        name, label, *corners, width, height = (self.places.get(column, end) for column in (*_REQUIRED, *_SIZE))
        for line, given in _lines_of_cells(self.stream, self.delimiter, self.num_lines):
            cells = [cell.strip() for cell in given]
            if not any(cells):
                continue
            has_more = any(cells[end:])
            cells[end:] = [""] * (end + 1 - min(len(cells), end))  # the last stands for columns that there are not
            values = [cells[place] for place in corners]
            yield _Row(line, cells[name], cells[label], values, (cells[width], cells[height]), has_more)


def _lines_of_cells(lines: Iterable[str], delimiter: str, start: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row; `start` lines are before the first.

    Raises:
        ValueError: a row cannot be read; the message has the line.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        for cells in reader:
            yield start + reader.line_num, cells
    except csv.Error as error:
        line = start + reader.line_num
        raise ValueError(f"not a table: {error} in line {line} (a quotation mark without its other?)") from None


def _open(file: Path) -> IO[str]:
    return file.open(encoding="utf-8-sig", newline="")


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for _, cells in _lines_of_cells([line], delimiter) for cell in cells]


def _places(header: list[str]) -> dict[str, int]:
    """Column -> its place, by the first of its names that is there."""
    names = [name.lower().replace(" ", "_").replace("-", "_") for name in header]
    found = {
        column: next((names.index(alias) for alias in aliases if alias in names), None)
        for column, aliases in _COLUMNS.items()
    }
    return {column: place for column, place in found.items() if place is not None}


def _take(row: _Row, raw: RawSplit, rows: dict[str, int], classes: NamedClasses, problems: Problems) -> bool:
    """Whether the row can be used; if not, that is noted."""
    file = raw.files.file
    if row.has_more or not row.name or "\0" in row.name:
        kind = "rows with more cells than the header (left out)" if row.has_more else "rows without a file (left out)"
        problems.warning(file, kind, f"line {row.line}")
        return False
    image = rows.get(row.name)
    if image is None:
        image = rows[row.name] = raw.add_image(row.name, len(rows) + 1, _size_hw(row))
    if not row.label and not any(row.corners):
        return True
    try:
        left, top, right, bottom = map(_number, row.corners)
    except ValueError:
        given = brief(" ".join(corner or "nothing" for corner in row.corners))
        problems.warning(file, "rows whose box is not four numbers (left out)", f"line {row.line} has {given}")
        return False
    if not row.label:
        problems.warning(file, "rows without a class (left out)", f"line {row.line}")
        return False
    raw.add_object(image, classes.row(row.label), (left, top, right - left, bottom - top), row.line)
    return True


def _number(text: str) -> float:
    return float(text.replace(",", "."))  # 12,5 of a German Excel


def _size_hw(row: _Row) -> tuple[int, int]:
    """(0, 0) where it is not said."""
    try:
        width, height = (float(text) for text in row.size_wh)
    except ValueError:
        return 0, 0
    return (int(height), int(width)) if 0 < width < 2**31 and 0 < height < 2**31 else (0, 0)
