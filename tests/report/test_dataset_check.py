from pathlib import Path

from rfdetr.config.presets import PRESETS
from rfdetr.data.reading import read_dataset
from rfdetr.report.dataset_check import brief

from ..data.tiny_coco import annotation, image, write_coco


def test_the_start_of_training_says_a_line_per_split_and_what_is_remarkable(tmp_path: Path) -> None:
    root = write_coco(tmp_path, annotations=[annotation(1), annotation(2), annotation(3)])
    write_coco(root, "valid", images=[image(1)], annotations=[annotation(1, category_id=7, bbox=[0, 0, 30, 0.4])])
    splits = read_dataset(root).splits
    model = PRESETS["nano"].replace(num_queries=2, num_select=2)
    assert brief(splits, model, eval_max_dets=500) == [
        "train: 2 images, 3 objects, 1 of the images without objects, 1 of 2 classes without objects",
        "valid: 1 images, 1 objects, 1 of 2 classes without objects",
        "1 image has more objects than num_queries=2 and num_select=2: up to 3",
        "25% of the boxes are narrower than 8 pixels at 384",
    ]
