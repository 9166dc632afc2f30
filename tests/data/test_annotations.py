import pickle
from pathlib import Path

from rfdetr.data.coco import read_coco

from .tiny_coco import annotation, write_coco


def test_training_objects_are_clipped_and_those_without_area_or_individuals_left_out(tmp_path: Path) -> None:
    rows = [
        annotation(1, bbox=[10, 20, 30.5, 10], category_id=7),
        annotation(2, bbox=[-5, 30, 10, 20]),
        annotation(3, bbox=[5, 5, 0, 10]),
        annotation(4, bbox=[60, 0, 10, 10]),
        annotation(5, iscrowd=1),
    ]
    split = read_coco(write_coco(tmp_path, annotations=rows), "train")
    boxes, labels = split.training_objects(0)
    assert boxes.tolist() == [[10, 20, 40.5, 30], [0, 30, 5, 40]]
    assert labels.tolist() == [1, 0]


def test_an_image_without_objects(tmp_path: Path) -> None:
    boxes, labels = read_coco(write_coco(tmp_path), "train").training_objects(1)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)


def test_sent_to_another_process_it_is_the_same(tmp_path: Path) -> None:
    split = read_coco(write_coco(tmp_path), "train")
    copy = pickle.loads(pickle.dumps(split))
    assert copy.image_path(1) == split.image_path(1)
    assert copy.training_objects(0)[0].equal(split.training_objects(0)[0])
