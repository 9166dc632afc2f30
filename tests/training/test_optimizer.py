import pytest

from rfdetr.config.runs import TrainConfig
from rfdetr.models.detector import Detector
from rfdetr.training.optimizer import build_optimizer, parameter_groups

from .tiny import TINY

CONFIG = TrainConfig(
    dataset_dir="data", lr=1.0, lr_encoder=2.0, lr_component_decay=0.5, lr_vit_layer_decay=0.1, weight_decay=0.3
)


@pytest.fixture(scope="module")
def rates() -> dict[str, tuple[float, float]]:
    """Name -> learning rate and weight decay."""
    groups = parameter_groups(Detector(TINY).named_parameters(), TINY, CONFIG)
    return {name: (group.lr, group.weight_decay) for group in groups for name in group.names}


@pytest.mark.parametrize(
    ("name", "lr", "weight_decay"),
    [
        pytest.param("class_embed.weight", 1.0, 0.3, id="head"),
        pytest.param("class_embed.bias", 1.0, 0.3, id="bias of a head"),
        pytest.param("query_feat.weight", 1.0, 0.3, id="queries"),
        pytest.param("transformer.enc_output.0.weight", 1.0, 0.3, id="two-stage selection"),
        pytest.param("transformer.decoder.norm.weight", 0.5, 0.3, id="decoder"),
        pytest.param("backbone.vit.blocks.2.attn.qkv.weight", 2.0 * 0.25 * 0.1**2, 0.3, id="last ViT block"),
        pytest.param("backbone.vit.blocks.0.attn.qkv.weight", 2.0 * 0.25 * 0.1**4, 0.3, id="first ViT block"),
        pytest.param("backbone.vit.blocks.0.attn.qkv.bias", 2.0 * 0.25 * 0.1**4, 0.0, id="bias of the ViT"),
        pytest.param("backbone.vit.embeddings.cls_token", 2.0 * 0.25 * 0.1**5, 0.0, id="embeddings"),
    ],
)
def test_rate_and_decay(name: str, lr: float, weight_decay: float, rates: dict[str, tuple[float, float]]) -> None:
    assert rates[name] == pytest.approx((lr, weight_decay))


def test_everything_that_trains_is_optimised_once() -> None:
    detector = Detector(TINY)
    optimizer = build_optimizer(detector, TINY, CONFIG)
    optimised = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    assert sorted(map(id, optimised)) == sorted(map(id, trained))
    assert all(group["base_lr"] == group["lr"] for group in optimizer.param_groups)


def test_without_decays_there_are_the_rates_of_encoder_and_rest() -> None:
    config = CONFIG.replace(lr_component_decay=1.0, lr_vit_layer_decay=1.0)
    groups = parameter_groups(Detector(TINY).named_parameters(), TINY, config)
    assert {group.lr for group in groups} == {1.0, 2.0}
