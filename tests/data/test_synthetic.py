import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rfdetr.config.runs import Split
from rfdetr.data.images import decode
from rfdetr.data.layout import SPLITS
from rfdetr.data.reading import read_split
from rfdetr.data.resampling import picture_hw
from rfdetr.data.synthetic import IMAGE_SIZE, SHAPES, draw_dataset, draw_image
from rfdetr.errors import DatasetError

from .packing import path_of


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_one_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_dataset(tmp_path / name, train_images=4, seed=seed)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


@pytest.mark.parametrize(("split", "count"), [("train", 9), ("valid", 2), ("test", 2)])
def test_the_library_reads_it(tmp_path: Path, split: Split, count: int) -> None:
    draw_dataset(tmp_path, train_images=9, seed=0)
    annotations = read_split(tmp_path, split)
    assert len(annotations) == count
    assert annotations.classes.names == SHAPES
    assert all(picture_hw(decode(path_of(annotations, index))) == (IMAGE_SIZE, IMAGE_SIZE) for index in range(count))
    sizes = annotations.boxes_xywh[:, 2:].max(axis=1) / IMAGE_SIZE
    assert 0.19 < sizes.min() <= sizes.max() < 0.61
    assert (np.diff(annotations.offsets) >= 1).all()
    assert (np.diff(annotations.offsets) <= 6).all()


def test_shapes_are_seen_whole() -> None:
    for seed in range(15):
        _, shapes = draw_image(np.random.default_rng(seed))
        assert np.sum([shape.mask for shape in shapes], axis=0).max() == 1


def test_polygons_cover_their_masks() -> None:
    for seed in range(15):
        _, shapes = draw_image(np.random.default_rng(seed))
        for shape in shapes:
            canvas = Image.new("1", (IMAGE_SIZE, IMAGE_SIZE))
            ImageDraw.Draw(canvas).polygon([(x, y) for x, y in shape.corners - 0.5], fill=1)
            covered = np.asarray(canvas)
            assert (covered & shape.mask).sum() / (covered | shape.mask).sum() > 0.85


def test_boxes_and_areas_are_those_of_the_pixels(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train_images=1, seed=4)
    annotations = read_split(tmp_path, "train")
    _, shapes = draw_image(np.random.default_rng([4, 0, 0]))
    assert annotations.areas.tolist() == [shape.mask.sum() for shape in shapes]
    for shape, (x, y, width, height) in zip(shapes, annotations.boxes_xywh.astype(int), strict=True):
        inside = shape.mask[y : y + height, x : x + width]
        assert inside.sum() == shape.mask.sum()
        assert inside.any(axis=0).all()
        assert inside.any(axis=1).all()


def test_all_classes_are_about_as_frequent() -> None:
    labels = [shape.label for seed in range(60) for shape in draw_image(np.random.default_rng([0, seed]))[1]]
    assert np.bincount(labels).min() > 0.5 * np.bincount(labels).max()


def test_drawing_again_replaces_the_old_dataset_and_nothing_else(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train_images=8, seed=0)
    (tmp_path / "train/notes.txt").write_text("mine")
    draw_dataset(tmp_path, train_images=4, seed=0)
    assert (tmp_path / "train/notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "train").iterdir())) == 4 + 2
    assert len(read_split(tmp_path, "train")) == 4


def test_an_interrupted_drawing_can_be_repeated(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train_images=4, seed=0)
    (tmp_path / "train/_annotations.coco.json").unlink()
    draw_dataset(tmp_path, train_images=4, seed=0)
    assert len(read_split(tmp_path, "train")) == 4


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("photo.jpg", "", id="without annotations"),
        pytest.param("_annotations.coco.json", '{"info": {"description": "birds"}}', id="another dataset"),
        pytest.param("_annotations.coco.json", "[", id="broken annotations"),
    ],
)
def test_what_others_made_is_left_alone(tmp_path: Path, split: Split, name: str, content: str) -> None:
    (tmp_path / split).mkdir()
    (tmp_path / split / name).write_text(content)
    with pytest.raises(DatasetError) as error:
        draw_dataset(tmp_path, train_images=4, seed=0)
    assert str(error.value) == (
        f"{tmp_path / split}: already there, and not drawn by `rfdetr demo`. Choose another output_dir"
    )
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == [f"{split}/{name}"]
