"""YOLO datasets: data.yaml, folders of images, and a label file for each image.

Read after Ultralytics' description of the format (docs.ultralytics.com/datasets/detect and /segment) and what
Roboflow exports. A label file that is missing or empty makes its image background.
"""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rfdetr.config.runs import Split
from rfdetr.data.cleaning import check_share
from rfdetr.data.formats.folders import same_text, stem_of
from rfdetr.data.formats.yolo_file import find_data_file, read_data_file
from rfdetr.data.formats.yolo_images import list_images
from rfdetr.data.formats.yolo_labels import NO_LABELS, Lines, label_files, label_folder, read_label_file
from rfdetr.data.formats.yolo_objects import add_objects
from rfdetr.data.formats.yolo_paths import Sources, locate
from rfdetr.data.problems import Problems
from rfdetr.data.raw import Category, RawSplit, SplitFiles


@dataclass(frozen=True)
class YoloParts:
    """What is read for a split beside its label files."""

    data_file: Path
    names: tuple[str, ...]
    sources: Sources
    keypoint_numbers: int


def find(root: Path, problems: Problems) -> dict[Split, SplitFiles]:
    """The splits of a dataset, given by its folder or its YAML file.

    Empty where there is no such file, or it is unusable; the latter has been noted as an error.
    """
    file = find_data_file(root)
    data = read_data_file(file, problems) if file else None
    if data is None:
        return {}
    top, splits = locate(data, problems)
    return {
        split: split_files(split, top, YoloParts(data.file, data.names, sources, data.keypoint_numbers))
        for split, sources in splits.items()
    }


def split_files(split: Split, top: Path, parts: YoloParts) -> SplitFiles:
    folders = [source for source in parts.sources if source.is_dir()]
    labels = [Path(label_folder(str(folder), str(top))) for folder in folders]
    has_lists = len(folders) < len(parts.sources)
    is_one = len(folders) == len(parts.sources) == 1
    return SplitFiles(
        format="yolo",
        split=split,
        dataset_dir=top,
        root=folders[0] if is_one else top,
        file=labels[0] if is_one else parts.data_file,
        watched=(parts.data_file, *dict.fromkeys((*parts.sources, *labels, *((top,) if has_lists else ())))),
        parts=parts,
    )


def read(files: SplitFiles, masks: bool, problems: Problems) -> RawSplit:
    """What the label files of a split say. Boxes and outlines are fractions of the sides of their image.

    An image whose label file cannot be read is left out: it would else be taken for background.
    """
    parts: YoloParts = files.parts
    raw = RawSplit(files, "fractions", [Category(index, name) for index, name in enumerate(parts.names)])
    reader = _Reader(raw, problems, Lines(files, masks, problems))
    try:
        images = list_images(parts.sources, files.dataset_dir, problems)
        for folder in sorted(images):
            reader.take(folder, sorted(images[folder]))
        check_share("images", sum(map(len, images.values())), len(raw), raw, problems)
    except OSError as error:
        problems.error(error.filename or files.file, f"cannot be read: {error.strerror}")
    reader.finish()
    return raw


class _Reader:
    def __init__(self, raw: RawSplit, problems: Problems, lines: Lines) -> None:
        self.raw = raw
        self.problems = problems
        self.lines = lines
        self.known: dict[str, dict[str, str]] = {}  # label files by folder and stem
        self.used: defaultdict[str, set[str]] = defaultdict(set)  # stems of images by folder of labels
        files = lines.label_files
        raw.place = lambda raw, row: f"{lines.short(files[raw.images[row]])} line {raw.object_ids[row]}"

    def take(self, folder: str, names: list[str]) -> None:
        """The images of a folder, with their labels."""
        labels = label_folder(folder, str(self.raw.files.dataset_dir))
        if labels not in self.known:
            self.known[labels] = label_files(labels)
        known, used = self.known[labels], self.used[labels]
        beside = label_files(folder) if labels != folder and len(known) < len(names) else {}
        prefix = os.path.relpath(folder, self.raw.files.root) + "/"
        prefix = "" if prefix == "./" else prefix
        shared: dict[str, str] = {}
        for name in names:
            stem = same_text(stem_of(name))
            used.add(stem)
            other = shared.setdefault(stem, name)
            if other != name:
                kind = "images that differ in nothing but the suffix, so that they share a label file"
                self.problems.warning(self.raw.files.file, kind, f"{prefix}{other} and {name}")
            if stem in beside and stem not in known:
                kind = f"label files beside their images, not in {self.lines.short(labels)} (used)"
                self.problems.warning(beside[stem], kind, self.lines.short(beside[stem]), group=self.raw.files.file)
            self._take_image(prefix + name, known.get(stem, "") or beside.get(stem, ""))

    def _take_image(self, name: str, file: str) -> None:
        content = self._content(file) if file else b""
        if content is not None:
            self.raw.add_image(name, len(self.raw) + 1)
            self.lines.take(content, file)

    def _content(self, file: str) -> bytes | None:
        """Text of a label file; None where it cannot be read, which is noted."""
        try:
            return read_label_file(file)
        except OSError as error:
            self._leave_out(file, "cannot be read", f" ({error.strerror})")
        except UnicodeDecodeError:
            self._leave_out(file, "are not text in UTF-8")
        return None

    def _leave_out(self, file: str, kind: str, reason: str = "") -> None:
        kind = f"label files that {kind} (left out with their images)"
        self.problems.warning(file, kind, self.lines.short(file) + reason, group=self.raw.files.file)

    def finish(self) -> None:
        add_objects(self.raw, self.lines)
        files = self.lines.label_files
        if files and not any(files):
            places = ", ".join(self.lines.short(folder) for folder in list(self.known)[:3])
            text = f"no image has a label file (looked in {places}), so that all {len(files)} are background"
            self.problems.warning(self.raw.files.file, text)
        if all(source.is_dir() for source in self.raw.files.parts.sources):
            self._report_unused()

    def _report_unused(self) -> None:
        for folder, files in self.known.items():
            for stem, file in files.items():
                is_label = stem not in NO_LABELS and not stem.startswith("README")
                if is_label and stem not in self.used[folder]:
                    kind = "label files without an image (not used)"
                    self.problems.warning(file, kind, self.lines.short(file), group=self.raw.files.file)
