import pytest

from rfdetr.config.model import ModelConfig, ModelSettings, resolution_problems
from rfdetr.errors import ConfigError
from tests.tiny import TINY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"resolution": 100},
            "resolution=100 is not a multiple of patch_size x num_windows = 16; nearest: 96 or 112",
            id="resolution between two",
        ),
        pytest.param(
            {"resolution": 10},
            "resolution=10 is not a multiple of patch_size x num_windows = 16; nearest: 16",
            id="resolution below all",
        ),
        pytest.param({"encoder_heads": 5}, "encoder_heads=5 must divide encoder_width=24", id="heads of the ViT"),
        pytest.param({"sa_nheads": 5}, "sa_nheads=5 must divide hidden_dim=32", id="heads of self-attention"),
        pytest.param({"ca_nheads": 3}, "ca_nheads=3 must divide hidden_dim=32", id="heads of cross-attention"),
        pytest.param(
            {"out_feature_indexes": (1, 5)},
            "out_feature_indexes (1, 5) exceed encoder_depth=4",
            id="features of blocks that do not exist",
        ),
        pytest.param({"num_classes": 0}, "num_classes: input should be greater than 0, got 0", id="no classes"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TINY.replace(**changes)
    assert str(caught.value) == f"ModelConfig: {message}"


def test_the_block_size_is_what_sizes_are_multiples_of() -> None:
    assert TINY.block_size == 16
    for resolution in (16, 64, 160):
        assert resolution_problems(resolution, TINY.block_size) == []


def test_it_is_saved_as_plain_values() -> None:
    assert ModelConfig.from_dict(TINY.plain()) == TINY


def test_only_what_was_set_changes_the_architecture() -> None:
    settings = ModelSettings(num_queries=100, device="cpu", pretrain_weights=None)
    assert settings.architecture() == {"num_queries": 100}
    assert ModelSettings().architecture() == {}


@pytest.mark.parametrize("word", ["none", "None", "NONE", "null", ""])
def test_no_weights_by_name(word: str) -> None:
    assert ModelSettings(pretrain_weights=word).pretrain_weights is None


def test_two_sources_of_weights_and_another_mistake_are_said_together() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSettings(encoder_weights="vit.safetensors", num_queries=0)
    assert str(caught.value).splitlines() == [
        "ModelSettings has 2 problems:",
        "  num_queries: input should be greater than 0, got 0",
        "  encoder_weights is for training from scratch, but pretrain_weights='published' brings an encoder of its "
        "own; add pretrain_weights=None",
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", None])
def test_devices(device: str | None) -> None:
    assert ModelSettings(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSettings(device=device)
    message = f"device: must be 'cpu', 'cuda', 'cuda:<index>' or 'mps', got {device!r}"
    assert str(caught.value) == f"ModelSettings: {message}"
