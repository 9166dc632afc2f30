"""A dataset in any format -> Annotations: what training, evaluation, `check` and `convert` all begin with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.config.runs import Split
from rfdetr.data import index, samples
from rfdetr.data.annotations import Annotations
from rfdetr.data.class_tables import class_ids, class_table
from rfdetr.data.formats import coco, csv_tables, voc, webdataset, yolo
from rfdetr.data.layout import SPLITS, Source, find_dataset, missing_split
from rfdetr.data.problems import Problem, Problems, raise_errors, settle
from rfdetr.data.raw import RawSplit, SplitFiles
from rfdetr.data.sources import PictureFiles, Pictures
from rfdetr.data.split_data import SplitData, use
from rfdetr.errors import DatasetError

_READERS: Mapping[str, Callable[[SplitFiles, bool, Problems], RawSplit]] = {
    "coco": coco.read,
    "python": samples.read,
    "yolo": yolo.read,
    "voc": voc.read,
    "csv": csv_tables.read,
    "webdataset": webdataset.read,
}


@dataclass(frozen=True)
class Dataset:
    """Splits that share a class table, with all that is wrong with them."""

    format: str
    splits: dict[Split, Annotations]
    """Those that could be read, if only in part."""
    classes: ClassTable
    """Of the training split, or of the first that there is."""
    problems: list[Problem]
    missing: list[Split]
    """Those that were asked for and that there are not."""
    data: dict[Split, SplitData]
    """What the splits were made from."""

    def usable(self) -> "Dataset":
        """The same, once there are no errors; says the warnings.

        Raises:
            DatasetError: names all errors.
        """
        settle(self.problems)
        return self


def read_dataset(dataset_dir: Source, splits: Sequence[Split] = SPLITS, masks: bool = False) -> Dataset:
    """All that can be read of some splits. Their classes are those of the first, matched by name.

    With `masks` every object gets an outline; without, they are not looked at.

    Raises:
        DatasetError: there is no dataset in a format we know, or none of these splits.
    """
    found, layout_problems = find_dataset(dataset_dir)
    problems = Problems()
    problems.extend(layout_problems.found)
    present = [split for split in splits if split in found]
    if not present:
        raise_errors(problems.found)
        raise DatasetError(missing_split(dataset_dir, splits[0], found))
    data = {split: _read(found[split], masks) for split in present}
    if "test" in present[1:] and not len(data["test"].names):  # it is not needed for training
        problems.extend(replace(problem, severity="warning") for problem in data.pop("test").problems)
        present.remove("test")
    table: ClassTable | None = None
    annotations: dict[Split, Annotations] = {}
    for split in present:
        own = data[split]
        problems.extend(own.problems)
        file = found[split].file
        if table is None:
            table = class_table(own, file, problems)
        annotations[split] = _annotations(found[split], own, table, class_ids(table, own, file, problems))
        if split == "train" and own.is_crowd.all() and not any(p.severity == "error" for p in own.problems):
            problems.error(file, "no object to train on")
    _report_unlisted(found, data, problems)
    missing = [split for split in splits if split not in data]
    return Dataset(
        found[present[0]].format, annotations, table or ClassTable((), (), ()), problems.found, missing, data
    )


def _read(files: SplitFiles, masks: bool) -> SplitData:
    kept = index.load(files, masks)
    if kept is not None:
        return kept
    state, problems = index.fingerprint(files), Problems()
    data = use(_READERS[files.format](files, masks, problems), problems)
    index.save(files, masks, data, state)
    return data


def _annotations(files: SplitFiles, data: SplitData, table: ClassTable, class_id_of: Sequence[int]) -> Annotations:
    names = set(table.names)
    known = [(class_id_of[row], own.id) for row, own in enumerate(data.categories) if own.name in names]
    return Annotations(
        split=files.split,
        annotation_file=files.file,
        pictures=_pictures(files, data),
        classes=table,
        image_ids=data.image_ids,
        sizes_hw=data.sizes_hw,
        offsets=data.offsets,
        boxes_xywh=data.boxes_xywh,
        areas=data.areas,
        labels=np.array(class_id_of, np.int64)[data.labels] if len(data.labels) else data.labels,
        is_crowd=data.is_crowd,
        category_id_of=dict(known),
        segmentations=data.segmentations,
        shards=None if data.places is None else data.places[:, 0],
    )


def _pictures(files: SplitFiles, data: SplitData) -> Pictures:
    if files.format == "python":
        return samples.SamplePictures(files.parts, data.image_ids)
    if files.format == "webdataset":
        return webdataset.pictures(files, data)
    return PictureFiles(files.root, data.names, data.is_as_stored)


def _report_unlisted(found: Mapping[Split, SplitFiles], data: Mapping[Split, SplitData], problems: Problems) -> None:
    """Pictures that no split lists. Of a folder in which a split lies that was not read, nothing can be said."""
    unread = [files.root for split, files in found.items() if split not in data]
    asked = [
        split
        for split, own in data.items()
        if len(own.unlisted) and not any(_overlap(found[split].root, other) for other in unread)
    ]
    listed = {f"{found[split].root}/{name}" for split in (data if asked else ()) for name in data[split].names}
    reported: set[str] = set()
    for split in asked:
        for name in data[split].unlisted:
            path = f"{found[split].root}/{name}"
            if path not in listed and path not in reported:
                reported.add(path)
                problems.warning(found[split].file, "pictures that the annotations do not list (not used)", name)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def read_split(dataset_dir: Source, split: Split, masks: bool = False) -> Annotations:
    """One split with the classes of its own; says the warnings.

    Raises:
        DatasetError: names everything that keeps the split from being used.
    """
    return read_dataset(dataset_dir, [split], masks).usable().splits[split]
