"""Pascal VOC: an XML file for each image.

As Roboflow and LabelImg write it (files beside their images, a folder for each split) and as the devkit of the
challenge has it (Annotations/, JPEGImages/, ImageSets/Main/). Numbers of boxes are taken for edges in pixels, as most
tools write them; the challenge itself counts pixels from 1, which moves its boxes by one at most.
"""

import os
from collections.abc import Iterator
from math import isfinite, nan
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree, EntitiesForbidden

from rfdetr.data.cleaning import check_share
from rfdetr.data.formats.folders import images_among, list_files, read_text, same_text, stem_of
from rfdetr.data.formats.named_classes import NamedClasses
from rfdetr.data.formats.voc_layout import VocParts, find, xml_files
from rfdetr.data.problems import Problems, brief
from rfdetr.data.raw import Outlines, RawSplit, SplitFiles

__all__ = ["find", "read"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the XML files of a split say. An image whose file cannot be read is left out."""
    raw = RawSplit(files, outlines=Outlines() if masks else None)
    try:
        reader = _Reader(raw, problems)
        names = _names(files, problems)
        for name in names:
            reader.take(name)
        reader.classes.finish(raw)
        check_share("XML files", len(names), len(raw), raw, problems)
        check_share("objects", len(raw.images) + reader.objects_left_out, len(raw.images), raw, problems)
    except OSError as error:
        problems.error(error.filename or files.file, f"cannot be read: {error.strerror}")
    return raw


def _names(files: SplitFiles, problems: Problems) -> list[str]:
    """XML files of the split."""
    parts: VocParts = files.parts
    present = xml_files(parts.annotations)
    if parts.image_set is None:
        return present
    by_stem = {same_text(stem_of(name)): name for name in present}
    try:
        lines = [line.strip() for line in read_text(parts.image_set).splitlines()]
    except ValueError as error:
        problems.error(parts.image_set, str(error))
        return []
    names = []
    for number, line in enumerate(lines, start=1):
        # Lists of a single class have 1 or -1 behind the name.
        readings = (same_text(text) for text in (line, stem_of(line), line.rpartition(" ")[0].strip()) if text)
        name = next((by_stem[stem] for stem in readings if stem in by_stem), None)
        if name:
            names.append(name)
        elif line:
            kind = f"images without an XML file in {parts.annotations} (left out)"
            problems.warning(parts.image_set, kind, f"line {number} {line}")
    return names


class _Reader:
    def __init__(self, raw: RawSplit, problems: Problems) -> None:
        self.raw = raw
        self.problems = problems
        self.folder = raw.files.parts.annotations
        self.short = os.path.relpath(self.folder, raw.files.dataset_dir) + "/"
        self.short = "" if self.short == "./" else self.short
        names = list_files(raw.files.root)
        self.present = set(names)
        self.image_of_stem = {same_text(stem_of(name)): name for name in reversed(images_among(names))}
        self.classes = NamedClasses()
        self.files: list[str] = []  # of each image
        self.objects_left_out = 0
        raw.place = lambda raw, row: f"{self.short}{self.files[raw.images[row]]} object {raw.object_ids[row]}"

    def take(self, name: str) -> None:
        """One XML file."""
        root = self._parsed(name)
        if root is None:
            return
        image = self.raw.add_image(self._image_name(name, _text(root, "filename")), len(self.raw) + 1, _size_hw(root))
        self.files.append(name)
        for number, entry in enumerate(root.iterfind("object"), start=1):
            self._take_object(entry, image, name, number)

    def _parsed(self, name: str) -> Element | None:
        """The `annotation` of a file; None where there is none, which is noted."""
        try:
            with open(self.folder / name, "rb", buffering=0) as stream:  # noqa: PTH123
                root: Element = ElementTree.fromstring(stream.read())
        except OSError as error:
            self._leave_out(name, "XML files that cannot be read", f"({error.strerror})")
        except ParseError as error:
            self._leave_out(
                name, "XML files that are broken", f"line {error.position[0]} ({str(error).partition(':')[0]})"
            )
        except EntitiesForbidden:
            self._leave_out(name, "XML files that cannot be used", "(it defines entities)")
        except (ValueError, LookupError) as error:  # encodings that nobody knows
            self._leave_out(name, "XML files that cannot be used", f"({error})")
        else:
            if root.tag == "annotation":
                return root
            self._leave_out(name, "XML files of another kind than Pascal VOC's", f"(<{root.tag}> for <annotation>)")
        return None

    def _leave_out(self, name: str, kind: str, reason: str) -> None:
        kind = f"{kind} (left out with their images)"
        self.problems.warning(self.folder / name, kind, f"{self.short}{name} {reason}", group=self.folder)

    def _image_name(self, file: str, given: str) -> str:
        """The picture of an XML file: that of its own stem, or the one it names. They differ in renamed files."""
        given = given.replace("\\", "/").rpartition("/")[2]
        stem = same_text(stem_of(file))
        own = self.image_of_stem.get(stem)
        if own is None:
            return given or f"{stem_of(file)}.jpg"
        if given in self.present and same_text(stem_of(given)) != stem:
            kind = "XML files that name another picture than that of their own name (which is used)"
            self.problems.warning(self.folder / file, kind, f"{self.short}{file} names {given}", group=self.folder)
        return given if given in self.present and same_text(stem_of(given)) == stem else own

    def _take_object(self, entry: Element, image: int, file: str, number: int) -> None:
        name = _text(entry, "name")
        polygon = self._polygon(entry, file, number)
        try:
            box = _box(entry, polygon)
        except ValueError as error:
            self._warn("objects without a box `<bndbox>` of four numbers (left out)", file, number, f" has {error}")
            self.objects_left_out += 1
            return
        if not name:
            self._warn("objects without a name (left out)", file, number)
            self.objects_left_out += 1
            return
        self.raw.add_object(image, self.classes.row(name), box, number, polygons=[polygon] if polygon else ())

    def _polygon(self, entry: Element, file: str, number: int) -> list[float]:
        """The outline [x, y, x, y, ...]; empty where there is none."""
        element = entry.find("polygon")
        if element is None or not len(element):
            return []
        try:
            return _points(element)
        except ValueError as error:
            self._warn("polygons that are not `<x1>`, `<y1>`, `<x2>`, ... (not used)", file, number, f" has {error}")
            return []

    def _warn(self, kind: str, file: str, number: int, given: str = "") -> None:
        example = f"{self.short}{file} object {number}{given}"
        self.problems.warning(self.folder / file, kind, example, group=self.folder)


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _box(entry: Element, polygon: list[float]) -> tuple[float, float, float, float]:
    """Left, top, width and height. Of an object with nothing but an outline, those of the outline.

    Raises:
        ValueError: there is none; the message says what there is.
    """
    element = entry.find("bndbox")
    if element is not None:
        texts = [_text(element, tag) for tag in _CORNERS]
        try:
            left, top, right, bottom = map(float, texts)
        except ValueError:
            raise ValueError(brief(" ".join(text or "nothing" for text in texts))) from None
    elif polygon:
        left, top, right, bottom = min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])
    else:
        raise ValueError("none")
    return left, top, right - left, bottom - top


def _points(polygon: Element) -> list[float]:
    """Raises:
    ValueError: not three or more points with x and y; the message says what there is.
    """
    numbers = {child.tag: child.text or "" for child in polygon}
    tags = list(_tags_of_points(len(numbers) // 2))
    if len(numbers) < 6 or set(tags) != set(numbers):
        raise ValueError(brief(" ".join(numbers)))
    try:
        points = [float(numbers[tag]) for tag in tags]
    except ValueError:
        points = [nan]
    if not isfinite(sum(points)):
        raise ValueError(brief(" ".join(numbers.values())))
    return points


def _tags_of_points(count: int) -> Iterator[str]:
    for point in range(1, count + 1):
        yield from (f"x{point}", f"y{point}")


def _size_hw(root: Element) -> tuple[int, int]:
    """(0, 0) where it is not said."""
    sides = []
    for tag in ("size/height", "size/width"):
        try:
            side = float(_text(root, tag))
        except ValueError:
            return 0, 0
        sides.append(int(side) if 0 < side < 2**31 else 0)
    return (sides[0], sides[1]) if all(sides) else (0, 0)
