from pathlib import Path

import numpy as np
import pytest

from rfdetr.data.reading import read_split
from rfdetr.data.statistics import size_shares, statistics

from .tiny_coco import annotation, image, write_coco


def test_the_objects_are_those_of_training(tmp_path: Path) -> None:
    annotations = [
        annotation(1),
        annotation(2, bbox=[50, 30, 40, 40], category_id=7),  # half outside
        annotation(3, iscrowd=1),
        annotation(4, image_id=2, bbox=[0, 0, 60, 40], category_id=7),
    ]
    split = read_split(write_coco(tmp_path, images=[image(1), image(2)], annotations=annotations), "train")
    numbers = statistics(split)
    for row in range(len(split)):
        objects = split.training_objects(row)
        assert numbers.boxes[numbers.images == row].tolist() == objects.boxes.tolist()
        assert numbers.labels[numbers.images == row].tolist() == objects.labels.tolist()
    assert (numbers.num_images, numbers.num_objects, numbers.num_crowd, numbers.num_empty) == (2, 3, 1, 0)
    assert numbers.objects_per_class.tolist() == [1, 2]
    assert numbers.images_per_class.tolist() == [1, 2]


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    numbers = statistics(read_split(write_coco(tmp_path), "train"))
    assert numbers.objects_per_image.tolist() == [1, 0]
    assert numbers.num_empty == 1


def test_boxes_have_the_size_that_they_get_when_the_image_is_squeezed_to_a_square(tmp_path: Path) -> None:
    numbers = statistics(read_split(write_coco(tmp_path), "train"))
    # 30 x 10 of 60 x 40 pixels.
    assert numbers.box_sizes(400).tolist() == [[200, 100]]


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ([], (0, 0, 0, 0)),
        ([[31, 31], [32, 32], [96, 96], [97, 97]], (0.25, 0.5, 0.25, 0)),
        ([[7.9, 200], [8, 8]], (0.5, 0.5, 0, 0.5)),
    ],
    ids=["none", "as COCO parts them", "narrow is the shorter side"],
)
def test_shares_of_sizes(sizes: list[list[float]], shares: tuple[float, ...]) -> None:
    found = size_shares(np.array(sizes, float).reshape(-1, 2), 576)
    assert (found.small, found.medium, found.large, found.narrow) == shares
