"""Which loss on which layer, and their sum."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, iou
from rfdetr.models.losses import giou_loss, iou_aware_bce, l1_loss
from rfdetr.models.matcher import Matches, match
from rfdetr.types import LayerOutputs, RawOutputs, Target

Losses = dict[str, Float[Tensor, ""]]


def supervised_layers(outputs: RawOutputs) -> dict[str, LayerOutputs]:
    """Suffix of the loss names -> predictions: the last decoder layer, the earlier ones, the encoder."""
    aux = {f"_{index}": layer for index, layer in enumerate(outputs.get("aux_outputs", []))}
    enc = {"_enc": outputs["enc_outputs"]} if "enc_outputs" in outputs else {}
    return {"": outputs, **aux, **enc}


def detection_losses(outputs: RawOutputs, targets: list[Target], num_boxes: Float[Tensor, ""], groups: int) -> Losses:
    """`loss_ce`, `loss_bbox` and `loss_giou` of every layer, each with an assignment of its own.

    `num_boxes` counts the objects of everything that makes up one optimiser step, times `groups`, at least 1.
    """
    layers = supervised_layers(outputs)
    labels = torch.cat([target["labels"] for target in targets])
    gt_boxes = torch.cat([target["boxes"] for target in targets])
    losses: Losses = {}
    for (suffix, layer), matches in zip(layers.items(), match(list(layers.values()), targets, groups), strict=True):
        for name, loss in _layer_losses(layer, matches, labels, gt_boxes, num_boxes).items():
            losses[name + suffix] = loss
    return losses


def _layer_losses(layer: LayerOutputs, matches: Matches, labels: Tensor, gt_boxes: Tensor, num_boxes: Tensor) -> Losses:
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


def total_loss(losses: Losses, weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """The weighted sum. `weights` has one entry per kind of loss (`loss_ce`), the same for all layers."""
    weighted = [weights[kind_of(name)] * loss for name, loss in losses.items()]
    return torch.stack(weighted).sum()


def kind_of(name: str) -> str:
    """`loss_ce_0` and `loss_ce_enc` are of the kind `loss_ce`."""
    return "_".join(name.split("_")[:2])
