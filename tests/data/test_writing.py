import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from rfdetr.config.datasets import ConvertConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.outlines import MISSING
from rfdetr.data.reading import Dataset, read_dataset
from rfdetr.data.writing.convert import convert, new_folder
from rfdetr.errors import ConfigError, DatasetError
from rfdetr.masks import Rle, decode, encode, to_rle

from .tiny_coco import CAT_AND_DOG, Row, annotation, image, write_coco

ORIENTATION = 0x0112
# Of a picture of 60 x 40 pixels: within, to the last pixel, with odd fractions.
BOXES = ([10, 20, 30, 10], [0, 0, 60, 40], [1 / 3, 2 / 7, 17.123456789, 5.5], [59.5, 39.5, 0.5, 0.5])
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]
TWO_PARTS = [[2, 2, 12, 2, 12, 12, 2, 12], [30, 20, 50, 20, 50, 38, 30, 38]]
OVERLAPPING = [[2, 2, 22, 2, 22, 22, 2, 22], [12, 12, 32, 12, 32, 32, 12, 32]]


def ring() -> Row:
    """Run-length code of a ring, as in a JSON file."""
    y, x = np.mgrid[:40, :60]
    distance = (y - 20) ** 2 + (x - 30) ** 2
    rle = encode(((distance < 300) & (distance > 60))[None])[0]
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def dataset(root: Path, names: Sequence[str] = ("1.png", "2.png"), **splits: list[Row]) -> Path:
    """Splits with some annotations of pictures with some names."""
    for split, annotations in (splits or {"train": boxes()}).items():
        write_coco(root, split, [image(n, file_name=name) for n, name in enumerate(names, 1)], annotations)
        for number, name in enumerate(names, 1):
            target = root / split / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                Image.new("RGB", (60, 40), (number, 0, 0)).save(target, format="PNG")
    return root


