import pytest
import torch

from rfdetr.api import SIZES
from rfdetr.config.model import ModelSettings
from rfdetr.config.presets import PRESETS, class_name, configure, preset
from rfdetr.errors import ConfigError
from rfdetr.models.detector import Detector

NEW, OLD = (3, 6, 9, 12), (2, 5, 8, 11)


# The published table: resolution, patch, windows, position grid, decoder layers, features, queries, parameters.
@pytest.mark.parametrize(
    ("size", "row"),
    [
        ("nano", (384, 16, 2, 24, 2, NEW, 300, 30_467_298)),
        ("small", (512, 16, 2, 32, 3, NEW, 300, 32_111_170)),
        ("medium", (576, 16, 2, 36, 4, NEW, 300, 33_687_458)),
        ("large", (704, 16, 2, 44, 4, NEW, 300, 33_933_218)),
        ("base", (560, 14, 4, 37, 3, OLD, 300, 32_174_530)),
        ("large-deprecated", (560, 14, 4, 37, 3, OLD, 300, 135_637_474)),
        ("seg-nano", (312, 12, 1, 26, 4, NEW, 100, 33_577_475)),
        ("seg-small", (384, 12, 2, 32, 4, NEW, 100, 33_711_107)),
        ("seg-medium", (432, 12, 2, 36, 5, NEW, 200, 35_694_259)),
        ("seg-large", (504, 12, 2, 42, 5, NEW, 200, 35_873_971)),
        ("seg-xlarge", (624, 12, 2, 52, 6, NEW, 300, 38_113_635)),
        ("seg-2xlarge", (768, 12, 2, 64, 6, NEW, 300, 38_648_163)),
        ("seg-preview", (432, 12, 2, 36, 4, NEW, 200, 34_153_555)),
    ],
    ids=list(PRESETS),
)
def test_the_published_sizes(size: str, row: tuple[object, ...]) -> None:
    config = preset(size)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Detector(config).parameters())
    assert row == (
        config.resolution,
        config.patch_size,
        config.num_windows,
        config.positional_encoding_size,
        config.dec_layers,
        config.out_feature_indexes,
        config.num_queries,
        parameters,
    )
    assert config.num_select == config.num_queries
    assert config.segmentation_head == size.startswith("seg-")


def test_what_all_sizes_share() -> None:
    for config in PRESETS.values():
        assert (config.encoder_depth, config.group_detr, config.num_classes) == (12, 13, 90)


def test_only_the_deprecated_large_is_of_another_width() -> None:
    for size, config in PRESETS.items():
        is_wide = size == "large-deprecated"
        assert (config.encoder_width, config.encoder_heads) == ((768, 12) if is_wide else (384, 6))
        widths = (config.hidden_dim, config.sa_nheads, config.ca_nheads, config.dec_n_points, config.projector_scale)
        assert widths == ((384, 12, 24, 4, ("P3", "P5")) if is_wide else (256, 8, 16, 2, ("P4",)))


@pytest.mark.parametrize(
    ("size", "name"),
    [("nano", "RFDETRNano"), ("seg-2xlarge", "RFDETRSeg2XLarge"), ("large-deprecated", "RFDETRLargeDeprecated")],
)
def test_the_class_of_a_size(size: str, name: str) -> None:
    assert class_name(size) == name
    assert SIZES[size].__name__ == name


def test_each_size_knows_its_name() -> None:
    assert [config.size for config in PRESETS.values()] == list(PRESETS)


@pytest.mark.parametrize(
    ("size", "settings", "grid"),
    [
        pytest.param("nano", {"resolution": 512}, 32, id="follows the resolution"),
        pytest.param("nano", {"num_queries": 100}, 24, id="stays with the resolution"),
        pytest.param("nano", {"resolution": 512, "positional_encoding_size": 24}, 24, id="as the user says"),
        pytest.param("base", {"resolution": 448}, 37, id="base keeps that of DINOv2"),
    ],
)
def test_the_position_grid(size: str, settings: dict[str, int], grid: int) -> None:
    assert configure(preset(size), ModelSettings.from_dict(settings)).positional_encoding_size == grid


@pytest.mark.parametrize(
    ("settings", "num_select"),
    [
        pytest.param({}, 300, id="the size's own"),
        pytest.param({"num_queries": 100}, 100, id="no more than queries"),
        pytest.param({"num_queries": 500}, 300, id="not more because of more queries"),
        pytest.param({"num_queries": 100, "num_select": 200}, 200, id="as the user says"),
    ],
)
def test_detections_kept(settings: dict[str, int], num_select: int) -> None:
    assert configure(preset("nano"), ModelSettings.from_dict(settings)).num_select == num_select


def test_a_resolution_that_does_not_fit() -> None:
    with pytest.raises(ConfigError) as caught:
        configure(preset("base"), ModelSettings(resolution=640))
    assert str(caught.value) == (
        "ModelConfig: resolution=640 is not a multiple of patch_size x num_windows = 56; nearest: 616 or 672"
    )


@pytest.mark.parametrize(
    ("name", "hint"), [("nanoo", " Did you mean 'nano'?"), ("huge", ""), ("Medium", " Did you mean 'medium'?")]
)
def test_no_such_size(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(name)
    assert str(caught.value) == f"model: no size {name!r}. Sizes: {', '.join(PRESETS)}.{hint}"
