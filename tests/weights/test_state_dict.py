import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.weights.state_dict import PATCHES, POSITIONS, Fit, load_fitted
from tests.tiny import TINY

Weights = dict[str, Tensor]
PETS = ClassTable.from_categories([(1, "cat"), (2, "dog"), (3, "bird"), (4, "fish")])


def tiny_weights() -> Weights:
    return Detector(TINY, seed=1).state_dict()


def load(weights: Weights, detector: Detector) -> list[str]:
    return load_fitted(detector, weights).report


def test_weights_that_fit_are_loaded_as_they_are() -> None:
    detector, weights = Detector(TINY, seed=2), tiny_weights()
    assert load(weights, detector) == []
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


def test_positions_are_interpolated_to_another_grid() -> None:
    detector, weights = Detector(TINY.replace(positional_encoding_size=4)), tiny_weights()
    assert load(weights, detector) == ["position embeddings: 8x8 -> 4x4, interpolated"]
    assert torch.equal(detector.state_dict()[POSITIONS][:, 0], weights[POSITIONS][:, 0])


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 6), (4, 3)])
def test_a_picture_that_is_the_same_in_all_channels_gives_the_same_for_any_number_of_them(
    before: int, after: int
) -> None:
    weights = Detector(TINY.replace(num_channels=before), seed=1).state_dict()
    detector = Detector(TINY.replace(num_channels=after), seed=2)
    assert load(weights, detector) == [f"patch projection: {before} -> {after} channels, each the mean of its filters"]
    grey = torch.rand(1, 1, TINY.patch_size, TINY.patch_size)
    found = F.conv2d(grey.expand(-1, after, -1, -1), detector.state_dict()[PATCHES])
    torch.testing.assert_close(found, F.conv2d(grey.expand(-1, before, -1, -1), weights[PATCHES]), rtol=0, atol=1e-5)


def test_each_group_keeps_its_selection_heads() -> None:
    weights = tiny_weights()
    detector = Detector(TINY.replace(group_detr=2))
    assert load(weights, detector) == ["queries: 3 groups of 6 -> 2 groups of 6"]
    for name, value in detector.state_dict().items():
        if name.startswith("transformer.enc_o"):
            assert torch.equal(value, weights[name]), name


def test_where_more_queries_or_groups_are_wanted_the_first_come_again() -> None:
    weights = tiny_weights()
    detector = Detector(TINY.replace(group_detr=4, num_queries=8))
    assert load(weights, detector) == ["queries: 3 groups of 6 -> 4 groups of 8"]
    state = detector.state_dict()
    rows = [6 * (group % 3) + rank % 6 for group in range(4) for rank in range(8)]
    assert torch.equal(state["query_feat.weight"], weights["query_feat.weight"][rows])
    assert torch.equal(state["transformer.enc_output.3.weight"], weights["transformer.enc_output.0.weight"])


def test_rows_of_classes_with_the_same_name_are_carried_over_in_every_head() -> None:
    weights, farm = tiny_weights(), ClassTable.from_categories([(5, "cow"), (6, "dog"), (9, "cat")])
    detector = Detector(TINY.replace(num_classes=3), seed=2)
    initial = {name: value.clone() for name, value in detector.state_dict().items()}
    fit = load_fitted(detector, weights, PETS, farm)
    assert fit.report == ["class heads: 4 -> 3 classes, 2 carried over by name, the rest new"]
    state = detector.state_dict()
    for head in ("class_embed", "transformer.enc_out_class_embed.0", "transformer.enc_out_class_embed.2"):
        for kind in ("weight", "bias"):
            name = f"{head}.{kind}"
            assert torch.equal(state[name][[1, 2]], weights[name][[1, 0]])
            assert torch.equal(state[name][[0, 3]], initial[name][[0, 3]])
    assert torch.equal(state["bbox_embed.layers.0.weight"], weights["bbox_embed.layers.0.weight"])


def test_as_many_classes_of_other_names_are_not_mistaken_for_the_old_ones() -> None:
    others = ClassTable.from_categories([(1, "dog"), (2, "car"), (3, "bus"), (4, "tram")])
    detector, weights = Detector(TINY, seed=2), tiny_weights()
    fit = load_fitted(detector, weights, PETS, others)
    assert fit.report == ["class heads: 4 -> 4 classes, 1 carried over by name, the rest new"]
    assert torch.equal(detector.class_embed.weight[0], weights["class_embed.weight"][1])
    assert not torch.equal(detector.class_embed.weight[1], weights["class_embed.weight"][1])


def test_the_same_classes_are_loaded_as_they_are() -> None:
    assert load_fitted(Detector(TINY), tiny_weights(), PETS, PETS) == Fit([], None)


