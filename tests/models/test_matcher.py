from itertools import permutations

import pytest
from torch import Tensor

from rfdetr.boxes import cxcywh_to_xyxy, giou
from rfdetr.models.matcher import Matches, match, matching_cost
from rfdetr.types import LayerOutputs, Target
from tests.tiny import random_outputs, random_targets


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
            assert cost[query, index].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    layer, targets = random_outputs(2, 5, seed=seed), random_targets([3, 4], seed=seed)
    (matches,) = match([layer], targets, groups=1)
    for image, target in enumerate(targets):
        cost = cost_of(layer, image, target)
        offset = 3 * image
        found = sum(cost[q, t - offset].item() for i, q, t in pairs(matches) if i == image)
        count = len(target["labels"])
        best = min(
            sum(cost[query, index].item() for index, query in enumerate(queries))
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
