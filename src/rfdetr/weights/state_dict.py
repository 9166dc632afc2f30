"""Fit weights to a model of other classes, queries or resolution; say what was changed."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.config.model import ClassRows
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import resize_positions

POSITIONS = "backbone.vit.embeddings.position_embeddings"
PATCHES = "backbone.vit.embeddings.projection.weight"
UNUSED = "backbone.vit.embeddings.mask_token"
_SELECTION_HEAD = re.compile(r"transformer\.enc_out\w*\.\d+\.")
QUERIES = ("refpoint_embed.weight", "query_feat.weight")


@dataclass(frozen=True)
class ClassHeads:
    """The class heads of weights, one per query group beside the main one, and what their rows stand for."""

    tensors: Mapping[str, Tensor]
    classes: ClassTable | None


@dataclass(frozen=True)
class Fit:
    """What was changed, one line each; and the class heads as they came, if their rows were not kept as they are."""

    report: list[str]
    replaced: ClassHeads | None


def load_fitted(
    detector: Detector,
    weights: Mapping[str, Tensor],
    classes: ClassTable | None = None,
    own_classes: ClassTable | None = None,
    class_rows: ClassRows = "by-name",
) -> Fit:
    """Load weights, fitted to the detector.

    Args:
        detector: takes the weights.
        weights: under our names.
        classes: what the rows of the weights' class heads stand for.
        own_classes: what the detector's rows stand for. None: the same if they are as many, else nobody knows.
        class_rows: `by-name` carries the rows over whose classes have the same name, and leaves the others at the
            detector's initial values. `by-position` takes the first rows, and begins again where more are wanted.

    Raises:
        WeightsError: some are missing or of another shape: another architecture (nothing is loaded then).
    """
    own = detector.state_dict()
    fitted = {name: tensor.float() for name, tensor in weights.items()}
    fitted.setdefault(UNUSED, own[UNUSED])  # not in every file
    report = _converted(weights) + fit_channels(fitted, own)
    if POSITIONS in fitted and fitted[POSITIONS].shape != own[POSITIONS].shape:
        report.append(fit_positions(fitted, own))
    report += _fit_queries(fitted, detector)
    heads = {name: tensor for name, tensor in fitted.items() if "class_embed" in name and name in own}
    changes = _fit_classes(fitted, own, heads, (classes, own_classes), class_rows)
    report += leave_out_others(fitted, own)
    check_names_and_shapes(fitted, own)
    detector.load_state_dict(fitted)
    return Fit(report + changes, ClassHeads(heads, classes) if changes else None)


def _converted(weights: Mapping[str, Tensor]) -> list[str]:
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()} - {"float32"}
    return [f"numbers: {', '.join(sorted(kinds))} -> float32"] if kinds else []


def fit_channels(fitted: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Every channel gets the mean of the filters, scaled so that a picture alike in all of them gives what it gave."""
    shape = fitted[PATCHES].shape if PATCHES in fitted else ()
    before, after = (shape[1] if len(shape) == 4 else 0), own[PATCHES].shape[1]
    if before in (0, after):
        return []  # as they are, or what check_names_and_shapes says in full
    mean = fitted[PATCHES].mean(dim=1, keepdim=True) * (before / after)
    fitted[PATCHES] = mean.repeat(1, after, 1, 1)
    return [f"patch projection: {before} -> {after} channels, each the mean of its filters"]


def fit_positions(fitted: dict[str, Tensor], own: Mapping[str, Tensor]) -> str:
    shape, own_shape = fitted[POSITIONS].shape, own[POSITIONS].shape
    side, own_side = (math.isqrt(max(each[1] - 1, 0)) if len(each) == 3 else 0 for each in (shape, own_shape))
    if shape != (1, side**2 + 1, own_shape[2]) or not side:
        return "position embeddings: of another width"  # what check_names_and_shapes says in full
    cls_position, grid = fitted[POSITIONS].split([1, side**2], dim=1)
    resized = resize_positions(grid, side, (own_side, own_side)).flatten(1, 2)
    fitted[POSITIONS] = torch.cat([cls_position, resized], dim=1)
    return f"position embeddings: {side}x{side} -> {own_side}x{own_side}, interpolated"


