from typing import Any

import pytest
import torch
from torch import Tensor

from rfdetr.config.model import ModelConfig
from rfdetr.config.presets import PRESETS, class_name
from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.weights.architecture import differences, identify, known_settings, shape_facts, traits
from rfdetr.weights.published_config import to_published_config


def weights(config: ModelConfig) -> dict[str, Tensor]:
    """Names and shapes, without values."""
    with torch.device("meta"):
        return Detector(config).state_dict()


def found(config: ModelConfig, name: object = None, names: tuple[object, ...] = (), **settings: Any) -> Any:
    return identify(known_settings(weights(config), settings, {}), name, names, settings)


@pytest.mark.parametrize("size", PRESETS)
def test_shapes_tell_most_of_a_size(size: str) -> None:
    facts = shape_facts(weights(PRESETS[size]))
    assert facts.keys() == {
        "num_channels",
        *("patch_size", "positional_encoding_size", "encoder_width", "encoder_depth", "projector_scale", "hidden_dim"),
        *("dec_layers", "sampling_points", "num_queries", "group_detr", "num_classes", "segmentation_head"),
    }
    assert traits(PRESETS[size]).items() >= facts.items()


def test_shapes_of_anything_else_tell_nothing() -> None:
    odd = {"query_feat.weight": torch.ones(()), "class_embed.weight": torch.ones(3), "transformer.x": torch.ones(1)}
    assert shape_facts(odd) == {"segmentation_head": False}


@pytest.mark.parametrize("size", PRESETS)
def test_a_released_file_is_known_by_its_shapes(size: str) -> None:
    assert found(PRESETS[size]) == PRESETS[size]


@pytest.mark.parametrize("size", PRESETS)
def test_a_file_is_what_its_model_config_says(size: str) -> None:
    config = PRESETS[size]
    block = config.patch_size * config.num_windows
    config = config.replace(resolution=10 * block, num_queries=7, num_select=5, group_detr=3, num_classes=2)
    known = known_settings(weights(config), {}, to_published_config(config))
    assert identify(known, class_name(size), (), {}) == config


@pytest.mark.parametrize(
    ("size", "names", "expected"),
    [
        pytest.param("medium", ("rf-detr-medium.pth",), "medium", id="starting weights"),
        pytest.param("large", ("none", "C:\\nano\\rf-detr-large-2026.pth"), "large", id="file name"),
        pytest.param("large-deprecated", ("runs/small/rf-detr-large.pth",), "large-deprecated", id="the other Large"),
        pytest.param("seg-small", ("rf-detr-seg-small.pt",), "seg-small", id="segmentation"),
        pytest.param("medium", ("rf-detr-xlarge.pth",), None, id="name of another"),
        pytest.param("medium", ("my-large-and-small-cars.pth",), "large", id="name that the shapes allow"),
        pytest.param("medium", (3, None, "cars.pth"), None, id="no name"),
    ],
)
def test_names_decide_between_sizes_of_the_same_shapes(
    size: str, names: tuple[object, ...], expected: str | None
) -> None:
    fine_tuned = PRESETS[size].replace(resolution=672, positional_encoding_size=672 // PRESETS[size].patch_size)
    config = found(fine_tuned, names=names)
    assert (config and config.size) == expected


def test_a_named_class_may_be_changed() -> None:
    deeper = PRESETS["nano"].replace(dec_layers=3)
    assert found(deeper, "RFDETRNano") == deeper
    assert found(deeper, names=("rf-detr-nano.pth",)).size != "nano"


@pytest.mark.parametrize(
    ("config", "settings", "resolution"),
    [
        pytest.param(PRESETS["nano"].replace(resolution=512, positional_encoding_size=32), {}, 512, id="by its grid"),
        pytest.param(PRESETS["nano"].replace(positional_encoding_size=25), {}, 384, id="grid that windows cannot cut"),
        pytest.param(PRESETS["base"], {"resolution": 616}, 616, id="whose grid does not tell, by the settings"),
        pytest.param(PRESETS["base"], {"resolution": 600}, 560, id="settings that cannot be"),
        pytest.param(PRESETS["base"], {"resolution": "wide"}, 560, id="settings that are none"),
    ],
)
def test_resolution_of_a_file_that_does_not_say_it(
    config: ModelConfig, settings: dict[str, Any], resolution: int
) -> None:
    assert found(config, **settings).resolution == resolution


def test_as_many_detections_are_kept_as_the_size_keeps_but_no_more_than_there_are_queries() -> None:
    assert found(PRESETS["nano"].replace(num_queries=100, num_select=50)).num_select == 100
    assert found(PRESETS["nano"].replace(num_queries=400)).num_select == 300


@pytest.mark.parametrize(
    ("settings", "model_config", "message"),
    [
        pytest.param(
            {"patch_size": 14}, {}, "contradicts itself: it says patch_size=14, its weights are of patch_size=16"
        ),
        pytest.param(
            {"segmentation_head": True},
            {},
            "contradicts itself: it says segmentation_head=True, its weights are of segmentation_head=False",
        ),
        pytest.param(
            {}, {"dec_layers": 4}, "contradicts itself: it says dec_layers=4, its weights are of dec_layers=2"
        ),
        pytest.param(
            {"use_grouppose_keypoints": True}, {}, "is a keypoint model; this library detects boxes and masks"
        ),
    ],
)
def test_a_file_that_contradicts_its_weights(
    settings: dict[str, Any], model_config: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        known_settings(weights(PRESETS["nano"]), settings, model_config)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        pytest.param(PRESETS["nano"], "RFDETRKeypointPreview", "is a keypoint model", id="keypoints"),
        pytest.param(
            PRESETS["large-deprecated"].replace(dec_layers=5), "RFDETR2XLarge", "is of detection XLarge or", id="name"
        ),
        pytest.param(
            PRESETS["nano"].replace(
                patch_size=20, resolution=400, positional_encoding_size=20, hidden_dim=512, encoder_width=768
            ),
            None,
            "is of detection XLarge or 2XLarge. Their weights are not under Apache-2.0",
            id="shapes",
        ),
    ],
)
def test_models_that_this_library_does_not_have(config: ModelConfig, name: str | None, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        found(config, name)


def test_what_weights_can_be_fitted_to_is_no_difference() -> None:
    known = traits(PRESETS["large"].replace(num_classes=3, num_queries=50, group_detr=1))
    assert differences(known, PRESETS["medium"]) == []


def test_differences() -> None:
    assert differences(traits(PRESETS["seg-small"]), PRESETS["base"]) == [
        "patch_size: 12 in the file, 14 in the model",
        "num_windows: 2 in the file, 4 in the model",
        "out_feature_indexes: (3, 6, 9, 12) in the file, (2, 5, 8, 11) in the model",
        "dec_layers: 4 in the file, 3 in the model",
        "segmentation_head: True in the file, False in the model",
    ]
    assert differences({"sampling_points": 8}, PRESETS["nano"]) == ["sampling_points: 8 in the file, 32 in the model"]
