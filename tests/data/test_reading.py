import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfdetr.config.runs import Split
from rfdetr.data import index
from rfdetr.data.layout import find_split
from rfdetr.data.reading import read_dataset, read_split
from rfdetr.data.resampling import picture_hw
from rfdetr.errors import DatasetError

from .tiny_coco import annotation, category, image, write_coco

QUARTER_TURN = 6  # EXIF


def said(root: Path, severity: str = "warning", masks: bool = False) -> list[str]:
    return [
        problem.message for problem in read_dataset(root, ["train"], masks).problems if problem.severity == severity
    ]


def with_box(root: Path, *boxes: Any) -> Path:
    """One good object and others with these boxes."""
    rows = [annotation(1), annotation(2), *(annotation(5 + row, bbox=box) for row, box in enumerate(boxes))]
    return write_coco(root, annotations=rows)


@pytest.mark.parametrize(
    ("box", "complaint"),
    [
        ([10, 20, -5, 8], "boxes of negative width or height (left out) (1): id 5 has [10, 20, -5, 8]"),
        ([10, 20, 0, 8], "boxes without width or height (left out) (1): id 5 has [10, 20, 0, 8]"),
        ([60, 20, 5, 8], "boxes that lie outside of their image (left out) (1): id 5 has [60, 20, 5, 8]"),
        ([10, -9, 5, 8], "boxes that lie outside of their image (left out) (1): id 5 has [10, -9, 5, 8]"),
        ([10, float("nan"), 5, 8], "boxes whose numbers are not finite (left out) (1): id 5 has [10, nan, 5, 8]"),
        ([10, 1, float("inf"), 8], "boxes whose numbers are not finite (left out) (1): id 5 has [10, 1, inf, 8]"),
        (
            [0.2, 0.3, 0.1, 0.1],
            "boxes smaller than a pixel, in fractions of the image instead of pixels? (left out) (1): "
            "id 5 has [0.2, 0.3, 0.1, 0.1]",
        ),
    ],
    ids=str,
)
def test_a_box_that_is_left_out(tmp_path: Path, box: list[float], complaint: str) -> None:
    assert said(with_box(tmp_path, box)) == [complaint]
    assert len(read_split(tmp_path, "train").labels) == 2


def test_a_box_that_reaches_out_of_its_image_is_cut_off_and_rounding_is_no_matter(tmp_path: Path) -> None:
    root = with_box(tmp_path, [50, 30, 20, 10], [50, 30, 10.9, 10])
    assert said(root) == ["boxes that reach beyond their image (the part inside counts) (1): id 5 has [50, 30, 20, 10]"]
    boxes = read_split(root, "train").training_objects(0).boxes
    assert boxes[2:].tolist() == [[50, 30, 60, 40], [50, 30, 60, 40]]


@pytest.mark.parametrize(
    ("boxes", "complaint"),
    [
        pytest.param(
            [[0.1, 0.2, 0.3, 0.4]] * 3,
            "60% of the boxes look like fractions of the image. COCO's boxes are [x, y, width, height] in pixels",
            id="fractions",
        ),
        pytest.param(
            [[30, 20, 55, 35], [35, 10, 60, 40], [20, 15, 50, 38]],
            "60% of the boxes look like corners [x1, y1, x2, y2]. COCO's boxes are [x, y, width, height] in pixels",
            id="corners that reach out",
        ),
    ],
)
def test_boxes_of_another_form_are_recognised_together(tmp_path: Path, boxes: Any, complaint: str) -> None:
    rows = [annotation(number, bbox=[5, 6, 10, 9]) for number in (1, 2)]
    rows += [annotation(5 + row, bbox=box) for row, box in enumerate(boxes)]
    assert complaint in said(write_coco(tmp_path, annotations=rows), "error")


def test_corners_are_recognised_by_their_area(tmp_path: Path) -> None:
    rows = [annotation(number, bbox=[10, 10, 20, 15], area=50) for number in range(4)]
    (complaint,) = said(write_coco(tmp_path, annotations=rows), "error")
    assert complaint.startswith("100% of the boxes look like corners")


