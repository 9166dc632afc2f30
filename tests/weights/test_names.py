import re

import pytest
import torch
from torch import Tensor

from rfdetr.models.detector import Detector
from rfdetr.weights.names import from_published, published_names, to_published
from tests.oracles import architecture, read_json

QUERY = "backbone.0.encoder.encoder.encoder.layer.2.attention.attention.query.weight"
KEY, VALUE = QUERY.replace("query", "key"), QUERY.replace("query", "value")
FUSED = "backbone.vit.blocks.2.attn.qkv.weight"


@pytest.fixture(params=["nano", "small", "medium", "large", "base", "large_deprecated"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def own_state(name: str) -> dict[str, Tensor]:
    """Names and shapes, without values."""
    with torch.device("meta"):
        return Detector(architecture(name)).state_dict()


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in state.items()}


def test_our_weights_have_the_published_names_and_shapes(name: str) -> None:
    published = {key: shape for key, shape, _ in read_json(f"keys/{name}.json")}
    assert shapes(to_published(own_state(name))) == published


def test_published_weights_have_our_names_and_shapes(name: str) -> None:
    published = {key: torch.empty(shape, device="meta") for key, shape, _ in read_json(f"keys/{name}.json")}
    assert shapes(from_published(published)) == shapes(own_state(name))


# The detectors above cover the sizes; these files have the same backbone under other numbers, and a mask head.
@pytest.mark.parametrize("size", ["preview", "nano", "small", "medium", "large", "xlarge", "2xlarge"])
def test_names_of_the_segmentation_sizes_survive_the_round_trip(size: str) -> None:
    published = {key: torch.empty(shape, device="meta") for key, shape, _ in read_json(f"keys/seg_{size}.json")}
    state = from_published(published)
    assert shapes(to_published(state)) == shapes(published)
    assert not [key for key in state if re.search(r"backbone\.0\.|attention\.attention", key)]


def test_values_survive_the_round_trip() -> None:
    state = {FUSED: torch.arange(24.0).view(6, 4), "class_embed.bias": torch.ones(3)}
    published = to_published(state)
    assert torch.equal(published[KEY], torch.arange(8.0, 16.0).view(2, 4))
    back = from_published(published)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        pytest.param("class_embed.bias", ["class_embed.bias"], id="heads have the published name"),
        pytest.param(
            "backbone.vit.blocks.11.scale2",
            ["backbone.0.encoder.encoder.encoder.layer.11.layer_scale2.lambda1"],
            id="layer scale",
        ),
        pytest.param(
            "backbone.vit.embeddings.projection.weight",
            ["backbone.0.encoder.encoder.embeddings.patch_embeddings.projection.weight"],
            id="patch projection",
        ),
        pytest.param(FUSED, [QUERY, KEY, VALUE], id="one projection is three"),
    ],
)
def test_published_names(ours: str, published: list[str]) -> None:
    assert published_names(ours) == published


def test_an_incomplete_triple_keeps_its_names_and_is_not_lost() -> None:
    published = {QUERY: torch.ones(2, 4), KEY: torch.ones(2, 4)}
    assert from_published(published).keys() == published.keys()


def test_a_triple_is_joined_in_any_order() -> None:
    published = {VALUE: torch.full((1, 2), 3.0), QUERY: torch.full((1, 2), 1.0), KEY: torch.full((1, 2), 2.0)}
    assert from_published(published)[FUSED][:, 0].tolist() == [1, 2, 3]


def test_unknown_names_pass_through() -> None:
    assert list(from_published({"keypoint_head.weight": torch.ones(1)})) == ["keypoint_head.weight"]
