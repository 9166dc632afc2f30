"""Names in annotations that were written on another machine, and folders in which not everything is a picture."""

from pathlib import Path

import pytest
from PIL import Image

from rfdetr.data.reading import read_dataset
from rfdetr.errors import DatasetError

from .tiny_coco import annotation, image, write_coco


def listing(root: Path, name: str, file: str) -> tuple[list[str], list[str]]:
    """The pictures of a split with a third image of this name, for which there is this file; and what is said."""
    images = [image(1), image(2), image(3, file_name=name)]
    write_coco(root, images=images, annotations=[annotation(n, image_id=n) for n in (1, 2, 3)])
    path = root / "train" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)
    dataset = read_dataset(root, ["train"])
    names = [dataset.splits["train"].pictures.name(row) for row in range(len(dataset.splits["train"]))]
    return names[2:], [problem.message for problem in dataset.problems]


ELSEWHERE = "images whose file is somewhere else (used) (1): "
OTHERWISE = "images whose file is spelled otherwise (used) (1): "


@pytest.mark.parametrize(
    ("name", "file", "remarks"),
    [
        pytest.param("/home/me/train/a.png", "a.png", [f"{ELSEWHERE}/home/me/train/a.png is a.png"], id="absolute"),
        pytest.param("D:\\me\\a.png", "a.png", [f"{ELSEWHERE}D:\\me\\a.png is a.png"], id="on a drive"),
        pytest.param("/data/cats/a.png", "cats/a.png", [f"{ELSEWHERE}/data/cats/a.png is cats/a.png"], id="its folder"),
        pytest.param("train/cats/a.png", "cats/a.png", [], id="from the root"),
        pytest.param("http://images.org/x/a.png", "a.png", [], id="address"),
        pytest.param(
            "http://b.org/a.png?e=1&k=2", "a.png", [f"{OTHERWISE}http://b.org/a.png?e=1&k=2 is a.png"], id="?"
        ),
        pytest.param("a%20b.png", "a b.png", [f"{OTHERWISE}a%20b.png is a b.png"], id="blank as %20"),
        pytest.param("sub/A.PNG", "sub/a.png", [f"{OTHERWISE}sub/A.PNG is sub/a.png"], id="large letters in a folder"),
    ],
)
def test_names_of_other_machines(tmp_path: Path, name: str, file: str, remarks: list[str]) -> None:
    assert listing(tmp_path, name, file) == ([file], remarks)


def test_two_files_of_a_name_in_different_folders_are_not_mixed_up(tmp_path: Path) -> None:
    names, remarks = listing(tmp_path, "dogs/a.png", "cats/a.png")
    assert names == []
    assert remarks == [f"images without a file in {tmp_path}/train (left out) (1): dogs/a.png"]


def test_an_endless_name_is_shortened_in_messages(tmp_path: Path) -> None:
    _, (message, _) = listing(tmp_path, "a" * 5000, "b.png")
    assert message.endswith(f" (left out) (1): {'a' * 200}...")


def test_links_that_lead_to_themselves_are_missing_files(tmp_path: Path) -> None:
    write_coco(tmp_path, images=[image(1), image(2), image(3, file_name="self.png")])
    for name in ("self.png", "folder"):
        (tmp_path / "train" / name).symlink_to(tmp_path / "train" / name)
    dataset = read_dataset(tmp_path, ["train"])
    assert len(dataset.splits["train"]) == 2
    assert [problem.message for problem in dataset.problems] == [
        f"images without a file in {tmp_path}/train (left out) (1): self.png"
    ]


def test_a_test_split_without_images_is_none(tmp_path: Path) -> None:
    """Of another split that is an error."""
    write_coco(tmp_path)
    write_coco(tmp_path, "test", images=[], annotations=[])
    dataset = read_dataset(tmp_path, ["train", "test"])
    assert (list(dataset.splits), dataset.missing) == (["train"], ["test"])
    assert [str(problem) for problem in dataset.problems] == [f"{tmp_path}/test/_annotations.coco.json: no images"]
    assert dataset.problems[0].severity == "warning"
    with pytest.raises(DatasetError, match="no images"):
        read_dataset(tmp_path, ["test"]).usable()
