import pytest
import torch
from torch import Tensor

from rfdetr.classes import ClassTable
from rfdetr.config.model import ModelSettings
from rfdetr.config.presets import configure, preset
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.weights.state_dict import POSITIONS, QUERIES, load_fitted
from tests.oracles import oracle_detector, read_json, stats
from tests.tiny import TINY

Weights = dict[str, Tensor]
PETS = ClassTable.from_categories([(1, "cat"), (2, "dog"), (3, "bird"), (4, "fish")])


def tiny_weights() -> Weights:
    return Detector(TINY, seed=1).state_dict()


def load(weights: Weights, detector: Detector, num_queries: int | None = TINY.num_queries) -> list[str]:
    return load_fitted(detector, weights, None, None, num_queries)


def test_weights_that_fit_are_loaded_as_they_are() -> None:
    detector, weights = Detector(TINY, seed=2), tiny_weights()
    assert load(weights, detector) == []
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


@pytest.fixture(scope="module")
def nano() -> Weights:
    return oracle_detector("nano").state_dict()


def test_position_embeddings_are_resized_as_recorded(nano: Weights) -> None:
    recorded = read_json("oracles/loader.json")["D_resolution_512"]
    detector = Detector(configure(preset("nano"), ModelSettings(resolution=512)))
    assert load(nano, detector, num_queries=300) == ["position embeddings: 24x24 -> 32x32, interpolated"]
    positions = detector.state_dict()[POSITIONS]
    assert list(positions.shape) == recorded["shape"]
    sample = torch.tensor(recorded["values[0,[0,1,2,33,500,1024],:4]"])
    assert torch.allclose(positions[0, [0, 1, 2, 33, 500, 1024], :4], sample, atol=1e-6)
    assert stats(positions).tolist() == pytest.approx(recorded["stats"], rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("num_queries", [300, None], ids=["as the checkpoint says", "as published"])
def test_queries_are_taken_group_by_group(nano: Weights, num_queries: int | None) -> None:
    recorded = read_json("oracles/loader.json")["E_queries_200_groups_5_with_args"]
    detector = Detector(preset("nano").replace(num_queries=200, num_select=200, group_detr=5))
    assert load(nano, detector, num_queries) == ["queries: 13 groups of 300 -> 5 groups of 200"]
    state = detector.state_dict()
    assert list(state["query_feat.weight"].shape) == recorded["shape"]
    rows = recorded["source_rows_of_[0,199,200,400,999]"]
    for name in QUERIES:
        assert torch.equal(state[name][[0, 199, 200, 400, 999]], nano[name][rows])


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
    changes = load_fitted(detector, weights, PETS, farm, TINY.num_queries)
    assert changes == ["class heads: 4 -> 3 classes, 2 carried over by name, the rest new"]
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
    changes = load_fitted(detector, weights, PETS, others, TINY.num_queries)
    assert changes == ["class heads: 4 -> 4 classes, 1 carried over by name, the rest new"]
    assert torch.equal(detector.class_embed.weight[0], weights["class_embed.weight"][1])
    assert not torch.equal(detector.class_embed.weight[1], weights["class_embed.weight"][1])


def test_the_same_classes_are_loaded_as_they_are() -> None:
    assert load_fitted(Detector(TINY), tiny_weights(), PETS, PETS, TINY.num_queries) == []


def test_what_published_files_carry_along_is_ignored() -> None:
    assert load({**tiny_weights(), "_kp_active_mask": torch.zeros(0, 0)}, Detector(TINY)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"bbox_embed.layers.2.bias": None},
            "the weights are of another architecture:\n  missing: bbox_embed.layers.2.bias",
            id="one is missing",
        ),
        pytest.param(
            {"segmentation_head.bias": torch.zeros(1)},
            "the weights are of another architecture:\n  not part of this model: segmentation_head.bias",
            id="one too many",
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