def test_heads_whose_classes_are_not_yet_known_come_with_the_fit() -> None:
    weights, detector = tiny_weights(), Detector(TINY.replace(num_classes=2, group_detr=2), seed=2)
    initial = detector.class_embed.weight.clone()
    fit = load_fitted(detector, weights, PETS)
    assert fit.report[1] == (
        "class heads: 4 -> 2 classes, all new until training names them; those that the weights know are then "
        "carried over"
    )
    assert torch.equal(detector.class_embed.weight, initial)
    assert fit.replaced is not None
    assert fit.replaced.classes == PETS
    expected = {name for name in detector.state_dict() if "class_embed" in name}
    assert fit.replaced.tensors.keys() == expected
    assert all(torch.equal(tensor, weights[name]) for name, tensor in fit.replaced.tensors.items())


@pytest.mark.parametrize(
    ("num_classes", "rows", "line"),
    [
        pytest.param(2, [0, 1, 2], "class heads: 4 -> 2 classes, the first rows", id="fewer"),
        pytest.param(6, [0, 1, 2, 3, 4, 0, 1], "class heads: 4 -> 6 classes, rows from the first on again", id="more"),
    ],
)
def test_rows_by_position(num_classes: int, rows: list[int], line: str) -> None:
    weights, detector = tiny_weights(), Detector(TINY.replace(num_classes=num_classes))
    assert load_fitted(detector, weights, PETS, PETS, "by-position").report == [line]
    state = detector.state_dict()
    for head in ("class_embed", "transformer.enc_out_class_embed.0", "transformer.enc_out_class_embed.2"):
        assert torch.equal(state[f"{head}.weight"], weights[f"{head}.weight"][rows])
        assert torch.equal(state[f"{head}.bias"], weights[f"{head}.bias"][rows])


def test_rows_by_position_stay_where_there_are_as_many_of_other_names() -> None:
    others = ClassTable.from_categories([(1, "dog"), (2, "car"), (3, "bus"), (4, "tram")])
    assert load_fitted(Detector(TINY), tiny_weights(), PETS, others, "by-position") == Fit([], None)


def test_numbers_of_another_precision_are_converted() -> None:
    detector, weights = Detector(TINY), {name: tensor.bfloat16() for name, tensor in tiny_weights().items()}
    assert load(weights, detector) == ["numbers: bfloat16 -> float32"]
    assert all(torch.equal(value, weights[name].float()) for name, value in detector.state_dict().items())


def test_what_is_not_part_of_the_model_is_left_out_and_named() -> None:
    """A file may hold more than the detector: heads of other tasks, statistics."""
    detector, weights = Detector(TINY), tiny_weights()
    report = load({**weights, "pose_head.bias": torch.zeros(1), "steps": torch.zeros(())}, detector)
    assert report == ["left out, not part of the model: pose_head.bias, steps"]
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


def test_what_no_forward_pass_reads_may_be_missing() -> None:
    weights = {name: value for name, value in tiny_weights().items() if not name.endswith("mask_token")}
    assert load(weights, Detector(TINY)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"bbox_embed.layers.2.bias": None},
            "the weights are of another architecture:\n  missing: bbox_embed.layers.2.bias",
            id="one is missing",
        ),
        pytest.param(
            {"backbone.vit.norm.weight": torch.zeros(48)},
            "the weights are of another architecture:\n  backbone.vit.norm.weight: shape [48], this model has [24]",
            id="another width",
        ),
        pytest.param(
            {POSITIONS: torch.zeros(1, 65, 48)},
            f"the weights are of another architecture:\n  {POSITIONS}: shape [1, 65, 48], this model has [1, 65, 24]",
            id="positions of another width",
        ),
        pytest.param(
            {POSITIONS: torch.zeros(1, 60, 24)},
            f"the weights are of another architecture:\n  {POSITIONS}: shape [1, 60, 24], this model has [1, 65, 24]",
            id="positions that are no square",
        ),
        pytest.param(
            {"query_feat.weight": torch.zeros(17, 32)},
            "the weights are of another architecture:\n  query_feat.weight: shape [17, 32], this model has [18, 32]",
            id="queries that the groups do not divide",
        ),
        pytest.param(
            {"class_embed.bias": torch.zeros(3)},
            "the weights are of another architecture:\n  class_embed.bias: shape [3], this model has [5]",
            id="heads of different size",
        ),
        pytest.param(
            {"class_embed.bias": None},
            "the weights are of another architecture:\n  missing: class_embed.bias",
            id="no class head",
        ),
    ],
)
def test_weights_of_another_architecture_are_refused_before_anything_is_loaded(
    changes: dict[str, Tensor | None], message: str
) -> None:
    weights = {name: value for name, value in {**tiny_weights(), **changes}.items() if value is not None}
    detector = Detector(TINY, seed=2)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load(weights, detector)
    assert str(caught.value) == message
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_of_many_differences_the_first_are_named_and_the_others_counted() -> None:
    detector = Detector(TINY.replace(dec_layers=3))
    with pytest.raises(WeightsError) as caught:
        load(tiny_weights(), detector)
    first, *named, more = str(caught.value).splitlines()
    assert first == "the weights are of another architecture:"
    assert len(named) == 5
    assert all(line.startswith("  missing: transformer.decoder.layers.2.") for line in named)
    assert more == "  ... and 17 more"
