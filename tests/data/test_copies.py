import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from rfdetr.data.copies import Copies, find_copies, report_copies
from rfdetr.data.duplicates import equal_files, groups_of, similar_pairs
from rfdetr.data.problems import Problems
from rfdetr.data.reading import read_dataset
from rfdetr.data.thumbnails import SIDE

from .tiny_coco import image, write_coco


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture of soft blots and hard edges, different for each seed."""
    rng = np.random.default_rng(seed)
    blots = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.array(blots)
    for _ in range(4):
        x, y = rng.integers(0, width - 80), rng.integers(0, height - 80)
        pixels[y : y + 80, x : x + 60] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def write_scenes(root: Path, **splits: dict[str, Image.Image]) -> Path:
    for split, pictures in splits.items():
        rows = [
            image(row, file_name=name, width=own.width, height=own.height)
            for row, (name, own) in enumerate(pictures.items())
        ]
        write_coco(root, split, images=rows, annotations=[{**ONE, "image_id": 0}])
        for name, own in pictures.items():
            own.save(root / split / name, quality=90)
    return root


ONE = {"id": 1, "category_id": 3, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}


def copies_of(root: Path) -> Copies:
    return find_copies(read_dataset(root).splits, in_full=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda own: own.resize((200, 150)), id="smaller"),
        pytest.param(lambda own: ImageEnhance.Brightness(own).enhance(0.8), id="darker"),
        pytest.param(lambda own: ImageOps.grayscale(own).convert("RGB"), id="grey"),
        pytest.param(ImageOps.mirror, id="mirrored"),
        pytest.param(lambda own: own.rotate(90, expand=True), id="turned"),
    ],
)
def test_a_changed_copy_of_a_training_picture_in_validation_is_found(
    change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    train = {f"{seed}.jpg": scene(seed) for seed in range(6)}
    root = write_scenes(tmp_path, train=train, valid={"other.jpg": scene(7), "copy.jpg": change(scene(3))})
    ((splits, ((valid, of_train),)),) = copies_of(root).leaked.items()
    assert splits == ("valid", "train")
    assert (valid.name, of_train.name) == ("copy.jpg", "3.jpg")


def test_pictures_of_the_same_place_are_no_copies(tmp_path: Path) -> None:
    """A camera that does not move, and something small that does."""
    background = np.array(scene(1))
    frames = {}
    for number in range(4):
        frame = background.copy()
        frame[100:130, 40 + 60 * number : 70 + 60 * number] = (255, 255, 0)
        frames[f"{number}.jpg"] = Image.fromarray(frame)
    found = copies_of(write_scenes(tmp_path, train=frames))
    assert (found.equal, found.similar) == ([], [])


def test_equal_files_are_named_once_and_not_as_similar_ones(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, train={"a.jpg": scene(1), "b.jpg": scene(2)}, valid={"c.jpg": scene(3)})
    shutil.copy(root / "train" / "a.jpg", root / "train" / "b.jpg")
    shutil.copy(root / "train" / "a.jpg", root / "valid" / "c.jpg")
    dataset = read_dataset(root)
    found = copies_of(root)
    assert [[place.name for place in group] for group in found.equal] == [["a.jpg", "b.jpg", "c.jpg"]]
    assert found.similar == []
    assert found.surplus(found.equal) == {"train": 1}
    problems = Problems()
    report_copies(found, dataset.splits, problems)
    assert [str(problem) for problem in problems.found] == [
        f"{root}/valid/_annotations.coco.json: pictures that are in 'train' too (leakage: what is measured on them "
        "says nothing) (1): valid/c.jpg = train/a.jpg",
        f"{root}/train/_annotations.coco.json: pictures that are there more than once (files of equal content) (1): "
        "train/b.jpg = train/a.jpg",
    ]


def test_blank_pictures_are_not_like_each_other() -> None:
    thumbnails = np.random.default_rng(0).integers(100, 103, (20, SIDE, SIDE), dtype=np.uint8)
    assert len(similar_pairs(thumbnails, np.zeros(20, np.bool_))) == 0


def test_many_equal_pictures_are_one_group_found_in_no_time() -> None:
    thumbnails = np.repeat(np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8), 1000, axis=0)
    (group,) = groups_of(similar_pairs(thumbnails, np.zeros(1000, np.bool_)))
    assert group == list(range(1000))


def test_files_of_the_same_size_and_start_differ_by_their_end(tmp_path: Path) -> None:
    contents = [b"x" * 100_000 + end for end in (b"a", b"b", b"a")] + [b"", b""]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert equal_files([*paths, tmp_path / "missing"]) == [[0, 2]]


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, train={"a.jpg": scene(1), "b.jpg": scene(2)})
    damaged = root / "train" / "b.jpg"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    found = find_copies(read_dataset(root).splits, in_full=True)
    ((place, reason),) = found.unreadable
    assert place.name == "b.jpg"
    assert "truncated" in reason
    problems = Problems()
    report_copies(found, read_dataset(root).splits, problems)
    (problem,) = problems.found
    assert (problem.severity, problem.file) == ("warning", str(damaged))
    assert problem.message.startswith(
        "pictures that cannot be decoded (training skips them) (1): b.jpg: cannot be read"
    )


def test_without_time_it_is_a_sample_and_says_so(tmp_path: Path) -> None:
    splits = read_dataset(write_scenes(tmp_path, train={"a.jpg": scene(1)})).splits
    assert find_copies(splits, in_full=False, seconds=-1).is_sample
    assert not find_copies(splits, in_full=True, seconds=-1).is_sample


def test_a_test_split_for_which_validation_stands_in_is_no_leak(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, train={"a.jpg": scene(1)}, valid={"b.jpg": scene(2)})
    splits = read_dataset(root).splits
    assert find_copies({**splits, "test": splits["valid"]}, in_full=False).leaked == {}
    assert find_copies({**splits, "test": splits["train"]}, in_full=False).leaked.keys() == {("test", "train")}
