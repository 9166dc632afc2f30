import pickle
from pathlib import Path

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.data.reading import read_split
from rfdetr.masks import from_runs

from .packing import path_of
from .tiny_coco import annotation, category, write_coco

OUTLINED = annotation(1, segmentation=[[10, 20, 40, 20, 40, 30]])


def test_training_objects_are_clipped_and_those_without_area_or_individuals_left_out(tmp_path: Path) -> None:
    rows = [
        annotation(1, bbox=[10, 20, 30.5, 10], category_id=7),
        annotation(2, bbox=[-5, 30, 10, 20]),
        annotation(3, bbox=[5, 5, 0, 10]),
        annotation(4, bbox=[60, 0, 10, 10]),
        annotation(5, iscrowd=1),
    ]
    split = read_split(write_coco(tmp_path, annotations=rows), "train")
    objects = split.training_objects(0)
    assert objects.boxes.tolist() == [[10, 20, 40.5, 30], [0, 30, 5, 40]]
    assert objects.labels.tolist() == [1, 0]
    assert objects.segmentations is None


def test_each_box_has_its_own_mask(tmp_path: Path) -> None:
    rows = [
        annotation(1, image_id=2, bbox=[1, 1, 8, 8], segmentation=[[1, 1, 9, 1, 9, 9]]),
        annotation(2, iscrowd=1),
        annotation(3, bbox=[3, 3, 6, 6], segmentation=[[3, 3, 9, 3, 9, 9]]),
        annotation(4, bbox=[60, 0, 10, 10], segmentation=[[62, 2, 68, 2, 68, 8]]),
        annotation(5, segmentation={"size": [40, 60], "counts": [422, 2, 1976]}),
    ]
    split = read_split(write_coco(tmp_path, annotations=rows), "train", masks=True)
    polygons, code = split.training_objects(0).segmentations or []
    assert isinstance(polygons, list)
    assert polygons[0].tolist() == [[3, 3], [9, 3], [9, 9]]
    assert code == from_runs([422, 2, 1976], (40, 60))


def test_an_image_without_objects(tmp_path: Path) -> None:
    objects = read_split(write_coco(tmp_path, annotations=[OUTLINED]), "train", masks=True).training_objects(1)
    assert objects.boxes.shape == (0, 4)
    assert objects.labels.shape == (0,)
    assert objects.segmentations == []


def test_sent_to_another_process_it_is_the_same(tmp_path: Path) -> None:
    split = read_split(write_coco(tmp_path, annotations=[OUTLINED]), "train", masks=True)
    copy = pickle.loads(pickle.dumps(split))
    assert path_of(copy, 1) == path_of(split, 1)
    ours, theirs = split.training_objects(0), copy.training_objects(0)
    np.testing.assert_equal(theirs.boxes, ours.boxes)
    np.testing.assert_equal(theirs.segmentations, ours.segmentations)


def test_the_same_objects_under_another_class_table(tmp_path: Path) -> None:
    """As for a dataset with the classes of COCO, whose class ids are COCO's, or with them in another order."""
    categories = [category(5, "car"), category(9, "bus"), category(7, "tram")]
    rows = [annotation(1, category_id=9), annotation(2, category_id=5), annotation(3, category_id=7)]
    write_coco(tmp_path, annotations=rows, categories=categories)
    split = read_split(tmp_path, "train")
    moved = split.with_classes(ClassTable((1, 2, 3, 4), ("tram", "bike", "car", "bus"), (1, 2, 3, 5)))
    assert moved.labels.tolist() == [5, 3, 1]
    assert moved.category_id_of == {5: 9, 3: 5, 1: 7}
