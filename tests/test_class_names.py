"""class_names: other names for the classes of a dataset."""

import json
from pathlib import Path
from typing import Any

import pytest

from rfdetr import RFDETR, ConfigError, DatasetError
from rfdetr.classes import ClassTable

from .data.tiny_coco import write_coco
from .test_lifecycle import STILL, written

NAMES = ("Katze", "Hund")


@pytest.fixture
def model(tmp_path: Path) -> RFDETR:
    return RFDETR.from_checkpoint(written(tmp_path / "untrained.pth"), device="cpu")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Of the classes cat, category 3, and dog, category 7."""
    for split in ("train", "valid", "test"):
        write_coco(tmp_path / "data", split)
    return tmp_path / "data"


def test_names_are_given_by_position_and_stay(model: RFDETR, dataset: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**STILL, "run_test": True, "class_names": list(NAMES)}
    result = model.train(dataset_dir=dataset, output_dir=tmp_path / "run", **settings)
    assert result.history[0].keys() >= {"val/AP/Katze", "val/AP/Hund"}
    assert list(result.metrics["test"]["per_class"]) == list(NAMES)
    model.save(tmp_path / "mine.pth")
    for file in (result.best_checkpoint, tmp_path / "mine.pth"):
        opened = RFDETR.from_checkpoint(file, device="cpu")
        assert opened.classes == model.classes == ClassTable((3, 7), NAMES, (0, 1))
        found = opened.predict(dataset / "test" / "1.png", threshold=0.0)
        assert set(found.data["class_name"]) <= {*NAMES, "__background__"}
    with pytest.raises(DatasetError, match="Only in the dataset: cat, dog; only in the model: Katze, Hund"):
        opened.evaluate(dataset_dir=dataset)
    evaluated = opened.evaluate(dataset_dir=dataset, class_names=NAMES, output_dir=tmp_path, num_workers=0)
    assert list(evaluated.per_class) == list(NAMES)
    assert {row["category_id"] for row in json.loads((tmp_path / "predictions_test.json").read_text())} <= {3, 7}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(
            ("a", "b", "c"),
            "class_names: 3 names for 2 classes (cat, dog); give one for each, in this order",
            id="too many",
        ),
        pytest.param(
            ("dog", "cat"),
            "class_names: the dataset has the same names in another order: cat, dog. "
            "Names are given by position; leave class_names out",
            id="another order",
        ),
        pytest.param(
            ("pet", "pet"),
            "Config: class_names: each class needs a name of its own, but 'pet' is there twice",
            id="one name twice",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(
    names: tuple[str, ...], message: str, model: RFDETR, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as of_training:
        model.train(dataset_dir=dataset, output_dir=tmp_path / "run", class_names=names)
    with pytest.raises(ConfigError) as of_evaluation:
        model.evaluate(dataset_dir=dataset, class_names=names)
    assert str(of_training.value).endswith(message)
    assert str(of_evaluation.value).endswith(message)
    assert not (tmp_path / "run").exists()
