"""Which query answers for which object: the cheapest one-to-one assignment (DETR, arXiv:2005.12872, section 3.1)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, giou
from rfdetr.models.mask_points import MaskSupervision, RandomPoints, logits_at, masks_at
from rfdetr.models.on_host import OnHost
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


def focal_class_cost(logits: Float[Tensor, "*N Q C"], labels: Int[Tensor, "T"]) -> Float[Tensor, "*N T Q"]:
    """What the focal loss (arXiv:1708.02002) of the right class would change if the query became a positive."""
    x = logits.mT[..., labels, :]
    prob = x.sigmoid()
    minus_log_other = F.softplus(x)  # -log(1 - p), and -log(p) is x less
    return ALPHA * (1 - prob).square() * (minus_log_other - x) - (1 - ALPHA) * prob.square() * minus_log_other


def matching_cost(
    logits: Float[Tensor, "*N Q C"],
    boxes: Float[Tensor, "*N Q 4"],
    labels: Int[Tensor, "T"],
    gt_boxes: Float[Tensor, "T 4"],
) -> Float[Tensor, "*N T Q"]:
    """Cost of giving object t to query q: class, L1 and GIoU terms; boxes cxcywh in [0, 1]."""
    corners = cxcywh_to_xyxy(boxes).mT.contiguous().mT  # coordinate by coordinate: on the CPU several times faster
    overlap = giou(corners.unsqueeze(-3), cxcywh_to_xyxy(gt_boxes).unsqueeze(-2))
    return (
        COST_CLASS * focal_class_cost(logits, labels)
        + COST_BBOX * torch.cdist(gt_boxes.expand(*boxes.shape[:-2], -1, -1), boxes, p=1)
        - COST_GIOU * overlap
    )


def mask_costs(
    logits: Float[Tensor, "Q P"], masks: Float[Tensor, "T P"]
) -> tuple[Float[Tensor, "T Q"], Float[Tensor, "T Q"]]:
    """Cross-entropy and 1 - Dice of each query with each object, at the same points (Mask2Former, arXiv:2112.01527)."""
    # BCE is softplus(x) - x * t, so that all pairs take one product.
    cross_entropy = (F.softplus(logits).sum(dim=-1) - masks @ logits.T) / logits.shape[-1]
    probs = logits.sigmoid()
    total = probs.sum(dim=-1) + masks.sum(dim=-1, keepdim=True)
    return cross_entropy, 1 - (2 * masks @ probs.T + 1) / (total + 1)


def _weighted_mask_costs(
    layer_masks: list[MaskLogits], targets: list[Target], supervision: MaskSupervision, random: RandomPoints
) -> list[Float[Tensor, "L T Q"]]:
    """Per image. All images, queries and objects of a layer are compared at the same random points."""
    per_layer = []
    for masks in layer_masks:
        height, width = masks.features.shape[-2:]
        count = max(1, height * width // supervision.point_sample_ratio)
        points = random.shared(count)
        features = logits_at(masks.features, points.expand(len(masks.features), -1, -1))
        logits = masks.queries.float() @ features + masks.bias.float().unsqueeze(-1)
        per_layer.append([_image_mask_cost(*pair, points, supervision) for pair in zip(logits, targets, strict=True)])
    return [torch.stack(layers) for layers in zip(*per_layer, strict=True)]


def _image_mask_cost(
    logits: Float[Tensor, "Q P"], target: Target, points: Float[Tensor, "1 P 2"], supervision: MaskSupervision
) -> Float[Tensor, "T Q"]:
    objects = len(target["labels"])
    rows = torch.arange(objects, device=logits.device)
    cross_entropy, dice = mask_costs(logits, masks_at(target["masks"], rows, points.expand(objects, -1, -1)))
    return supervision.mask_ce * cross_entropy + supervision.mask_dice * dice


def _costs(
    layers: list[LayerOutputs], targets: list[Target], supervision: MaskSupervision, random: RandomPoints
) -> list[Float[Tensor, "L T Q"]]:
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
    on_host = OnHost(torch.cat([cost.flatten() for cost in costs])).read().numpy()
    per_image = np.split(on_host, np.cumsum([cost.numel() for cost in costs])[:-1])
    solved = _assignments(
        [_finite(flat).reshape(cost.shape) for flat, cost in zip(per_image, costs, strict=True)], groups
    )
    counts = tuple(len(query) for query, _ in solved[0])  # the same in all layers
    first_targets = np.cumsum([0, *(len(target["labels"]) for target in targets)])
    rows = [
        [np.full_like(query, image), query, target + first_targets[image]]
        for of_images in solved
        for image, (query, target) in enumerate(of_images)
    ]
    on_device = torch.from_numpy(np.concatenate(rows, axis=1)).to(device, non_blocking=True)
    by_layer = on_device.view(3, len(layers), -1).unbind(1)
    return [Matches(image, query, target, counts) for image, query, target in by_layer]


_Pairs = tuple[np.ndarray, np.ndarray]
"""Query and object of each pair, by group and then by query."""


def _assignments(costs: Sequence[np.ndarray], groups: int) -> list[list[_Pairs]]:
    """Per layer and image, for the costs [layers, objects, queries] of each image.

    Shared by the threads that torch would use, as all of them would wait: scipy lets others run meanwhile.
    """
    jobs = [(cost[layer], groups) for layer in range(len(costs[0])) for cost in costs]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        solved = list(pool.map(_assign, *zip(*jobs, strict=True)))
    return [solved[first : first + len(costs)] for first in range(0, len(solved), len(costs))]


def _assign(cost: np.ndarray, groups: int) -> _Pairs:
    """For the costs [objects, queries] of one layer and image."""
    from scipy.optimize import linear_sum_assignment

    size = cost.shape[1] // groups
    # With queries as rows, so that pairs come in their order.
    pairs = [linear_sum_assignment(own.T) for own in np.split(cost, groups, axis=1)]
    query = np.concatenate([own + group * size for group, (own, _) in enumerate(pairs)])
    return query, np.concatenate([target for _, target in pairs])


def _finite(cost: np.ndarray) -> np.ndarray:
    """Costs with NaN and infinity replaced by something worse than all others."""
    finite = np.isfinite(cost)
    if finite.all():
        return cost
    known = cost[finite]
    worst = known.max() + np.abs(known).max() + 1 if known.size else 0.0
    return np.where(finite, cost, worst)
