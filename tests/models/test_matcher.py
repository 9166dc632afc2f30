from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, giou
from rfdetr.models.mask_points import MaskSupervision
from rfdetr.models.matcher import Matches, mask_costs, match, matching_cost
from rfdetr.types import LayerOutputs, MaskLogits, Target
from tests.tiny import random_mask_targets, random_outputs, random_targets, with_masks


def cost_of(layer: LayerOutputs, image: int, target: Target) -> Tensor:
    return matching_cost(layer["pred_logits"][image], layer["pred_boxes"][image], target["labels"], target["boxes"])


def pairs(matches: Matches) -> list[tuple[int, int, int]]:
    return [*zip(matches.image.tolist(), matches.query.tolist(), matches.target.tolist(), strict=True)]


def test_cost_term_by_term() -> None:
    layer, (target,) = random_outputs(1, 3), random_targets([2])
    cost = cost_of(layer, 0, target)
    for query in range(3):
        for index in range(2):
            prob = layer["pred_logits"][0, query, target["labels"][index]].sigmoid()
            box, truth = layer["pred_boxes"][0, query], target["boxes"][index]
            classification = -0.25 * (1 - prob) ** 2 * prob.log() + 0.75 * prob**2 * (1 - prob).log()
            overlap = giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(truth))
            expected = 2 * classification + 5 * (box - truth).abs().sum() - 2 * overlap
            assert cost[index, query].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    layer, targets = random_outputs(2, 5, seed=seed), random_targets([3, 4], seed=seed)
    (matches,) = match([layer], targets, groups=1)
    for image, target in enumerate(targets):
        cost = cost_of(layer, image, target)
        offset = 3 * image
        found = sum(cost[t - offset, q].item() for i, q, t in pairs(matches) if i == image)
        count = len(target["labels"])
        best = min(
            sum(cost[index, query].item() for index, query in enumerate(queries))
            for queries in permutations(range(5), count)
        )
        assert found == pytest.approx(best, abs=1e-5)


