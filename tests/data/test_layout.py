import json
from pathlib import Path

import pytest

from rfdetr.config.runs import Split
from rfdetr.data.layout import find_dataset, find_split
from rfdetr.errors import DatasetError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("split", "name"),
    [
        pytest.param("train", "train2017", id="train"),
        pytest.param("valid", "val2017", id="valid"),
        pytest.param("test", "val2017", id="test is the validation split"),
    ],
)
def test_coco_2017(tmp_path: Path, split: Split, name: str) -> None:
    for folder in ("train2017", "val2017"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / "annotations" / f"instances_{folder}.json")
    files = find_split(tmp_path, split)
    assert (files.root, files.file) == (tmp_path / name, tmp_path / "annotations" / f"instances_{name}.json")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path / "data", "train")
    assert str(error.value).startswith(
        f"{tmp_path}/data: no such folder. Give the folder of a dataset. Expected one of: "
    )


def test_a_file_is_no_dataset(tmp_path: Path) -> None:
    touch(tmp_path / "data.zip")
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path / "data.zip", "train")
    assert str(error.value) == f"{tmp_path}/data.zip: is a file. Give the folder of the dataset, or YOLO's data.yaml"


def test_a_missing_split_names_those_that_exist(tmp_path: Path) -> None:
    touch(tmp_path / "train/_annotations.coco.json", tmp_path / "val/_annotations.coco.json")
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path, "test")
    assert str(error.value) == f"{tmp_path}: no split 'test'. There is: train, valid"


def test_half_a_split(tmp_path: Path) -> None:
    touch(tmp_path / "train/a.jpg", tmp_path / "valid/_annotations.coco.json")
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path, "train")
    missing = tmp_path / "train/_annotations.coco.json"
    assert str(error.value) == f"{tmp_path}: split 'train' is incomplete: no {missing}"


def test_an_unknown_layout_says_what_is_there(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.jpg", "b.jpg", "labels/a.txt", "c", "d", "e", "f", "g")))
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path, "train")
    text = str(error.value)
    assert text.startswith(f"{tmp_path}: not a dataset in a layout we know. Expected one of: train/, valid/ (or val/)")
    assert text.endswith(" Found: a.jpg, b.jpg, c, d, e, f and 2 more.")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Found: nothing\.$"):
        find_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        pytest.param("", "birds", id="one level too high"),
        pytest.param("birds/train", "birds", id="one level too deep"),
    ],
)
def test_a_dataset_nearby_is_offered(tmp_path: Path, given: str, meant: str) -> None:
    touch(tmp_path / "birds/train/_annotations.coco.json", tmp_path / "fish/notes.txt")
    with pytest.raises(DatasetError) as error:
        find_split(tmp_path / given, "train")
    assert str(error.value).endswith(f" Did you mean {tmp_path / meant}?")


def test_an_archive_may_unpack_to_a_folder_in_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path / "birds/birds/train/_annotations.coco.json", tmp_path / "__MACOSX/birds/._x", tmp_path / ".DS_Store"
    )
    assert find_split(tmp_path, "train").root == tmp_path / "birds/birds/train"


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        pytest.param("Train/_annotations.coco.json", "Train/a.jpg", id="Roboflow"),
        pytest.param("Annotations/instances_train2017.json", "Train2017/a.jpg", id="COCO 2017"),
        pytest.param("Annotations/Train.JSON", "Images/a.jpg", id="named"),
        pytest.param("train/_annotations.coco.json", "train/images/a.jpg", id="images in a folder of the split"),
        pytest.param("annotations/train.json", "images/train/a.jpg", id="images of a split in a folder of images"),
    ],
)
def test_folders_of_coco_files(tmp_path: Path, file: str, picture: str) -> None:
    """However they are written, and whatever a Mac has left beside them."""
    path = tmp_path / file
    touch(tmp_path / picture, path.parent / f"._{path.name}")
    (path.parent / path.name).write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})
    )
    files = find_split(tmp_path, "train")
    assert (files.root / "a.jpg").samefile(tmp_path / picture)
    assert files.file.samefile(path)


@pytest.mark.parametrize(
    "name",
    ["http://images.org/a.jpg", "/data/of/others/a.jpg", "C:\\data\\a.jpg"],
    ids=["address", "absolute", "drive"],
)
def test_images_are_found_by_their_names_alone(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "images/a.jpg", tmp_path / "annotations/b.txt")
    (tmp_path / "annotations/train.json").write_text(json.dumps({"images": [{"id": 1, "file_name": name}]}))
    assert find_split(tmp_path, "train").root == tmp_path / "images"


def test_a_test_split_without_annotations_is_no_error(tmp_path: Path) -> None:
    touch(tmp_path / "train/_annotations.coco.json", tmp_path / "test/a.jpg")
    found, problems = find_dataset(tmp_path)
    assert list(found) == ["train"]
    assert [(problem.severity, problem.message) for problem in problems.found] == [
        ("warning", f"split 'test' is incomplete: no {tmp_path}/test/_annotations.coco.json")
    ]
