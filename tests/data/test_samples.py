import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rfdetr.config.runs import TrainConfig
from rfdetr.data.reading import read_dataset, read_split
from rfdetr.data.resampling import picture_hw
from rfdetr.errors import ConfigError, DatasetError
from rfdetr.masks import decode, to_rle

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOXES = np.array([[10, 20, 40, 30], [1, 2, 3, 4]], np.float32)
MASKS = np.zeros((2, 40, 60), bool)
MASKS[0, 20:30, 10:40] = MASKS[1, 2:4, 1:3] = True


class Pets(torch.utils.data.Dataset[Any]):
    classes = ("cat", "dog")

    def __init__(self, *samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def warnings(dataset: Any) -> list[str]:
    return [str(problem) for problem in read_dataset(dataset, ["train"]).problems]


def test_objects_of_a_sample_are_those_of_the_image(tmp_path: Path) -> None:
    split = read_split(Pets((PIXELS, BOXES, [1, 0]), (PIXELS[:20], [], [])), "train")
    assert split.classes.names == ("cat", "dog")
    assert split.sizes_hw.tolist() == [[40, 60], [20, 60]]
    assert split.offsets.tolist() == [0, 2, 2]
    assert split.training_objects(0).boxes.tolist() == BOXES.tolist()
    assert split.training_objects(0).labels.tolist() == [1, 0]
    assert np.asarray(split.pictures.load(0)).tolist() == PIXELS.tolist()
    assert split.pictures.name(1) == "sample 1 of tests.data.test_samples.Pets"


def forms(folder: Path) -> dict[str, Any]:
    Image.fromarray(PIXELS).save(folder / "a.png")
    return {
        "PIL": Image.fromarray(PIXELS),
        "array": PIXELS,
        "tensor": torch.from_numpy(PIXELS).permute(2, 0, 1),
        "path": folder / "a.png",
        "text": str(folder / "a.png"),
    }


@pytest.mark.parametrize("form", ["PIL", "array", "tensor", "path", "text"])
def test_forms_of_pictures(tmp_path: Path, form: str) -> None:
    split = read_split([(forms(tmp_path)[form], torch.from_numpy(BOXES), torch.tensor([0, 1]))], "train")
    picture = split.pictures.load(0)
    assert picture_hw(picture) == (40, 60)
    assert np.asarray(picture).tolist() == PIXELS.tolist()
    assert picture_hw(split.pictures.load(0, at_least=20)) == (20, 30)


def test_many_channels_of_sixteen_bits_stay_as_they_are() -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (40, 60, 5), dtype=np.uint16)
    split = read_split([(deep, BOXES, [0, 0])], "train")
    assert np.asarray(split.pictures.configured(5, None).load(0)).tolist() == deep.tolist()


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        (["owl", "ant"], ("ant", "owl"), [1, 0]),
        ([2, 0], ("class 0", "class 1", "class 2"), [2, 0]),
    ],
)
def test_classes_without_a_list_of_names(labels: Any, names: tuple[str, ...], found: list[int]) -> None:
    split = read_split([(PIXELS, BOXES, labels)], "train")
    assert split.classes.names == names
    assert split.labels.tolist() == found


def test_masks_are_the_given_pixels() -> None:
    split = read_split(Pets((PIXELS, BOXES, [0, 1], MASKS)), "train", masks=True)
    outlines = split.training_objects(0).segmentations or []
    assert [decode(to_rle(outline, (40, 60))).tolist() for outline in outlines] == MASKS.tolist()


def test_a_mapping_has_a_dataset_for_each_split() -> None:
    dataset = read_dataset({"train": Pets((PIXELS, BOXES, [0, 1])), "val": Pets((PIXELS, BOXES[:1], ["dog"]))})
    assert {name: len(split.labels) for name, split in dataset.splits.items()} == {"train": 2, "valid": 1}
    assert dataset.format == "python"
    assert dataset.missing == ["test"]


@pytest.mark.parametrize(
    ("sample", "complaint"),
    [
        (PIXELS, "expected (image, boxes, labels) or (image, boxes, labels, masks), got "),
        ((PIXELS, BOXES, [0]), "2 boxes, but 1 labels"),
        ((PIXELS, BOXES, [0, 2]), "label 2; allowed: 0 to 1"),
        ((PIXELS, BOXES, [0, 0.5]), "label 0.5; allowed: 0 to 1"),
        ((PIXELS, BOXES, ["cat", "cow"]), "label 'cow' is none of its classes"),
        ((PIXELS, BOXES, [0, 1], MASKS[:1]), "masks of shape (1, 40, 60); expected (2, 40, 60)"),
        (("gone.png", BOXES, [0, 1]), "gone.png: no such file"),
        ((None, BOXES, [0, 1]), ""),
    ],
)
def test_a_sample_of_another_form_is_named_and_left_out(sample: Any, complaint: str) -> None:
    good = (PIXELS, BOXES, [0, 1])
    (line,) = warnings(Pets(good, sample, good))
    assert line.startswith(
        f"tests.data.test_samples.Pets (train): samples that cannot be used (left out) (1): 1: {complaint}"
    )
    assert read_split(Pets(good, sample, good), "train").image_ids.tolist() == [0, 2]


def test_boxes_follow_the_rules_for_files() -> None:
    assert warnings([(PIXELS, np.array([[5, 5, 5, 9], [5, 5, 9, 9.0], [6, 6, 9, 9]]), [0, 0, 0])]) == [
        "list (train): boxes without width or height (left out) (1): sample 0 object 0 has [5, 5, 0, 4]"
    ]


def test_fractions_are_recognised() -> None:
    with pytest.raises(DatasetError, match=r"100% of the boxes look like fractions .* Boxes are \[x1, y1, x2, y2\] in"):
        read_split([(PIXELS, BOXES / 100, [0, 0])], "train")


def test_a_dataset_of_another_form_is_refused() -> None:
    with pytest.raises(DatasetError, match=re.escape("2 of 2 samples cannot be used")):
        read_split(Pets(PIXELS, PIXELS), "train")
    with pytest.raises(DatasetError, match="no samples"):
        read_split([], "train")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (5, "dataset_dir: expected a folder or a sequence of samples, got 5"),
        ({"training": []}, "dataset_dir: expected datasets under 'train', 'valid' and 'test', got ['training']"),
        ({"train": "folder"}, "dataset_dir: expected a folder or a sequence of samples under 'train', got 'folder'"),
        ("python:my.Pets", "dataset_dir: was my.Pets, which a file cannot hold; give it again in Python"),
        ("", "dataset_dir: must not be empty"),
    ],
)
def test_what_is_no_dataset_is_said_before_anything_else(value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        TrainConfig(dataset_dir=value)


def test_other_processes_have_to_find_the_class_of_a_dataset() -> None:
    own = type("Own", (Pets,), {"__module__": "__main__"})()
    complaint = "dataset_dir: the class of a dataset is of the script itself, and devices=2 needs other processes"
    for dataset in [own, {"train": own}]:
        assert TrainConfig(dataset_dir=dataset).devices == 1
        with pytest.raises(ConfigError, match=complaint):
            TrainConfig(dataset_dir=dataset, devices=2)
    assert TrainConfig(dataset_dir=Pets(), devices=2).devices == 2


def test_settings_name_the_dataset_and_do_not_copy_it() -> None:
    assert TrainConfig(dataset_dir=Pets()).plain()["dataset_dir"] == "python:tests.data.test_samples.Pets"
    assert TrainConfig(dataset_dir={"train": [1]}).plain()["dataset_dir"] == "python:dict"
