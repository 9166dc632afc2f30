from pathlib import Path

import pytest
import torch

from rfdetr.data.collation import on_device
from rfdetr.data.loading import evaluation_loader
from rfdetr.data.reading import read_split
from rfdetr.models.criterion import detection_losses
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import EMA, REGULAR
from rfdetr.training.validation import ValidationLoss

from .tiny import CPU, TINY, tiny_config

TINY_SEG = TINY.replace(size="seg-nano", segmentation_head=True)


@torch.inference_mode()
def losses(shapes: Path, batch_size: int) -> dict[str, float]:
    """Of random weights on the training split."""
    detector = Detector(TINY).eval()
    validation = ValidationLoss(CPU, tiny_config(shapes, shapes))
    for batch in evaluation_loader(read_split(shapes, "train"), 64, batch_size=batch_size, num_workers=0):
        outputs = detector(on_device(batch, CPU).images)
        validation.add(REGULAR, outputs, batch)
        validation.add(EMA, outputs, batch)  # does not count
    return validation.means()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_loss_of_a_split_does_not_depend_on_its_batches(batch_size: int, shapes: Path) -> None:
    assert losses(shapes, batch_size) == pytest.approx(losses(shapes, 8), rel=1e-4)


@torch.inference_mode()
def test_it_is_that_of_the_criterion_over_all_objects(shapes: Path) -> None:
    (batch,) = evaluation_loader(read_split(shapes, "train"), 64, batch_size=8, num_workers=0)
    num_boxes = torch.tensor(float(sum(len(target["labels"]) for target in batch.targets)))
    terms = detection_losses(Detector(TINY).eval()(on_device(batch, CPU).images), batch.targets, num_boxes, groups=1)
    found = losses(shapes, 8)
    assert found["loss_giou"] == pytest.approx(terms["loss_giou"].item(), rel=1e-5)
    assert found["loss_giou_aux"] == pytest.approx((terms["loss_giou_0"] + terms["loss_giou_enc"]).item(), rel=1e-5)
    total = sum({"ce": 1, "bbox": 5, "giou": 2}[name.split("_")[1]] * value.item() for name, value in terms.items())
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_nothing_added_gives_nothing(shapes: Path) -> None:
    assert ValidationLoss(CPU, tiny_config(shapes, shapes)).means() == {}


@torch.inference_mode()
def mask_losses(shapes: Path, batch_size: int) -> dict[str, float]:
    detector = Detector(TINY_SEG).eval()
    validation = ValidationLoss(CPU, tiny_config(shapes, shapes))
    split = read_split(shapes, "valid", masks=True)
    for batch in evaluation_loader(split, 64, batch_size=batch_size, num_workers=0):
        validation.add(REGULAR, detector(on_device(batch, CPU).images), batch)
    return validation.means()


def test_losses_of_masks_are_the_same_every_time_and_about_the_same_for_other_batches(shapes: Path) -> None:
    first = mask_losses(shapes, 2)
    state = torch.random.get_rng_state()
    assert mask_losses(shapes, 2) == first
    assert torch.equal(torch.random.get_rng_state(), state)  # the rest of the run does not notice
    assert {name.removesuffix("_aux") for name in first} >= {"loss_mask_ce", "loss_mask_dice", "loss_ce", "loss"}
    assert mask_losses(shapes, 1) == pytest.approx(first, rel=0.2)
