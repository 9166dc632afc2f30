"""Fit weights to a model of other classes, queries or resolution; say what was changed."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import resize_positions

POSITIONS = "backbone.vit.embeddings.position_embeddings"
QUERIES = ("refpoint_embed.weight", "query_feat.weight")
PUBLISHED_GROUPS = 13


def load_fitted(
    detector: Detector,
    weights: Mapping[str, Tensor],
    classes: ClassTable | None,
    own_classes: ClassTable | None,
    num_queries: int | None = None,
) -> list[str]:
    """Load weights, fitted to the detector; returns one line per change.

    Args:
        detector: takes the weights.
        weights: under our names.
        classes: what the rows of the weights' class heads stand for.
        own_classes: what the detector's rows stand for. Rows of classes with the same name are carried over. None:
            the same classes as the weights.
        num_queries: queries per group of the weights; None: as published, with 13 groups.

    Raises:
        WeightsError: the weights are of another architecture (nothing is loaded then).
    """
    own = detector.state_dict()
    fitted, changes = dict(weights), []
    fitted.pop("_kp_active_mask", None)
    if POSITIONS in fitted and fitted[POSITIONS].shape != own[POSITIONS].shape:
        changes.append(_fit_positions(fitted, own))
    changes += _fit_queries(fitted, detector, num_queries)
    changes += _fit_classes(fitted, own, classes, own_classes)
    _check(fitted, own)
    detector.load_state_dict(fitted)
    return changes


def _fit_positions(fitted: dict[str, Tensor], own: Mapping[str, Tensor]) -> str:
    sides = [math.isqrt(positions.shape[1] - 1) for positions in (fitted[POSITIONS], own[POSITIONS])]
    if fitted[POSITIONS].shape[-1] != own[POSITIONS].shape[-1] or sides[0] ** 2 + 1 != fitted[POSITIONS].shape[1]:
        return "position embeddings: of another width"  # what _check says in full
    cls_position, grid = fitted[POSITIONS].split([1, sides[0] ** 2], dim=1)
    resized = resize_positions(grid, sides[0], (sides[1], sides[1])).flatten(1, 2)
    fitted[POSITIONS] = torch.cat([cls_position, resized], dim=1)
    return f"position embeddings: {sides[0]}x{sides[0]} -> {sides[1]}x{sides[1]}, interpolated"


def _fit_queries(fitted: dict[str, Tensor], detector: Detector, num_queries: int | None) -> list[str]:
    """Take the first queries of the first groups; where more are wanted, begin again with the first."""
    config = detector.config
    if any(name not in fitted for name in QUERIES):
        return []
    rows = fitted[QUERIES[0]].shape[0]
    count = num_queries or rows // PUBLISHED_GROUPS
    groups = rows // count if count else 0
    if (groups, count) == (config.group_detr, config.num_queries) or not rows or groups * count != rows:
        return []
    group_of = torch.arange(config.group_detr) % groups
    rank_of = torch.arange(config.num_queries) % count
    for name in QUERIES:
        fitted[name] = fitted[name].view(groups, count, -1)[group_of][:, rank_of].flatten(0, 1)
    _fit_selection_heads(fitted, group_of.tolist())
    return [f"queries: {groups} groups of {count} -> {config.group_detr} groups of {config.num_queries}"]


def _fit_selection_heads(fitted: dict[str, Tensor], group_of: list[int]) -> None:
    """Group i gets the modules of group `group_of[i]`, named as in `transformer.enc_output.<group>.weight`."""
    grouped = {name: fitted.pop(name) for name in list(fitted) if name.startswith("transformer.enc_o")}
    for name, tensor in grouped.items():
        transformer, module, source, rest = name.split(".", 3)
        for group, wanted in enumerate(group_of):
            if wanted == int(source):
                fitted[f"{transformer}.{module}.{group}.{rest}"] = tensor


def _fit_classes(
    fitted: dict[str, Tensor],
    own: Mapping[str, Tensor],
    classes: ClassTable | None,
    own_classes: ClassTable | None,
) -> list[str]:
    """Rows of shared names are carried over; the others keep the detector's initial values."""
    heads = [name for name in own if "class_embed" in name and name in fitted]
    if "class_embed.bias" not in heads:
        return []  # what _check says in full
    before, after = fitted["class_embed.bias"].shape[0], own["class_embed.bias"].shape[0]
    same_table = own_classes is None or own_classes == classes
    if before == after and same_table:
        return []
    shared: list[tuple[int, int]] = []
    if classes is not None and own_classes is not None:
        known = dict(zip(classes.names, classes.class_ids, strict=True))
        rows = zip(own_classes.names, own_classes.class_ids, strict=True)
        shared = [(known[name], row) for name, row in rows if name in known and known[name] < before]
    for name in heads:
        fitted[name] = _carry_over(fitted[name], own[name], shared)
    return [f"class heads: {before - 1} -> {after - 1} classes, {len(shared)} carried over by name, the rest new"]


def _carry_over(
    rows: Float[Tensor, "N ..."], initial: Float[Tensor, "M ..."], shared: list[tuple[int, int]]
) -> Float[Tensor, "M ..."]:
    result = initial.clone()
    for source, target in shared:
        result[target] = rows[source]
    return result


def _check(fitted: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    problems = [f"missing: {name}" for name in own if name not in fitted]
    problems += [f"not part of this model: {name}" for name in fitted if name not in own]
    problems += [
        f"{name}: shape {list(fitted[name].shape)}, this model has {list(own[name].shape)}"
        for name in own
        if name in fitted and fitted[name].shape != own[name].shape
    ]
    if problems:
        more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError("the weights are of another architecture:\n  " + "\n  ".join(problems[:5]) + more)
