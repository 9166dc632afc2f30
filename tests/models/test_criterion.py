import pytest
import torch

from rfdetr.models.criterion import detection_losses, kind_of, supervised_layers, total_loss
from rfdetr.models.mask_points import MaskSupervision
from rfdetr.types import LayerOutputs, MaskLogits, RawOutputs
from tests.tiny import random_mask_targets, random_outputs, random_targets, with_masks

WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
TWO = torch.tensor(2.0)


def outputs_of_three_layers() -> RawOutputs:
    aux: list[LayerOutputs] = [*(random_outputs(2, 6, seed=seed) for seed in (1, 2))]
    return {**random_outputs(2, 6), "aux_outputs": aux, "enc_outputs": random_outputs(2, 6, seed=3)}


def only(layer: LayerOutputs, image: int) -> RawOutputs:
    own = slice(image, image + 1)
    return {"pred_logits": layer["pred_logits"][own], "pred_boxes": layer["pred_boxes"][own]}


def test_all_layers_are_supervised_under_names_of_their_own() -> None:
    losses = detection_losses(outputs_of_three_layers(), random_targets([1, 1]), TWO, groups=1)
    assert list(losses) == [
        f"loss_{kind}{suffix}" for suffix in ("", "_0", "_1", "_enc") for kind in ("ce", "bbox", "giou")
    ]


def test_each_layer_is_scored_as_if_it_were_alone() -> None:
    outputs, targets = outputs_of_three_layers(), random_targets([3, 2])
    losses = detection_losses(outputs, targets, TWO, groups=2)
    for suffix, layer in supervised_layers(outputs).items():
        single: RawOutputs = {"pred_logits": layer["pred_logits"], "pred_boxes": layer["pred_boxes"]}
        alone = detection_losses(single, targets, TWO, groups=2)
        assert {name: losses[name + suffix].item() for name in alone} == {
            name: loss.item() for name, loss in alone.items()
        }


def test_losses_are_divided_by_the_given_number_of_boxes() -> None:
    outputs, targets = outputs_of_three_layers(), random_targets([3, 2])
    once, twice = (detection_losses(outputs, targets, torch.tensor(n), groups=1) for n in (1.0, 2.0))
    assert {name: loss.item() / 2 for name, loss in once.items()} == pytest.approx(
        {name: loss.item() for name, loss in twice.items()}
    )


def test_losses_of_two_images_are_the_sum_of_those_of_each() -> None:
    """What makes any split of a step into micro-batches give the same gradient."""
    layer, targets = random_outputs(2, 6), random_targets([3, 0])
    together = detection_losses(layer, targets, TWO, groups=1)
    apart = [detection_losses(only(layer, image), [targets[image]], TWO, groups=1) for image in range(2)]
    for name, loss in together.items():
        assert loss.item() == pytest.approx(sum(part[name].item() for part in apart), rel=1e-5)


def test_without_objects_only_the_classifier_is_trained() -> None:
    layer = random_outputs(2, 6)
    layer["pred_boxes"].requires_grad_()
    layer["pred_logits"].requires_grad_()
    losses = detection_losses(layer, random_targets([0, 0]), torch.tensor(1.0), groups=2)
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    total_loss(losses, WEIGHTS).backward()
    assert layer["pred_boxes"].grad is not None
    assert (layer["pred_boxes"].grad == 0).all()
    assert layer["pred_logits"].grad is not None
    assert (layer["pred_logits"].grad > 0).all()


def test_perfect_boxes_cost_nothing() -> None:
    targets = random_targets([2])
    layer = random_outputs(1, 2)
    layer["pred_boxes"][0] = targets[0]["boxes"]
    losses = detection_losses(layer, targets, TWO, groups=1)
    assert losses["loss_bbox"].item() == 0
    assert losses["loss_giou"].item() == pytest.approx(0, abs=1e-6)


