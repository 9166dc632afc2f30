"""Parameter groups with layer-wise rates, and the optimiser over them."""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import unwrap
from typing import Any

import torch
from torch import nn

from rfdetr.config.model import ModelConfig
from rfdetr.config.runs import TrainConfig
from rfdetr.errors import ConfigError

# Of the ViT, matrices and layer scales decay, but not these (parts of names).
NO_DECAY = ("bias", "norm", "embeddings")


@dataclass
class ParameterGroup:
    """Parameters that learn alike."""

    lr: float
    weight_decay: float
    names: list[str]
    parameters: list[nn.Parameter]


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], model: ModelConfig, config: TrainConfig
) -> list[ParameterGroup]:
    """Parameters by learning rate and weight decay, in order of appearance (training recipe, section 4)."""
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for name, parameter in named_parameters:
        key = _rate_and_decay(name, model, config)
        group = groups.setdefault(key, ParameterGroup(*key, names=[], parameters=[]))
        group.names.append(name)
        group.parameters.append(parameter)
    return list(groups.values())


def _rate_and_decay(name: str, model: ModelConfig, config: TrainConfig) -> tuple[float, float]:
    if name.startswith("backbone.vit."):
        rate = config.lr_encoder * config.lr_component_decay**2 * config.lr_vit_layer_decay ** _distance(name, model)
        return rate, 0.0 if any(part in name for part in NO_DECAY) else config.weight_decay
    if name.startswith("transformer.decoder."):
        return config.lr * config.lr_component_decay, config.weight_decay
    return config.lr, config.weight_decay


def _distance(name: str, model: ModelConfig) -> int:
    """How many layers lie between a ViT parameter and the norm above the last stage that is used."""
    last = max(model.out_feature_indexes) + 2
    if ".embeddings." in name:
        return last
    if ".blocks." in name:
        return last - 1 - int(name.split(".blocks.")[1].split(".", maxsplit=1)[0])
    return 0


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an earlier run has accumulated; rates and weight decay are those of this run.

    Raises:
        ConfigError: that run grouped the parameters in another way.
    """
    sizes = [[len(group["params"]) for group in groups] for groups in (state["param_groups"], optimizer.param_groups)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            "resume: lr, lr_encoder, their decays, weight_decay and freeze_encoder group the parameters in another way "
            "than in the run"
        )
    wanted = [{key: group[key] for key in ("base_lr", "weight_decay")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        group.update(settings)


class AdamW(torch.optim.AdamW):
    """AdamW (arXiv:1711.05101) without torch's compiler.

    torch hides the methods of its optimisers from its compiler by decorators that import it when they are first called:
    seconds, and much memory. The functions below the decorators are the same.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def build_optimizer(module: nn.Module, model: ModelConfig, config: TrainConfig) -> AdamW:
    """AdamW, fused, over everything that trains. Each group keeps its rate in `base_lr`."""
    trained = ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)
    groups = [
        {"params": group.parameters, "lr": group.lr, "base_lr": group.lr, "weight_decay": group.weight_decay}
        for group in parameter_groups(trained, model, config)
    ]
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