def test_where_most_objects_had_to_be_left_out_the_file_means_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = with_box(tmp_path, *[[5, 5, 0, 0]] * 3)
    assert said(root, "error") == ["3 of 5 objects cannot be used: see the warnings for why"]
    with pytest.raises(DatasetError, match="3 of 5 objects cannot be used"):
        read_split(root, "train")
    assert "boxes without width or height (left out) (3)" in capsys.readouterr().err


def picture(root: Path, name: str, size_wh: tuple[int, int] = (60, 40), orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh).save(root / "train" / name, exif=exif)


def listing(root: Path, *names: str, **changes: Any) -> Path:
    """Two good images and others of these names, each image with an object."""
    images = [image(1), image(2), *(image(3 + row, file_name=name, **changes) for row, name in enumerate(names))]
    return write_coco(root, images=images, annotations=[annotation(n, image_id=n) for n in range(1, len(images) + 1)])


def test_pictures_that_cannot_be_used_are_named_and_left_out_with_their_objects(tmp_path: Path) -> None:
    root = listing(tmp_path, "gone.png", "empty.jpg", "text.png", "small.png", "a.png", "b.png")
    (root / "train/empty.jpg").touch()
    (root / "train/text.png").write_text("not a picture")
    for name, size in (("small.png", (30, 20)), ("a.png", (60, 40)), ("b.png", (60, 40))):
        picture(root, name, size)
    lines = said(root)
    assert lines[0] == f"images without a file in {root / 'train'} (left out) (1): gone.png"
    assert lines[1].startswith("pictures that cannot be used (left out) (2): empty.jpg")
    assert "text.png" in lines[1]
    assert lines[2] == (
        "pictures of another size than listed, so that their boxes would be misplaced (left out) (1): "
        "small.png is 30 x 20 pixels, listed as 60 x 40"
    )
    split = read_split(root, "train")
    assert split.image_ids.tolist() == [1, 2, 7, 8]
    assert split.offsets.tolist() == [0, 1, 2, 3, 4]


def test_boxes_lie_on_the_picture_as_it_was_labelled_whichever_way_the_camera_was_held(tmp_path: Path) -> None:
    """Height and width in the annotation file say whether the tool that drew them heeded the EXIF orientation."""
    root = listing(tmp_path, "stored.jpg", "upright.jpg")
    picture(root, "stored.jpg", (60, 40), QUARTER_TURN)
    picture(root, "upright.jpg", (40, 60), QUARTER_TURN)
    assert said(root) == ["pictures whose boxes were drawn without their EXIF orientation (used so) (1): stored.jpg"]
    split = read_split(root, "train")
    assert [picture_hw(split.pictures.load(row)) for row in range(4)] == [(40, 60)] * 4


@pytest.mark.parametrize(
    ("name", "file", "complaint"),
    [
        ("sub\\a b.png", "sub/a b.png", None),
        ("./a.png", "a.png", None),
        (unicodedata.normalize("NFC", "größe 日本.png"), unicodedata.normalize("NFD", "größe 日本.png"), None),
        ("images/train/a.png", "a.png", None),
        ("a.png ", "a.png", None),
        ("A.PNG", "a.png", "images whose file is spelled otherwise (used) (1): A.PNG is a.png"),
        ("../../a.png", "a.png", "images outside of the dataset's folder (left out) (1): ../../a.png"),
        ("/etc/passwd", "a.png", "images outside of the dataset's folder (left out) (1): /etc/passwd"),
    ],
)
def test_names_of_files(tmp_path: Path, name: str, file: str, complaint: str | None) -> None:
    root = listing(tmp_path, name)
    picture(root, file)
    lines = said(root)
    if complaint is None:
        assert lines == []
    else:
        assert lines[0] == complaint
    assert len(read_split(root, "train")) == (2 if "left out" in (complaint or "") else 3)


