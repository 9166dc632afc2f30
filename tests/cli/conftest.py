from pathlib import Path

import pytest

from rfdetr.classes import ClassTable
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint

from ..training.tiny import TINY


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights of a tiny model for four shapes."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    classes = ClassTable.from_categories(enumerate(["circle", "rectangle", "triangle", "star"]))
    save_checkpoint(path, Checkpoint(Detector(TINY).state_dict(), TINY, classes))
    return path