def boxes() -> list[Row]:
    return [annotation(n, bbox=box, category_id=(3, 7)[n % 2], image_id=1 + n // 3) for n, box in enumerate(BOXES)]


def written(dataset_dir: Path, output: Path, **settings: Any) -> Dataset:
    """What is read of a dataset after it was written."""
    convert(ConvertConfig(dataset_dir=dataset_dir, output_dir=output, **settings))
    found = read_dataset(output, masks=any(data.has_outline.any() for data in read_dataset(output).data.values()))
    assert [problem for problem in found.problems if not problem.message.startswith(MISSING)] == []
    return found


def objects(split: Annotations) -> dict[str, list[tuple[int, list[float]]]]:
    """Class and box of the objects of each picture."""
    rows = [slice(*split.offsets[index : index + 2]) for index in range(len(split))]
    return {
        split.pictures.name(index): list(zip(split.labels[own].tolist(), split.boxes_xywh[own].tolist(), strict=True))
        for index, own in enumerate(rows)
    }


def assert_same_objects(split: Annotations, other: Annotations) -> None:
    one, two = objects(split), objects(other)
    assert one.keys() == two.keys()
    for name, own in one.items():
        assert [label for label, _ in own] == [label for label, _ in two[name]]
        assert np.abs(np.array([box for _, box in own]) - [box for _, box in two[name]]).max(initial=0) < 1e-4


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "formats",
    [("yolo",), ("coco",), ("yolo", "coco"), ("yolo", "coco", "yolo"), ("coco", "yolo", "coco")],
    ids="-".join,
)
def test_a_dataset_keeps_its_boxes_and_classes_in_every_format(formats: tuple[str, ...], tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", ("1.png", "a b/ü.v2.png"), train=boxes(), valid=boxes()[:2], test=[])
    before, folder = contents(source), source
    for number, name in enumerate(formats):
        output = tmp_path / str(number)
        found = written(folder, output, to=name)
        folder = output
    first = read_dataset(source)
    assert list(found.splits) == ["train", "valid", "test"]
    assert found.classes.names == ("cat", "dog")
    for split, annotations in first.splits.items():
        assert_same_objects(annotations, found.splits[split])
        assert [np.asarray(found.splits[split].pictures.load(i)).tobytes() for i in range(2)] == [
            np.asarray(annotations.pictures.load(i)).tobytes() for i in range(2)
        ]
    assert contents(source) == before


def test_coco_keeps_ids_areas_outlines_and_crowds(tmp_path: Path) -> None:
    rows = [
        annotation(1, segmentation=SQUARE, area=123.5, bbox=[10, 10, 20, 20]),
        annotation(2, segmentation=ring(), bbox=[12, 2, 36, 36]),
        annotation(3, segmentation=ring(), iscrowd=1, bbox=[12, 2, 36, 36]),
        annotation(4),
    ]
    source = dataset(tmp_path / "source", train=rows)
    written(source, tmp_path / "coco")
    file = json.loads((tmp_path / "coco/train/_annotations.coco.json").read_text())
    assert [row["id"] for row in file["categories"]] == [3, 7]
    assert [(row["id"], row["file_name"], row["height"], row["width"]) for row in file["images"]] == [
        (1, "1.png", 40, 60),
        (2, "2.png", 40, 60),
    ]
    assert [row.get("segmentation") for row in file["annotations"]] == [SQUARE, ring(), ring(), None]
    assert [row["iscrowd"] for row in file["annotations"]] == [0, 0, 1, 0]
    assert [row["area"] for row in file["annotations"]] == [123.5, 300, 300, 300]


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        pytest.param(SQUARE, None, id="a polygon"),
        pytest.param(TWO_PARTS, "1 outlines of several parts are one polygon now", id="two parts"),
        pytest.param(OVERLAPPING, "1 outlines of several parts are one polygon now", id="parts that overlap"),
        pytest.param(
            ring(), "1 outlines of run-length code are polygons along their pixels now", id="code with a hole"
        ),
    ],
)
def test_yolo_has_the_same_masks(
    outline: Any, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [np.array(part, float).reshape(-1, 2) for part in outline] if isinstance(outline, list) else None
    code = to_rle(given, (40, 60)) if given else Rle(size=outline["size"], counts=outline["counts"].encode())
    mask = decode(code)
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [int(left), int(top), int(right - left + 1), int(bottom - top + 1)]
    source = dataset(tmp_path / "source", train=[annotation(1, segmentation=outline, bbox=box), annotation(2)])
    split = written(source, tmp_path / "yolo", to="yolo").splits["train"]
    assert split.segmentations is not None
    assert np.array_equal(decode(to_rle(split.segmentations[0], (40, 60))), mask)
    lines = (tmp_path / "yolo/labels/train/1.txt").read_text().splitlines()
    assert len(lines[1].split()) == 5, "an object without an outline stays a box"
    assert_same_objects(read_dataset(source).splits["train"], split)
    shown = capsys.readouterr().err
    assert said in shown if said else shown == ""


def test_what_yolo_cannot_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        annotation(1, iscrowd=1, segmentation=ring(), bbox=[12, 2, 36, 36]),
        annotation(2, segmentation=SQUARE, bbox=[5, 10, 25, 20]),
    ]
    split = written(dataset(tmp_path / "source", train=rows), tmp_path / "yolo", to="yolo").splits["train"]
    assert np.allclose(split.boxes_xywh, [[10, 10, 20, 20]])
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "rfdetr: warning: train: 1 crowd regions are left out: YOLO has none",
        "rfdetr: warning: train: 1 objects have the box around their outline now, which is more than a pixel from the "
        "one they had",
    ]