def test_links_are_followed_and_broken_ones_are_missing_files(tmp_path: Path) -> None:
    root = listing(tmp_path / "data", "link.png", "broken.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "elsewhere.png")
    (root / "train/link.png").symlink_to(tmp_path / "elsewhere.png")
    (root / "train/broken.png").symlink_to(tmp_path / "nothing.png")
    assert said(root) == [f"images without a file in {root / 'train'} (left out) (1): broken.png"]
    assert len(read_split(root, "train")) == 3


def test_pictures_that_no_split_lists_are_reported(tmp_path: Path) -> None:
    root = listing(tmp_path)
    picture(root, "more.png")
    (root / "train/notes.txt").touch()
    assert said(root) == ["pictures that the annotations do not list (not used) (1): more.png"]


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        pytest.param([category(7, "dog"), category(3, "cat")], ["cat", "dog"], id="sorted by id"),
        pytest.param(
            [category(0, "animals"), category(3, "cat", supercategory="animals")], ["cat"], id="a parent is no class"
        ),
        pytest.param(
            [category(0, "ant", supercategory="cat"), category(3, "cat")],
            ["ant", "cat"],
            id="unless objects bear its name",
        ),
        pytest.param(
            [category(3, "cat", supercategory="cat"), category(4, "dog", supercategory="dog")],
            ["cat", "dog"],
            id="its own parent is a class",
        ),
        pytest.param(
            [category(0, "cat"), category(3, "cat", supercategory="cat")], ["cat"], id="a parent of the same name"
        ),
        pytest.param(
            [category(3, "cat"), category(4, "none", supercategory=None)], ["cat", "none"], id="'none' means no parent"
        ),
        pytest.param([category(3, " cat\r\n"), {**category(4, "?"), "name": 5}], ["cat", "5"], id="blanks and numbers"),
    ],
)
def test_class_table(tmp_path: Path, categories: list[Any], names: list[str]) -> None:
    classes = read_split(write_coco(tmp_path, categories=categories), "train").classes
    assert list(classes.names) == names
    assert list(classes.class_ids) == list(range(len(names)))


def test_all_categories_are_classes_where_every_one_is_a_parent(tmp_path: Path) -> None:
    circle = [category(1, "a", supercategory="b"), category(2, "b", supercategory="a")]
    split = read_split(write_coco(tmp_path, "valid", annotations=[], categories=circle), "valid")
    assert split.classes.names == ("a", "b")


def test_the_training_classes_hold_for_other_splits_by_name(tmp_path: Path) -> None:
    other_ids = [category(1, "dog"), category(2, "bird"), category(3, "cat")]
    rows = [annotation(1, category_id=1), annotation(2, category_id=3)]
    write_coco(write_coco(tmp_path), "valid", annotations=rows, categories=other_ids)
    dataset = read_dataset(tmp_path)
    train, valid = dataset.splits["train"], dataset.splits["valid"]
    assert valid.classes is train.classes is dataset.classes
    assert valid.labels.tolist() == [1, 0]
    assert valid.category_id_of == {0: 3, 1: 1}
    assert dataset.missing == ["test"]


def test_objects_of_classes_that_the_training_split_lacks_are_no_silent_mix_up(tmp_path: Path) -> None:
    rows = [annotation(1, category_id=3), annotation(2, category_id=4), annotation(3, category_id=4)]
    write_coco(write_coco(tmp_path), "valid", annotations=rows, categories=[category(3, "cat"), category(4, "dogs")])
    with pytest.raises(DatasetError) as error:
        read_dataset(tmp_path).usable()
    assert str(error.value) == (
        f"{tmp_path}/valid/_annotations.coco.json: objects of classes that the training split does not have "
        "(cat, dog). Name them alike in all splits (1): 'dogs' (2 objects). Did you mean 'dog'?"
    )


def test_errors_of_all_splits_come_at_once(tmp_path: Path) -> None:
    write_coco(write_coco(tmp_path, images=[]), "valid", categories=[])
    with pytest.raises(DatasetError, match=re.compile(r"train/.*no images.*valid/.*no categories", re.DOTALL)):
        read_dataset(tmp_path).usable()


def test_warnings_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = with_box(tmp_path, [10, 20, 0, 8])
    read_split(root, "train")
    assert capsys.readouterr().err == (
        f"rfdetr: warning: {root}/train/_annotations.coco.json: "
        "boxes without width or height (left out) (1): id 5 has [10, 20, 0, 8]\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("train/_annotations.coco.json", "train.json"),
        ("train/_annotations.coco.json", "annotations/instances_train.json"),
        ("train/_annotations.coco.json", "annotations/custom_training_v2.json"),
        ("train/_annotations.coco.json", "train/labels.json"),
        ("train/_annotations.coco.json", "annotations/instances_default.json"),
    ],
)
@pytest.mark.parametrize("folder", ["train", "images/train", "images", "train/images", "train2017", "."])
def test_an_annotation_file_per_split_and_images_where_its_names_say(
    tmp_path: Path, before: str, after: str, folder: str
) -> None:
    write_coco(tmp_path)
    (tmp_path / after).parent.mkdir(exist_ok=True)
    (tmp_path / before).rename(tmp_path / after)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in ("1.png", "2.png"):
        (tmp_path / "train" / name).rename(tmp_path / folder / name)
    dataset = read_dataset(tmp_path)
    assert dataset.problems == []
    assert dataset.format == "coco"
    assert len(dataset.splits["train"]) == 2