def _fit_queries(fitted: dict[str, Tensor], detector: Detector) -> list[str]:
    """Take the first queries of the first groups; where more are wanted, begin again with the first.

    The weights have as many groups as selection heads, so their queries are never taken for those of another group.
    """
    config = detector.config
    groups = len({name.split(".")[2] for name in fitted if name.startswith("transformer.enc_output.")})
    rows = {len(fitted[name]) for name in QUERIES if name in fitted and fitted[name].dim() == 2}
    count = min(rows, default=0) // max(groups, 1)
    if (groups, count) == (config.group_detr, config.num_queries) or not count or rows != {groups * count}:
        return []  # as they are, or what check_names_and_shapes says in full
    group_of = torch.arange(config.group_detr) % groups
    rank_of = torch.arange(config.num_queries) % count
    for name in QUERIES:
        fitted[name] = fitted[name].view(groups, count, -1)[group_of][:, rank_of].flatten(0, 1)
    _fit_selection_heads(fitted, group_of.tolist())
    return [f"queries: {groups} groups of {count} -> {config.group_detr} groups of {config.num_queries}"]


def _fit_selection_heads(fitted: dict[str, Tensor], group_of: list[int]) -> None:
    """Group i gets the modules of group `group_of[i]`, named as in `transformer.enc_output.<group>.weight`."""
    grouped = {name: fitted.pop(name) for name in list(fitted) if _SELECTION_HEAD.match(name)}
    for name, tensor in grouped.items():
        transformer, module, source, rest = name.split(".", 3)
        for group, wanted in enumerate(group_of):
            if wanted == int(source):
                fitted[f"{transformer}.{module}.{group}.{rest}"] = tensor


def _fit_classes(
    fitted: dict[str, Tensor],
    own: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
    tables: tuple[ClassTable | None, ClassTable | None],
    class_rows: ClassRows,
) -> list[str]:
    before, after = (len(state["class_embed.bias"]) if "class_embed.bias" in state else 0 for state in (heads, own))
    classes, own_classes = tables
    is_same = before == after and (class_rows == "by-position" or own_classes in (None, classes))
    if is_same or not before or any(len(tensor) != before for tensor in heads.values()):
        return []  # as they are, or what check_names_and_shapes says in full
    counts = f"class heads: {before - 1} -> {after - 1} classes"
    if class_rows == "by-position":
        for name, tensor in heads.items():
            fitted[name] = tensor[torch.arange(after) % before]
        return [f"{counts}, {'the first rows' if after < before else 'rows from the first on again'}"]
    shared = _shared_rows(classes, own_classes, before)
    for name, tensor in heads.items():
        fitted[name] = _carry_over(tensor, own[name].cpu(), shared)
    if classes is not None and own_classes is None:
        return [f"{counts}, all new until training names them; those that the weights know are then carried over"]
    return [f"{counts}, {len(shared)} carried over by name, the rest new"]


def _shared_rows(classes: ClassTable | None, own_classes: ClassTable | None, before: int) -> list[tuple[int, int]]:
    """(row of the weights, row of the detector) of the classes that both name."""
    if classes is None or own_classes is None:
        return []
    known = dict(zip(classes.names, classes.class_ids, strict=True))
    rows = zip(own_classes.names, own_classes.class_ids, strict=True)
    return [(known[name], row) for name, row in rows if name in known and known[name] < before]


def _carry_over(
    rows: Float[Tensor, "N ..."], initial: Float[Tensor, "M ..."], shared: list[tuple[int, int]]
) -> Float[Tensor, "M ..."]:
    result = initial.clone()
    for source, target in shared:
        result[target] = rows[source]
    return result


def leave_out_others(fitted: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Heads of other tasks, for one."""
    others = [name for name in fitted if name not in own]
    for name in others:
        del fitted[name]
    return [left_out(others)] if others else []


def left_out(names: list[str]) -> str:
    """The line of a report."""
    return f"left out, not part of the model: {', '.join(names[:5])}{', ...' * (len(names) > 5)}"


def check_names_and_shapes(fitted: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    problems = [f"missing: {name}" for name in own if name not in fitted]
    problems += [
        f"{name}: shape {list(fitted[name].shape)}, this model has {list(own[name].shape)}"
        for name in own
        if name in fitted and fitted[name].shape != own[name].shape
    ]
    if problems:
        more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError("the weights are of another architecture:\n  " + "\n  ".join(problems[:5]) + more)
