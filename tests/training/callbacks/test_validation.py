from pathlib import Path

import pytest
import torch

from rfdetr.data.coco import read_coco
from rfdetr.data.loading import evaluation_loader
from rfdetr.models.criterion import detection_losses
from rfdetr.models.detector import Detector
from rfdetr.training.callbacks.validation import ValidationLoss
from rfdetr.training.epoch import EMA, REGULAR

from ..tiny import CPU, TINY, tiny_config


@torch.inference_mode()
def losses(shapes: Path, batch_size: int) -> dict[str, float]:
    """Of random weights on the training split."""
    detector = Detector(TINY).eval()
    validation = ValidationLoss(CPU, tiny_config(shapes, shapes))
    for batch in evaluation_loader(read_coco(shapes, "train"), 64, batch_size=batch_size, num_workers=0):
        outputs = detector(batch.images)
        validation.add(REGULAR, outputs, batch)
        validation.add(EMA, outputs, batch)  # does not count
    return validation.means()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_loss_of_a_split_does_not_depend_on_its_batches(batch_size: int, shapes: Path) -> None:
    assert losses(shapes, batch_size) == pytest.approx(losses(shapes, 8), rel=1e-4)


@torch.inference_mode()
def test_it_is_that_of_the_criterion_over_all_objects(shapes: Path) -> None:
    (batch,) = evaluation_loader(read_coco(shapes, "train"), 64, batch_size=8, num_workers=0)
    num_boxes = torch.tensor(float(sum(len(target["labels"]) for target in batch.targets)))
    terms = detection_losses(Detector(TINY).eval()(batch.images), batch.targets, num_boxes, groups=1)
    found = losses(shapes, 8)
    assert found["loss_giou"] == pytest.approx(terms["loss_giou"].item(), rel=1e-5)
    assert found["loss_giou_aux"] == pytest.approx((terms["loss_giou_0"] + terms["loss_giou_enc"]).item(), rel=1e-5)
    total = sum({"ce": 1, "bbox": 5, "giou": 2}[name.split("_")[1]] * value.item() for name, value in terms.items())
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_nothing_added_gives_nothing(shapes: Path) -> None:
    assert ValidationLoss(CPU, tiny_config(shapes, shapes)).means() == {}
