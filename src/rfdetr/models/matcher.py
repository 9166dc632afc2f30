"""Which query answers for which object: the cheapest one-to-one assignment (DETR, arXiv:2005.12872, section 3.1)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, giou
from rfdetr.models.mask_points import MaskSupervision, RandomPoints, logits_at, masks_at
from rfdetr.types import LayerOutputs, MaskLogits, Target

# Fixed: they shape the assignment, not the gradient, and do not follow the loss weights.
COST_CLASS, COST_BBOX, COST_GIOU = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Matches:
    """The matched pairs of one layer, image by image, then group by group, then by query."""

    image: Int[Tensor, "M"]
    query: Int[Tensor, "M"]
    target: Int[Tensor, "M"]  # row of the batch's objects, all images one after the other
    counts: tuple[int, ...]  # pairs of each image


def focal_class_cost(logits: Float[Tensor, "*N Q C"], labels: Int[Tensor, "T"]) -> Float[Tensor, "*N Q T"]:
    """What the focal loss (arXiv:1708.02002) of the right class would change if the query became a positive."""
    x = logits[..., labels]
    prob = x.sigmoid()
    return ALPHA * (1 - prob) ** GAMMA * F.softplus(-x) - (1 - ALPHA) * prob**GAMMA * F.softplus(x)


def matching_cost(
    logits: Float[Tensor, "*N Q C"],
    boxes: Float[Tensor, "*N Q 4"],
    labels: Int[Tensor, "T"],
    gt_boxes: Float[Tensor, "T 4"],
) -> Float[Tensor, "*N Q T"]:
    """Cost of giving object t to query q: class, L1 and GIoU terms; boxes cxcywh in [0, 1]."""
    overlap = giou(cxcywh_to_xyxy(boxes).unsqueeze(-2), cxcywh_to_xyxy(gt_boxes))
    return (
        COST_CLASS * focal_class_cost(logits, labels)
        + COST_BBOX * torch.cdist(boxes, gt_boxes.expand(*boxes.shape[:-2], -1, -1), p=1)
        - COST_GIOU * overlap
    )


def mask_costs(
    logits: Float[Tensor, "Q P"], masks: Float[Tensor, "T P"]
) -> tuple[Float[Tensor, "Q T"], Float[Tensor, "Q T"]]:
    """Cross-entropy and 1 - Dice of each query with each object, at the same points (Mask2Former, arXiv:2112.01527)."""
    # BCE is softplus(x) - x * t, so that all pairs take one product.
    cross_entropy = (F.softplus(logits).sum(dim=-1, keepdim=True) - logits @ masks.T) / logits.shape[-1]
    probs = logits.sigmoid()
    total = probs.sum(dim=-1, keepdim=True) + masks.sum(dim=-1)
    return cross_entropy, 1 - (2 * probs @ masks.T + 1) / (total + 1)


def _weighted_mask_costs(
    layer_masks: list[MaskLogits], targets: list[Target], supervision: MaskSupervision, random: RandomPoints
) -> list[Float[Tensor, "L Q T"]]:
    """Per image. All images, queries and objects of a layer are compared at the same random points."""
    per_layer = []
    for masks in layer_masks:
        height, width = masks.features.shape[-2:]
        count = max(1, height * width // supervision.point_sample_ratio)
        points = random.shared(count)
        features = logits_at(masks.features, points.expand(len(masks.features), -1, -1))
        logits = masks.queries.float() @ features + masks.bias.float()
        per_layer.append([_image_mask_cost(*pair, points, supervision) for pair in zip(logits, targets, strict=True)])
    return [torch.stack(layers) for layers in zip(*per_layer, strict=True)]


def _image_mask_cost(
    logits: Float[Tensor, "Q P"], target: Target, points: Float[Tensor, "1 P 2"], supervision: MaskSupervision
) -> Float[Tensor, "Q T"]:
    objects = len(target["labels"])
    rows = torch.arange(objects, device=logits.device)
    cross_entropy, dice = mask_costs(logits, masks_at(target["masks"], rows, points.expand(objects, -1, -1)))
    return supervision.mask_ce * cross_entropy + supervision.mask_dice * dice


def _costs(
    layers: list[LayerOutputs], targets: list[Target], supervision: MaskSupervision, random: RandomPoints
) -> list[Float[Tensor, "L Q T"]]:
    """Per image, of all layers and groups."""
    logits = torch.stack([layer["pred_logits"] for layer in layers]).float()
    boxes = torch.stack([layer["pred_boxes"] for layer in layers]).float()
    costs = [
        matching_cost(logits[:, image], boxes[:, image], target["labels"], target["boxes"])
        for image, target in enumerate(targets)
    ]
    if "pred_masks" in layers[0]:
        of_masks = _weighted_mask_costs([layer["pred_masks"] for layer in layers], targets, supervision, random)
        costs = [cost + mask_cost for cost, mask_cost in zip(costs, of_masks, strict=True)]
    return costs


@torch.no_grad()
def match(
    layers: list[LayerOutputs],
    targets: list[Target],
    groups: int,
    supervision: MaskSupervision = MaskSupervision(),  # noqa: B008 - frozen
    random: RandomPoints | None = None,
) -> list[Matches]:
    """One assignment per layer, image and query group: every group answers for every object.

    With more objects than queries in a group, as many objects as there are queries are matched. All costs go to the
    host in one transfer, and all pairs come back in one. Where there are masks, they count as well, at random points.
    """
    device = layers[0]["pred_boxes"].device
    random = random or RandomPoints(supervision.seed, [target["image_id"] for target in targets], device)
    with torch.autocast(device.type, enabled=False):  # sums over points overflow float16
        costs = _costs(layers, targets, supervision, random)
    num_layers, queries = len(layers), layers[0]["pred_boxes"].shape[1]
    on_host = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    per_image = np.split(on_host, np.cumsum([cost.numel() for cost in costs])[:-1])
    pairs: list[list[np.ndarray]] = [[] for _ in layers]
    first_target = 0
    for image, (flat, target) in enumerate(zip(per_image, targets, strict=True)):
        objects = len(target["labels"])
        cost = _finite(flat).reshape(num_layers, groups, queries // groups, objects)
        for layer in range(num_layers):
            pairs[layer].append(_assign(cost[layer], image, first_target))
        first_target += objects
    joined = [np.concatenate(layer, axis=1) for layer in pairs]
    counts = tuple(part.shape[1] for part in pairs[0])  # the same in all layers
    on_device = torch.from_numpy(np.concatenate(joined, axis=1)).to(device)
    by_layer = on_device.split([part.shape[1] for part in joined], dim=1)
    return [Matches(image, query, target, counts) for image, query, target in by_layer]


def _assign(cost: np.ndarray, image: int, first_target: int) -> np.ndarray:
    """Rows (image, query, target) for the costs [groups, queries, objects] of one image."""
    rows = []
    for group, group_cost in enumerate(cost):
        query, target = linear_sum_assignment(group_cost)
        rows.append(np.stack([np.full_like(query, image), query + group * cost.shape[1], target + first_target]))
    return np.concatenate(rows, axis=1).astype(np.int64)


def _finite(cost: np.ndarray) -> np.ndarray:
    """Costs with NaN and infinity replaced by something worse than all others."""
    finite = np.isfinite(cost)
    if finite.all():
        return cost
    known = cost[finite]
    worst = known.max() + np.abs(known).max() + 1 if known.size else 0.0
    return np.where(finite, cost, worst)
