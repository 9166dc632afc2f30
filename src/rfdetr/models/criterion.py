"""Which loss on which layer, and their sum."""

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, iou
from rfdetr.models.losses import giou_loss, iou_aware_bce, l1_loss, mask_ce_loss, mask_dice_loss
from rfdetr.models.mask_points import MaskSupervision, RandomPoints, logits_at, masks_at, unsure_points
from rfdetr.models.matcher import Matches, match
from rfdetr.types import LayerOutputs, MaskLogits, RawOutputs, Target

Losses = dict[str, Float[Tensor, ""]]


def supervised_layers(outputs: RawOutputs) -> dict[str, LayerOutputs]:
    """Suffix of the loss names -> predictions: the last decoder layer, the earlier ones, the encoder."""
    aux = {f"_{index}": layer for index, layer in enumerate(outputs.get("aux_outputs", []))}
    enc = {"_enc": outputs["enc_outputs"]} if "enc_outputs" in outputs else {}
    return {"": outputs, **aux, **enc}


def detection_losses(
    outputs: RawOutputs,
    targets: list[Target],
    num_boxes: Float[Tensor, ""],
    groups: int,
    supervision: MaskSupervision = MaskSupervision(),  # noqa: B008 - frozen
) -> Losses:
    """`loss_ce`, `loss_bbox`, `loss_giou` of every layer, each with an assignment of its own.

    Where there are masks also `loss_mask_ce` and `loss_mask_dice`, at random points. `num_boxes` counts the objects
    of everything that makes up one optimiser step, times `groups`, at least 1.
    """
    layers = supervised_layers(outputs)
    labels = torch.cat([target["labels"] for target in targets])
    gt_boxes = torch.cat([target["boxes"] for target in targets])
    gt_masks = torch.cat([target["masks"] for target in targets]) if "pred_masks" in outputs else None
    losses: Losses = {}
    random = RandomPoints(supervision.seed, [target["image_id"] for target in targets], gt_boxes.device)
    all_matches = match(list(layers.values()), targets, groups, supervision, random)
    for (suffix, layer), matches in zip(layers.items(), all_matches, strict=True):
        of_layer = _box_losses(layer, matches, labels, gt_boxes, num_boxes)
        if gt_masks is not None:
            of_layer |= _mask_losses(layer["pred_masks"], matches, gt_masks, num_boxes, supervision, random)
        losses |= {name + suffix: loss for name, loss in of_layer.items()}
    return losses


def _box_losses(layer: LayerOutputs, matches: Matches, labels: Tensor, gt_boxes: Tensor, num_boxes: Tensor) -> Losses:
    boxes = layer["pred_boxes"].float()[matches.image, matches.query]
    truth = gt_boxes[matches.target]
    corners, truth_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth)
    positives = (matches.image, matches.query, labels[matches.target])
    overlaps = iou(corners.detach(), truth_corners)
    return {
        "loss_ce": iou_aware_bce(layer["pred_logits"].float(), positives, overlaps, num_boxes),
        "loss_bbox": l1_loss(boxes, truth, num_boxes),
        "loss_giou": giou_loss(corners, truth_corners, num_boxes),
    }


def _mask_losses(
    masks: MaskLogits,
    matches: Matches,
    gt_masks: Tensor,
    num_boxes: Tensor,
    supervision: MaskSupervision,
    random: RandomPoints,
) -> Losses:
    queries = matches.query.split(matches.counts)
    logits = torch.cat([masks.of(image, of_image).float() for image, of_image in enumerate(queries)])
    height, width = logits.shape[-2:]
    count = max(height, height * width // supervision.point_sample_ratio)
    points = unsure_points(logits, matches.counts, count, random)
    predicted = logits_at(logits.unsqueeze(1), points).squeeze(1)
    truth = masks_at(gt_masks, matches.target, points)
    return {
        "loss_mask_ce": mask_ce_loss(predicted, truth, num_boxes),
        "loss_mask_dice": mask_dice_loss(predicted, truth, num_boxes),
    }


def total_loss(losses: Losses, weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """The weighted sum. `weights` has one entry per kind of loss (`loss_ce`), the same for all layers."""
    weighted = [weights[kind_of(name)] * loss for name, loss in losses.items()]
    return torch.stack(weighted).sum()


def kind_of(name: str) -> str:
    """`loss_ce_0` and `loss_ce_enc` are of the kind `loss_ce`."""
    return re.sub(r"_(\d+|enc)$", "", name)