def test_half_precision_outputs_are_scored_in_float32() -> None:
    layer = random_outputs(1, 4)
    layer["pred_logits"] = layer["pred_logits"].bfloat16()
    losses = detection_losses(layer, random_targets([2]), TWO, groups=1)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_the_total_weighs_all_layers_alike() -> None:
    losses = {"loss_ce": torch.tensor(1.0), "loss_bbox_0": torch.tensor(2.0), "loss_giou_enc": torch.tensor(3.0)}
    assert total_loss(losses, WEIGHTS) == 1 + 5 * 2 + 2 * 3


@pytest.mark.parametrize("name", ["loss_ce", "loss_ce_0", "loss_ce_11", "loss_ce_enc"])
def test_the_kind_of_a_loss(name: str) -> None:
    assert kind_of(name) == "loss_ce"


def mask_layer(seed: int = 0) -> RawOutputs:
    return with_masks(random_outputs(2, 6, seed=seed), seed)


def test_masks_are_supervised_in_every_layer() -> None:
    outputs: RawOutputs = {**mask_layer(), "aux_outputs": [mask_layer(1)], "enc_outputs": mask_layer(2)}
    losses = detection_losses(outputs, random_mask_targets([1, 1]), TWO, groups=1)
    kinds = ("ce", "bbox", "giou", "mask_ce", "mask_dice")
    assert list(losses) == [f"loss_{kind}{suffix}" for suffix in ("", "_0", "_enc") for kind in kinds]


def test_a_mask_that_is_right_and_sure_costs_little_and_its_opposite_much() -> None:
    targets = random_mask_targets([1])
    inside = targets[0]["masks"][:, 2::4, 2::4].float() * 2 - 1
    losses = []
    for sign in (1, -1):
        layer = random_outputs(1, 1)
        layer["pred_masks"] = MaskLogits(inside.unsqueeze(0), torch.full((1, 1, 1), 20.0 * sign), torch.zeros(1, 1))
        torch.manual_seed(0)
        losses.append(detection_losses(layer, targets, torch.ones(()), groups=1))
    right, wrong = losses
    # The points gather at the edge, where a coarse grid cannot be exact.
    assert right["loss_mask_ce"] < 2
    assert wrong["loss_mask_ce"] > 5
    assert right["loss_mask_dice"] < 0.3
    assert wrong["loss_mask_dice"] > 0.8


def test_points_of_the_losses_are_those_of_the_generator() -> None:
    """A step is repeatable, and steps differ."""
    totals = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses = detection_losses(mask_layer(), random_mask_targets([2, 1]), TWO, groups=1)
        totals.append(losses["loss_mask_ce"].item())
    assert totals[0] == totals[1] != totals[2]


def test_fewer_cells_per_point_mean_more_points() -> None:
    drawn = []
    for ratio in (16, 4):
        torch.manual_seed(0)
        detection_losses(mask_layer(), random_mask_targets([2, 1]), TWO, 1, MaskSupervision(point_sample_ratio=ratio))
        drawn.append(torch.rand(()).item())  # where the generator stands afterwards
    assert drawn[0] != drawn[1]


def test_without_objects_the_mask_head_has_a_zero_gradient_rather_than_none() -> None:
    """Distributed training waits for the gradient of every parameter."""
    layer = mask_layer()
    masks = layer["pred_masks"]
    parts = [masks.features, masks.queries, masks.bias]
    for part in parts:
        part.requires_grad_()
    losses = detection_losses(layer, random_mask_targets([0, 0]), TWO, groups=2)
    assert losses["loss_mask_ce"] == losses["loss_mask_dice"] == 0
    (losses["loss_mask_ce"] + losses["loss_mask_dice"]).backward()
    assert all(part.grad is not None and not part.grad.any() for part in parts)


def test_more_objects_than_queries() -> None:
    losses = detection_losses(mask_layer(), random_mask_targets([9, 1]), TWO, groups=2)
    assert all(loss.isfinite() for loss in losses.values())
