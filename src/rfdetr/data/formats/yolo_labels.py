"""Label files of YOLO: where that of an image lies, and what its lines say."""

import os
from array import array
from collections.abc import Iterable
from errno import EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR
from math import isfinite, nan
from stat import S_ISREG

from rfdetr.data.formats.folders import alike, same_text
from rfdetr.data.problems import Problems, brief
from rfdetr.data.raw import SplitFiles

NO_LABELS = frozenset(
    ("classes", "labels", "names", "notes", "obj", "predefined_classes", "train", "val", "valid", "test")
)
"""Text files that tools write among label files."""
_FORMS = "`class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`"


def label_folder(images: str, root: str) -> str:
    """The folder of the label files for the images of a folder, both absolute paths.

    It has `labels` for the rightmost `images` that has such a sibling (Ultralytics); else it is the folder `labels`
    among the images; else the labels lie beside their images.
    """
    parts = os.path.relpath(images, root).split("/")
    for place in reversed(range(len(parts))):
        if parts[place].lower() == "images":
            start = os.path.normpath("/".join((root, *parts[:place])))
            folder = alike(start, ("labels", *parts[place + 1 :]))
            if os.path.isdir(folder):  # noqa: PTH112
                return folder
    among = alike(images, ("labels",))
    return among if os.path.isdir(among) else images  # noqa: PTH112 - Path.is_dir() raises for names that are too long


def label_files(folder: str) -> dict[str, str]:
    """Stem -> path of each label file in a folder; none where it is missing, as where text files list such images.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - Path objects for 100,000 files take a second
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG):
            return {}
        raise
    texts = [name for name in names if name.lower().endswith(".txt") and name[0] != "."]
    return {same_text(name[:-4]): f"{folder}/{name}" for name in texts}


def read_label_file(file: str) -> bytes:
    """Its text in UTF-8.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is in another encoding.
    """
    # A pipe would wait for somebody to write.
    number = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(number, "rb", buffering=0) as stream:  # noqa: PTH123 - Path objects cost as much as reading
        if not S_ISREG(os.fstat(number).st_mode):
            raise IsADirectoryError(EISDIR, "Not a file")
        content = stream.read()
    return content if content.isascii() else content.decode("utf-8-sig").encode()


class Lines:
    """The lines of all label files of a split as columns, those that can be told to be boxes or polygons."""

    def __init__(self, files: SplitFiles, masks: bool, problems: Problems) -> None:
        self.files = files
        self.problems = problems
        self.label_files: list[str] = []  # of each image; empty where there is none
        self.left_out = 0  # lines noted as unusable
        self.images = array("q")  # row of each line's image
        self.numbers = array("q")  # of each line in its file
        self.values = array("d")  # class, cx, cy, w, h of each
        self.points = array("q")  # number of each outline's points, 0 of a box
        self.coordinates = array("d") if masks else None  # x and y in turn

    def take(self, content: bytes, file: str) -> None:
        """The label file of one more image."""
        image = len(self.label_files)
        self.label_files.append(file)
        keypoint_numbers = self.files.parts.keypoint_numbers
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                values = [*map(float, line.split())]
            except ValueError:
                self.leave_out(file, number, "something else than numbers separated by blanks", brief(line.decode()))
                continue
            if keypoint_numbers and len(values) == 5 + keypoint_numbers:
                del values[5:]
            if len(values) != 5:
                if len(values) < 7 or len(values) % 2 == 0:
                    self._refuse(values, file, number)
                    continue
                values = self._outline(values)
            else:
                self.points.append(0)
            self.images.append(image)
            self.numbers.append(number)
            self.values.fromlist(values)

    def _outline(self, values: list[float]) -> list[float]:
        """Keep the points of `class x y x y ...`; its `class cx cy w h`."""
        xs, ys = values[1::2], values[2::2]
        self.points.append(len(xs))
        if self.coordinates is not None:
            self.coordinates.fromlist(values[1:])
        if not isfinite(sum(values)):  # min() and max() pass over NaN
            return [nan] * 5
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        return [values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]

    def _refuse(self, values: list[float], file: str, number: int) -> None:
        if len(values) == 6:
            kind = f"six numbers, as predictions with scores have them; labels are {_FORMS}"
            self.leave_out(file, number, kind, shown(values))
        elif values:
            self.leave_out(file, number, f"another count of numbers than {_FORMS}", f"{len(values)}")

    def leave_out(self, file: str, number: int, kind: str, given: str) -> None:
        """Note a line as unusable."""
        self.left_out += 1
        example = f"{self.short(file)} line {number} has {given}"
        self.problems.warning(file, f"lines with {kind} (left out)", example, group=self.files.file)

    def short(self, file: str) -> str:
        return os.path.relpath(file, self.files.dataset_dir)

    def place(self, row: int) -> str:
        return f"{self.short(self.label_files[self.images[row]])} line {self.numbers[row]}"


def shown(values: Iterable[float]) -> str:
    return brief(" ".join(f"{value:g}" for value in values))
