"""One training step's losses, matches and gradients of each size against the recorded ones.

The record was made with another summation order. Queries whose scores nearly tie may change places, hence the limits.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rfdetr.models.criterion import Losses, detection_losses, supervised_layers, total_loss
from rfdetr.models.matcher import match
from rfdetr.types import RawOutputs, Target
from rfdetr.weights.names import to_published
from tests.oracles import (
    architecture,
    batch,
    oracle_cases,
    oracle_detector,
    read_json,
    read_tensors,
    targets,
)

WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask_ce": 5.0, "loss_mask_dice": 5.0}
GROUPS = 13
OBJECTS = {"train": (7, [3, 5]), "train_empty": (8, [0, 4])}


@dataclass
class Step:
    """One forward and backward pass beside its record."""

    recorded: dict[str, Any]
    recorded_matches: dict[str, Tensor]
    ground_truth: list[Target]
    outputs: RawOutputs
    losses: Losses
    total: float
    gradients: dict[str, Tensor]


@pytest.fixture(
    scope="module",
    params=oracle_cases("train"),
    ids="-".join,
)
def step(request: pytest.FixtureRequest) -> Step:
    size, case = request.param
    recorded = read_json(f"oracles/{size}/{case}.json")
    tensors = read_tensors(f"oracles/{size}/{case}.safetensors")
    images, _ = batch(read_json(f"oracles/{size}/meta.json"), "eval_native")
    ground_truth = targets(*OBJECTS[case], mask_side=mask_side(size))
    detector = oracle_detector(size).train()
    outputs = detector(images)
    torch.manual_seed(0)
    losses = detection_losses(outputs, ground_truth, torch.tensor(recorded["num_boxes"]), GROUPS)
    total = total_loss(losses, WEIGHTS)
    total.backward()
    gradients = {name: weight.grad for name, weight in detector.named_parameters() if weight.grad is not None}
    return Step(recorded, tensors, ground_truth, outputs, losses, total.item(), to_published(gradients))


def mask_side(name: str) -> int | None:
    config = architecture(name)
    return config.resolution if config.segmentation_head else None


def norm(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))


def test_every_loss(step: Step) -> None:
    in_total = {name: value for name, value in step.recorded["loss"].items() if name in step.recorded["weight_dict"]}
    assert {name: loss.item() for name, loss in step.losses.items()} == pytest.approx(in_total, rel=5e-3)


def test_total_loss(step: Step) -> None:
    assert step.total == pytest.approx(step.recorded["total"], rel=1e-3)


def test_matches(step: Step) -> None:
    layers = supervised_layers(step.outputs)
    torch.manual_seed(0)
    all_matches = match([*layers.values()], step.ground_truth, GROUPS)
    offset, same, recorded_pairs = 0, 0, 0
    for image, target in enumerate(step.ground_truth):
        for suffix, found in zip(layers, all_matches, strict=True):
            layer = {"": "final", "_enc": "enc"}.get(suffix, f"aux{suffix[1:]}")
            recorded = step.recorded_matches[f"match.{layer}.img{image}"]
            assert found.counts[image] == recorded.shape[1]
            here = found.image == image
            pairs = torch.stack([found.query[here], found.target[here] - offset])
            assert pairs.shape == recorded.shape == (2, GROUPS * len(target["labels"]))
            same += len({tuple(pair) for pair in pairs.T.tolist()} & {tuple(pair) for pair in recorded.T.tolist()})
            recorded_pairs += recorded.shape[1]
        offset += len(target["labels"])
    assert same >= 0.99 * recorded_pairs


def test_which_parameters_have_a_gradient(step: Step) -> None:
    recorded = {name for name, value in step.recorded["grad_norm_by_param"].items() if value is not None}
    assert set(step.gradients) == recorded


def test_gradient_of_the_whole(step: Step) -> None:
    assert norm([*step.gradients.values()]) == pytest.approx(step.recorded["grad_norm_total"], rel=2e-3)


def test_gradients_by_module(step: Step) -> None:
    found = {
        module: norm([gradient for name, gradient in step.gradients.items() if name.startswith(f"{module}.")])
        for module in step.recorded["grad_norm_by_module"]
    }
    assert found == pytest.approx(step.recorded["grad_norm_by_module"], rel=1e-2)


def test_gradients_by_parameter(step: Step) -> None:
    recorded = {name: value for name, value in step.recorded["grad_norm_by_param"].items() if (value or 0) > 1e-4}
    assert {name: norm([step.gradients[name]]) for name in recorded} == pytest.approx(recorded, rel=5e-2)


@pytest.mark.parametrize("size", sorted({name for name, _ in oracle_cases("train")}))
def test_losses_of_a_detector_that_is_not_training(size: str) -> None:
    """With one query group, as for the validation loss."""
    meta = read_json(f"oracles/{size}/meta.json")
    images, _ = batch(meta, "eval_native")
    ground_truth = targets(*OBJECTS["train"], mask_side=mask_side(size))
    with torch.inference_mode():
        outputs = oracle_detector(size).eval()(images)
        torch.manual_seed(0)
        losses = detection_losses(outputs, ground_truth, torch.tensor(8.0), groups=1)
    recorded = {name: value for name, value in meta["eval_native_losses"].items() if name.startswith("loss_")}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(recorded, rel=1e-4)