def test_every_group_answers_for_every_object_as_if_it_were_alone() -> None:
    layer, targets = random_outputs(2, 12), random_targets([2, 3])
    (together,) = match([layer], targets, groups=3)
    for group in range(3):
        own = slice(4 * group, 4 * group + 4)
        part: LayerOutputs = {
            "pred_logits": layer["pred_logits"][:, own],
            "pred_boxes": layer["pred_boxes"][:, own],
        }
        (alone,) = match([part], targets, groups=1)
        shifted = [(image, query + 4 * group, target) for image, query, target in pairs(alone)]
        assert [pair for pair in pairs(together) if pair[1] // 4 == group] == shifted


def test_pairs_are_ordered_by_image_group_and_query() -> None:
    (matches,) = match([random_outputs(2, 12)], random_targets([2, 3]), groups=3)
    found = pairs(matches)
    assert found == sorted(found)


def test_each_layer_has_an_assignment_of_its_own() -> None:
    layers: list[LayerOutputs] = [*(random_outputs(2, 6, seed=seed) for seed in range(3))]
    targets = random_targets([2, 1])
    assert [pairs(found) for found in match(layers, targets, groups=1)] == [
        pairs(*match([layer], targets, groups=1)) for layer in layers
    ]


@pytest.mark.parametrize("threads", [1, 4])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    layers: list[LayerOutputs] = [*(random_outputs(3, 60, seed=seed) for seed in range(3))]
    targets = random_targets([9, 0, 40])
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = match(layers, targets, groups=2)
    finally:
        torch.set_num_threads(usual)
    cost = cost_of(layers[1], 2, targets[2])  # the second group has fewer queries than there are objects
    object_of, query = linear_sum_assignment(cost[:, 30:])
    expected = sorted((2, q + 30, t + 9) for t, q in zip(object_of.tolist(), query.tolist(), strict=True))
    assert [pair for pair in pairs(found[1]) if pair[0] == 2 and pair[1] >= 30] == expected


def test_targets_are_rows_of_the_whole_batch() -> None:
    (matches,) = match([random_outputs(3, 4)], random_targets([2, 0, 1]), groups=1)
    assert sorted(zip(matches.image.tolist(), matches.target.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 2)]


def test_with_more_objects_than_queries_each_query_gets_one() -> None:
    (matches,) = match([random_outputs(1, 6)], random_targets([5]), groups=2)
    assert matches.query.tolist() == [0, 1, 2, 3, 4, 5]
    assert all(len(set(matches.target[part].tolist())) == 3 for part in (slice(3), slice(3, 6)))


def test_without_objects_nothing_is_matched() -> None:
    (matches,) = match([random_outputs(2, 6)], random_targets([0, 0]), groups=3)
    assert pairs(matches) == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_query_whose_numbers_are_broken_is_matched_last(broken: float) -> None:
    layer, targets = random_outputs(1, 4), random_targets([3])
    layer["pred_boxes"][0, 1] = broken
    (matches,) = match([layer], targets, groups=1)
    assert matches.query.tolist() == [0, 2, 3]


def test_matching_survives_a_detector_that_is_broken_altogether() -> None:
    layer = random_outputs(1, 4)
    layer["pred_logits"].fill_(float("nan"))
    (matches,) = match([layer], random_targets([2]), groups=2)
    assert len(matches.query) == 4


def test_mask_costs_term_by_term() -> None:
    logits, masks = torch.randn(3, 50), torch.rand(2, 50).round()
    cross_entropy, dice = mask_costs(logits, masks)
    for query in range(3):
        for index in range(2):
            expected = F.binary_cross_entropy_with_logits(logits[query], masks[index])
            assert cross_entropy[index, query].item() == pytest.approx(expected.item(), rel=1e-5)
            probs = logits[query].sigmoid()
            overlap = (2 * (probs * masks[index]).sum() + 1) / (probs.sum() + masks[index].sum() + 1)
            assert dice[index, query].item() == pytest.approx(1 - overlap.item(), rel=1e-5)


def test_of_queries_with_the_same_box_the_one_with_the_right_mask_is_matched() -> None:
    (target,) = random_mask_targets([1])
    layer = random_outputs(1, 4)
    layer["pred_boxes"][:] = target["boxes"]
    layer["pred_logits"][:] = 0
    # A single channel that is high inside the object: the query with the positive code draws the right mask.
    inside = target["masks"][:, 2::4, 2::4].float() * 2 - 1
    codes = torch.tensor([-1.0, 0.0, 5.0, 0.5]).view(1, 4, 1)
    layer["pred_masks"] = MaskLogits(inside.unsqueeze(0), codes, torch.zeros(1, 4))
    (matches,) = match([layer], [target], groups=1)
    assert matches.query.tolist() == [2]
    without = MaskSupervision(mask_ce=0, mask_dice=0)
    (matches,) = match([layer], [target], groups=1, supervision=without)
    assert matches.query.tolist() == [0]


def test_the_number_of_pairs_of_each_image_is_known() -> None:
    layer, targets = random_outputs(3, 12), random_targets([2, 0, 6])
    (matches,) = match([layer], targets, groups=3)
    assert matches.counts == (6, 0, 12)  # the third image has more objects than a group has queries
    assert matches.image.bincount().tolist() == [6, 0, 12]


def test_costs_are_those_of_float32_under_autocast() -> None:
    """Sums over the points of a large object leave the range of float16."""
    targets = random_mask_targets([2])
    layer = with_masks(random_outputs(1, 6))
    layer["pred_masks"] = replace(layer["pred_masks"], bias=torch.full((1, 6), 3e4))
    torch.manual_seed(0)
    (plain,) = match([layer], targets, groups=1)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.float16):
        (mixed,) = match([layer], targets, groups=1)
    assert pairs(mixed) == pairs(plain)


def test_a_mask_grid_of_few_cells_still_has_a_point() -> None:
    targets, layer = random_mask_targets([2]), with_masks(random_outputs(1, 6))
    usual, coarse = (match([layer], targets, 1, MaskSupervision(0, 0, ratio)) for ratio in (16, 10**6))
    assert pairs(coarse[0]) == pairs(usual[0])