def test_splits_may_share_a_folder_of_images(tmp_path: Path) -> None:
    write_coco(write_coco(tmp_path, images=[image(1)]), "val", images=[image(2)], annotations=[])
    for split in ("train", "val"):
        (tmp_path / split / "_annotations.coco.json").rename(tmp_path / f"{split}.json")
    (tmp_path / "train").rename(tmp_path / "images")
    for name in ("1.png", "2.png"):
        (tmp_path / "val" / name).unlink()
    (tmp_path / "val").rmdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "images" / "3.png")
    dataset = read_dataset(tmp_path)
    assert {split: len(own) for split, own in dataset.splits.items()} == {"train": 1, "valid": 1}
    assert [problem.message for problem in dataset.problems] == [
        "pictures that the annotations do not list (not used) (1): 3.png"
    ]
    assert read_dataset(tmp_path, ["train"]).problems == []


class TestIndex:
    """What was read of large splits is kept."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(index, "_FEWEST_IMAGES", 1)
        monkeypatch.setenv("RFDETR_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        rows = [annotation(1, segmentation=[[10, 20, 40, 20, 40, 30]]), annotation(2, image_id=2, bbox=[3, 3, 0, 1])]
        return write_coco(tmp_path / "data", annotations=[*rows, annotation(3)])

    @pytest.mark.parametrize("masks", [False, True])
    def test_it_is_what_was_read(self, root: Path, masks: bool) -> None:
        first = read_dataset(root, ["train"], masks)
        kept = index.load(find_split(root, "train"), masks)
        assert kept is not None
        second = read_dataset(root, ["train"], masks)
        assert second.problems == first.problems != []
        ours, theirs = first.splits["train"], second.splits["train"]
        for name in ("image_ids", "sizes_hw", "offsets", "boxes_xywh", "areas", "labels", "is_crowd"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_equal(ours.training_objects(0).segmentations, theirs.training_objects(0).segmentations)
        assert [theirs.pictures.name(row) for row in range(2)] == ["1.png", "2.png"]

    @pytest.mark.parametrize("change", ["annotations", "picture", "new picture", "damaged index"])
    def test_it_is_not_used_when_something_has_changed(self, root: Path, change: str) -> None:
        read_dataset(root, ["train"])
        files = find_split(root, "train")
        assert index.load(files, masks=False) is not None
        if change == "annotations":
            os.utime(files.file, ns=(1, 1))
        elif change == "damaged index":
            (file,) = files_named("boxes_xywh.npy", root.parent / "cache")
            file.write_bytes(file.read_bytes()[:90])
        else:
            picture(root, "2.png" if change == "picture" else "3.png", (60, 40))
        assert index.load(files, masks=False) is None
        assert len(read_dataset(root, ["train"]).splits["train"].labels) == 2

    def test_nothing_is_written_into_the_dataset(self, root: Path) -> None:
        before = sorted(root.rglob("*"))
        read_dataset(root, ["train"])
        assert sorted(root.rglob("*")) == before

    def test_without_a_place_for_it_the_dataset_is_read_anew(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RFDETR_CACHE", str(root / "train/1.png"))
        assert len(read_dataset(root, ["train"]).splits["train"]) == 2


def files_named(name: str, folder: Path) -> list[Path]:
    return sorted(folder.rglob(name))


@pytest.mark.parametrize(
    ("split", "folder"), [("train", "train"), ("valid", "valid"), ("valid", "val"), ("test", "test")]
)
def test_a_folder_per_split(tmp_path: Path, split: Split, folder: str) -> None:
    write_coco(tmp_path, folder)
    files = find_split(str(tmp_path), split)
    assert (files.root, files.file) == (tmp_path / folder, tmp_path / folder / "_annotations.coco.json")