def test_outlines_are_left_out_on_request(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", train=[annotation(1, segmentation=SQUARE, bbox=[10, 10, 20, 20])])
    written(source, tmp_path / "coco", outlines=False)
    file = json.loads((tmp_path / "coco/train/_annotations.coco.json").read_text())
    assert "segmentation" not in file["annotations"][0]


def test_yolo_has_the_layout_of_ultralytics(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", ("a.png", "b/c.png"), train=boxes(), valid=[])
    written(source, tmp_path / "yolo", to="yolo")
    assert sorted(contents(tmp_path / "yolo")) == [
        "data.yaml",
        *("images/train/a.png", "images/train/b/c.png", "images/val/a.png", "images/val/b/c.png"),
        *("labels/train/a.txt", "labels/train/b/c.txt", "labels/val/a.txt", "labels/val/b/c.txt"),
    ]
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "cat", 1: "dog"},
    }
    assert (tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()[0] == "0 0.4166666667 0.625 0.5 0.25"


@pytest.mark.parametrize(
    ("names", "to", "expected"),
    [
        pytest.param(("a.jpg", "a.png"), "yolo", ["a.jpg", "a_2.png"], id="labels are found by the name"),
        pytest.param(("a.jpg", "a.png"), "coco", ["a.jpg", "a.png"], id="in COCO by the whole name"),
        pytest.param(("x/images/a.png", "x/a.png"), "yolo", ["x/a.png", "x/a_2.png"], id="images has a meaning"),
        pytest.param(("../a.png", "a.png"), "coco", ["a.png", "a_2.png"], id="outside of the split's folder"),
        pytest.param((".h/a.png", "b.png"), "yolo", ["_.h/a.png", "b.png"], id="hidden folders"),
        pytest.param(("a", "b.v2"), "yolo", ["a.png", "b.v2.png"], id="without a suffix"),
        pytest.param(("a", "b.v2"), "coco", ["a", "b.v2"], id="which COCO does not need"),
    ],
)
def test_names_are_kept_where_the_format_allows(
    names: tuple[str, str], to: str, expected: list[str], tmp_path: Path
) -> None:
    rows = [annotation(n, image_id=n, bbox=[n, n, 10 * n, 10]) for n in (1, 2)]
    source = dataset(tmp_path / "source", names, train=rows)
    found = objects(written(source, tmp_path / "new", to=to).splits["train"])
    assert sorted(found) == sorted(expected)
    assert [round(found[name][0][1][2]) for name in expected] == [10, 20], "each has the objects of its own"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_picture_whose_boxes_ignore_its_orientation_is_turned_for_yolo(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_coco(tmp_path / "source", images=[image(1, file_name=f"turned.{suffix}"), image(2)])
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / f"train/turned.{suffix}", exif=exif)
    before = read_dataset(source).splits["train"]
    yolo = written(source, tmp_path / "yolo", to="yolo").splits["train"]
    assert yolo.size_hw(1) == before.size_hw(0) == (40, 60)
    assert np.array_equal(np.asarray(yolo.pictures.load(1)), np.asarray(before.pictures.load(0))), "without loss"
    assert "1 pictures, whose boxes were drawn without their EXIF orientation" in capsys.readouterr().err
    # COCO says the size that the boxes refer to, so that there it can stay as it is.
    convert(ConvertConfig(dataset_dir=source, output_dir=tmp_path / "coco"))
    copied = tmp_path / "coco/train" / f"turned.{suffix}"
    assert copied.read_bytes() == (source / f"train/turned.{suffix}").read_bytes()


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_pictures_may_be_linked(to: str, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source")
    picture = source / "train/1.png"
    place = "train/1.png" if to == "coco" else "images/train/1.png"
    written(source, tmp_path / "hard", to=to, link="hard")
    assert (tmp_path / "hard" / place).samefile(picture)
    assert not (tmp_path / "hard" / place).is_symlink()
    written(source, tmp_path / "symbolic", to=to, link="symbolic")
    assert os.readlink(tmp_path / "symbolic" / place) == str(picture)  # noqa: PTH115


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(
            "full", r"output_dir: \S*full is there already. Name a folder that is not, or an empty one", id="full"
        ),
        pytest.param("source", r"output_dir: \S*source is there already", id="the dataset"),
        pytest.param(
            "source/new", r"output_dir: \S*new lies in the dataset \S*source, whose files", id="in the dataset"
        ),
        pytest.param("link/new", r"output_dir: \S*new lies in the dataset \S*source, whose files", id="through a link"),
        pytest.param("full/file/new", r"output_dir: \S*new: cannot be written: ", id="below a file"),
    ],
)
def test_what_is_there_is_never_written_over(output: str, message: str, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "link").symlink_to(source)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=message):
        convert(ConvertConfig(dataset_dir=source, output_dir=tmp_path / output))
    assert contents(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    written(dataset(tmp_path / "source"), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]


def test_a_dataset_with_errors_is_refused_and_warnings_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_coco(tmp_path / "source", annotations=[annotation(1), annotation(2, bbox=[0, 0, 0, 5])])
    convert(ConvertConfig(dataset_dir=source, output_dir=tmp_path / "new"))
    assert "boxes without width or height (left out)" in capsys.readouterr().err
    (source / "train/_annotations.coco.json").write_text("{")
    with pytest.raises(DatasetError, match=r"_annotations.coco.json: not JSON: the file ends too early in line 1"):
        convert(ConvertConfig(dataset_dir=source, output_dir=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "a/new") as folder:
            (folder / "half").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill()
    assert list((tmp_path / "a").iterdir()) == []


def test_classes_of_other_splits_follow_those_of_the_first(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", train=boxes())
    other = [{**row, "id": 10 - row["id"]} for row in CAT_AND_DOG]
    rows = [annotation(1, category_id=7, bbox=[1, 1, 5, 5]), annotation(2, category_id=3, bbox=[2, 2, 6, 6])]
    write_coco(source, "valid", annotations=rows, categories=other)
    split = written(source, tmp_path / "yolo", to="yolo").splits["valid"]
    assert objects(split)["1.png"][0][0] == 0, "a cat, whose id is 7 in this split"
    assert_same_objects(read_dataset(source).splits["valid"], split)
