from typing import Any

import pytest

from rfdetr.config.presets import PRESETS
from rfdetr.errors import WeightsError
from rfdetr.weights.published_config import from_published_config, to_published_config


@pytest.mark.parametrize("size", PRESETS)
def test_an_architecture_survives_the_round_trip(size: str) -> None:
    config = PRESETS[size]
    known = from_published_config(to_published_config(config))
    assert {**config.model_dump(), **known} == config.model_dump()
    assert config.model_dump().keys() - known.keys() == {"size", "encoder_depth"}


def test_other_channels_than_three_are_stated() -> None:
    stated = to_published_config(PRESETS["nano"].replace(num_channels=5))
    assert stated["num_channels"] == from_published_config(stated)["num_channels"] == 5


def test_the_encoder_is_named() -> None:
    assert to_published_config(PRESETS["nano"])["encoder"] == "dinov2_windowed_small"
    assert from_published_config({"encoder": "dinov2_windowed_base"}) == {"encoder_width": 768, "encoder_heads": 12}


def test_what_is_no_value_of_a_setting_is_left_out() -> None:
    stated = {"resolution": {"a": 1}, "dec_layers": None, "ca_nheads": list(range(33)), "amp": True, "hidden_dim": 64}
    assert from_published_config(stated) == {"hidden_dim": 64}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"bbox_reparam": False}, "made with bbox_reparam=False; this library knows bbox_reparam=True only"),
        (
            {"num_decoder_registers": [[]]},
            "made with num_decoder_registers=a list; this library knows num_decoder_registers=0 only",
        ),
        ({"encoder": "vit"}, "its encoder 'vit' is none of dinov2_windowed_small, dinov2_windowed_base"),
        ({"encoder": ["a"] * 99}, "its encoder a list is none of dinov2_windowed_small, dinov2_windowed_base"),
    ],
)
def test_what_this_library_does_not_have(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        from_published_config(stated)
    assert str(caught.value) == message
