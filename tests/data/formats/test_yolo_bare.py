from pathlib import Path

import pytest

from rfdetr.data.formats import yolo, yolo_bare
from rfdetr.data.layout import find_dataset
from rfdetr.data.problems import Problems

from .dirty import Files, objects, texts, write

BOX = "1 .5 .5 .2 .2"
NAMES = "cat\ndog\n\n"


def found(root: Path) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Image and class of each object, by split, and the problems."""
    problems = Problems()
    splits = yolo_bare.find(root, problems)
    things = {split: objects(yolo.read(files, False, problems)) for split, files in splits.items()}
    return {split: [(image, name) for image, name, _ in own] for split, own in things.items()}, texts(problems, root)


SPLITS = {f"{kind}/{split}/{split}.{suffix}": BOX for split in ("train", "val") for kind, suffix in
          (("images", "jpg"), ("labels", "txt"))}  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"classes.txt": NAMES, **SPLITS}, id="beside"),
        pytest.param({"labels/classes.txt": NAMES, **SPLITS}, id="among the labels"),
        pytest.param(
            {f"labels/{split}/classes.txt": "\ufeffcat\r\ndog\r\n" for split in ("train", "val")} | SPLITS,
            id="in each split",
        ),
        pytest.param({"config/data.yaml": "names: [cat, dog]\ntrain: ../nowhere", **SPLITS}, id="data.yaml below"),
        pytest.param(
            {
                **{f"{split}/{split}.{suffix}": BOX for split in ("train", "val") for suffix in ("jpg", "txt")},
                **{f"{split}/_darknet.labels": NAMES for split in ("train", "val")},
            },
            id="Darknet, as Roboflow exports it",
        ),
        pytest.param(
            {
                "obj.names": NAMES,
                "obj.data": "classes = 2\ntrain = data/train.txt\n",
                **{f"{split}.txt": f"data/obj_{split}_data/{split}.jpg\n" for split in ("train", "val")},
                **{f"obj_{split}_data/{split}.{suffix}": BOX for split in ("train", "val") for suffix in
                   ("jpg", "txt")},
            },
            id="Darknet, as CVAT exports it",
        ),
    ],
)  # fmt: skip
def test_names_in_a_text_file(tmp_path: Path, files: Files) -> None:
    splits, problems = found(write(tmp_path, files))
    by_name = {split: [(Path(image).name, label) for image, label in own] for split, own in splits.items()}
    assert by_name == {"train": [("train.jpg", "dog")], "valid": [("val.jpg", "dog")]}
    assert problems == []


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"images/a.jpg": "", "labels/a.txt": BOX, "classes.txt": NAMES, "notes.json": "{}"}, id="apart"),
        pytest.param({"a.jpg": "", "a.txt": BOX, "classes.txt": NAMES}, id="all in one folder, as LabelImg writes it"),
    ],
)
def test_without_splits_all_is_for_training(tmp_path: Path, files: Files) -> None:
    assert found(write(tmp_path, files)) == ({"train": [("a.jpg", "dog")]}, [])


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        pytest.param(
            {},
            "error ROOT: label files of YOLO in labels/train, but nothing that names their classes. Write data.yaml "
            "with a line `names: [cat, dog]`, or classes.txt with a name in each line, into this folder",
            id="no names",
        ),
        pytest.param(
            {"classes.txt": NAMES, "labels/classes.txt": "dog\ncat\n"},
            "error ROOT: classes.txt and labels/classes.txt name different classes. Leave one of them",
            id="two that differ",
        ),
        pytest.param(
            {"classes.txt": "cat\n\ndog\n"},
            "error ROOT: classes.txt: names: the one of index 1 is empty",
            id="an empty one",
        ),
    ],
)
def test_names_that_are_refused(tmp_path: Path, files: Files, complaint: str) -> None:
    assert found(write(tmp_path, {**SPLITS, **files})) == ({}, [complaint])


def test_too_few_names_are_said_with_their_file(tmp_path: Path) -> None:
    _, problems = found(write(tmp_path, {"classes.txt": "cat", "images/a.jpg": "", "labels/a.txt": BOX}))
    assert problems[0].startswith("error labels/a.txt: class indices without a name (classes.txt has 1 name, index 0)")


@pytest.mark.parametrize("text", ["a note", "12", "", "1 2 3 4\n"])
def test_other_text_files_are_no_labels(tmp_path: Path, text: str) -> None:
    assert found(write(tmp_path, {"classes.txt": NAMES, "images/a.jpg": "", "labels/a.txt": text})) == ({}, [])


def test_it_is_recognised_by_itself(tmp_path: Path) -> None:
    splits, _ = find_dataset(write(tmp_path, {"classes.txt": NAMES, **SPLITS}))
    assert [files.format for files in splits.values()] == ["yolo", "yolo"]
