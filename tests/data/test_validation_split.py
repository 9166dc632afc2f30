from pathlib import Path

import pytest
from PIL import Image

from rfdetr.data.annotations import Annotations
from rfdetr.data.reading import read_dataset, read_split
from rfdetr.data.validation_split import split_off, with_validation
from rfdetr.errors import ConfigError, DatasetError

from .tiny_coco import annotation, image, write_coco


def ten_images(root: Path) -> Path:
    rows = [annotation(number, image_id=number) for number in range(1, 11)]
    write_coco(root, images=[image(number) for number in range(1, 11)], annotations=rows)
    for number in range(3, 11):
        Image.new("RGB", (60, 40)).save(root / "train" / f"{number}.png")
    return root


def ids(split: Annotations) -> list[int]:
    return list(split.image_ids.tolist())


@pytest.mark.parametrize(("fraction", "sizes"), [(0.01, (9, 1)), (0.3, (7, 3)), (0.99, (1, 9))])
def test_images_are_taken_by_chance_and_always_the_same(
    tmp_path: Path, fraction: float, sizes: tuple[int, int]
) -> None:
    whole = read_split(ten_images(tmp_path), "train")
    train, valid = split_off(whole, fraction, seed=1)
    assert (len(train), len(valid)) == sizes
    assert sorted([*ids(train), *ids(valid)]) == list(range(1, 11))
    assert [valid.pictures.name(row) for row in range(len(valid))] == [f"{number}.png" for number in ids(valid)]
    assert ids(split_off(whole, fraction, seed=1)[1]) == ids(valid)
    assert valid.split == "valid"


def test_another_seed_takes_others(tmp_path: Path) -> None:
    whole = read_split(ten_images(tmp_path), "train")
    assert len({tuple(ids(split_off(whole, 0.3, seed)[1])) for seed in range(9)}) > 5


def test_a_part_of_the_training_images_is_never_taken_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = read_dataset(ten_images(tmp_path))
    with pytest.raises(DatasetError, match=r"no split 'valid', .* valid_fraction=0\.1 take a tenth"):
        with_validation(dataset, tmp_path, None, 0)
    splits = with_validation(dataset, tmp_path, 0.2, 5)
    assert {name: len(split) for name, split in splits.items()} == {"train": 8, "valid": 2}
    assert capsys.readouterr().out == (
        "validation: 2 of the training images (valid_fraction=0.2, valid_seed=5), 8 are left for training\n"
    )


def test_a_validation_split_is_used_and_not_made_twice(tmp_path: Path) -> None:
    dataset = read_dataset(write_coco(ten_images(tmp_path), "val"))
    assert with_validation(dataset, tmp_path, None, 0) == dataset.splits
    with pytest.raises(ConfigError, match=r"valid_fraction=0\.2: .* has a validation split; leave it out"):
        with_validation(dataset, tmp_path, 0.2, 0)


def test_there_has_to_be_something_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'train'\. There is: valid"):
        with_validation(read_dataset(write_coco(tmp_path, "valid")), tmp_path, None, 0)
    with pytest.raises(DatasetError, match="valid_fraction needs at least two training images"):
        with_validation(read_dataset(write_coco(tmp_path / "one", images=[image(1)])), tmp_path, 0.5, 0)
