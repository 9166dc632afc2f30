import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from rfdetr.config.runs import TrainConfig
from rfdetr.models.detector import Detector
from rfdetr.training.optimizer import build_optimizer, parameter_groups

from .stops import assert_same
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


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603


def test_training_does_without_the_compiler_of_torch() -> None:
    """Importing it takes longer than some hundred small steps."""
    code = (
        "import sys, torch\n"
        "import rfdetr.training.run\n"
        "from rfdetr.training.optimizer import AdamW\n"
        "weight = torch.ones(3, requires_grad=True)\n"
        "optimizer = AdamW([weight], fused=True)\n"
        "optimizer.zero_grad()\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert run_python(code) == "False\n"


def test_an_update_is_that_of_torch_to_the_last_bit() -> None:
    """So is the state: each goes on from the other's."""
    ours, theirs = (Detector(TINY) for _ in range(2))
    own = build_optimizer(ours, TINY, CONFIG)
    groups = [{**group, "params": parameters_like(group["params"], ours, theirs)} for group in own.param_groups]
    other = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
    for _ in range(2):
        for _ in range(3):
            learn(ours, own)
            learn(theirs, other)
        assert_same(ours.state_dict(), theirs.state_dict())
        assert_same(own.state_dict(), other.state_dict())
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in (own, other)]
        own.load_state_dict(states[1])
        other.load_state_dict(states[0])


def parameters_like(parameters: list[nn.Parameter], module: nn.Module, twin: nn.Module) -> list[nn.Parameter]:
    """The parameters of the twin that have the same names."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [twin.get_parameter(names[id(parameter)]) for parameter in parameters]


def learn(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    torch.stack(
        [parameter.pow(3).sum() for parameter in module.parameters() if parameter.requires_grad]
    ).sum().backward()
    optimizer.step()
