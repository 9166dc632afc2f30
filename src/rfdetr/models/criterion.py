"""Which loss on which layer, and their sum."""

import re
from collections.abc import Mapping
from typing import NamedTuple

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
    random = RandomPoints(supervision.seed, [target["image_id"] for target in targets], gt_boxes.device)
    all_matches = match(list(layers.values()), targets, groups, supervision, random)
    boxes = _box_terms(list(layers.values()), all_matches, gt_boxes, num_boxes)
    losses: Losses = {}
    for (suffix, layer), matches, of_boxes in zip(layers.items(), all_matches, boxes, strict=True):
        positives = (matches.image, matches.query, labels[matches.target])
        of_layer = {
            "loss_ce": iou_aware_bce(layer["pred_logits"].float(), positives, of_boxes.overlaps, num_boxes),
            "loss_bbox": of_boxes.l1,
            "loss_giou": of_boxes.giou,
        }
        if gt_masks is not None:
            of_layer |= _mask_losses(layer["pred_masks"], matches, gt_masks, num_boxes, supervision, random)
        losses |= {name + suffix: loss for name, loss in of_layer.items()}
    return losses


class _BoxTerms(NamedTuple):
    """Of one layer."""

    overlaps: Float[Tensor, "M"]
    l1: Float[Tensor, ""]
    giou: Float[Tensor, ""]


def _box_terms(
    layers: list[LayerOutputs], all_matches: list[Matches], gt_boxes: Tensor, num_boxes: Tensor
) -> list[_BoxTerms]:
    """Of all layers at once: the tensors are small, and on a GPU only the number of operations counts."""
    matched = [
        layer["pred_boxes"].float()[own.image, own.query] for layer, own in zip(layers, all_matches, strict=True)
    ]
    boxes = torch.stack(matched)
    truth = gt_boxes[torch.stack([own.target for own in all_matches])]
    corners, truth_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth)
    overlaps = iou(corners.detach(), truth_corners)
    of_layers = zip(
        overlaps, l1_loss(boxes, truth, num_boxes), giou_loss(corners, truth_corners, num_boxes), strict=True
    )
    return [_BoxTerms(*terms) for terms in of_layers]


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
