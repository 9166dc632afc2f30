from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rfdetr.errors import WeightsError
from rfdetr.weights.layouts import class_names_of, published_weights, settings_of

ONE, TWO = torch.ones(1), torch.full((1,), 2.0)
NAME = "class_embed.bias"
LARGE = 1 << 30


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"model": {NAME: ONE}, "epoch": 3}, id="released"),
        pytest.param({"model": OrderedDict({NAME: ONE}), "state_dict": {f"model.{NAME}": TWO}}, id="newer best"),
        pytest.param({"state_dict": {f"model.{NAME}": ONE, "criterion.weight": TWO}}, id="Lightning"),
        pytest.param({"state_dict": {f"model._orig_mod.{NAME}": ONE}}, id="Lightning, compiled"),
        pytest.param({"model": {f"module.{NAME}": ONE}}, id="distributed"),
        pytest.param({"model": {NAME: ONE}, "ema_model": {NAME: TWO}}, id="averaged weights beside them"),
        pytest.param(
            {"model": {}, "ema_model": {f"module.{NAME}": ONE, "n_averaged": TWO}}, id="averaged weights only"
        ),
        pytest.param({"state_dict": {f"model.{NAME}": ONE}, "legacy_ema_state_dict": {NAME: TWO}}, id="converted"),
        pytest.param({"legacy_ema_state_dict": {NAME: ONE}}, id="converted, averages only"),
        pytest.param({NAME: ONE}, id="a state dict alone"),
        pytest.param({"model": {NAME: ONE, "_kp_active_mask": torch.zeros(0, 0).bool()}}, id="with an unused mask"),
    ],
)
def test_the_weights_of_each_layout(content: dict[str, Any]) -> None:
    assert published_weights(content, LARGE) == {NAME: ONE}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param([1], "not a checkpoint of RF-DETR: no weights under 'model' or 'state_dict'", id="no dict"),
        pytest.param({"a": 1}, "not a checkpoint of RF-DETR: no weights under 'model' or 'state_dict'", id="no tensor"),
        pytest.param({}, "not a checkpoint of RF-DETR: no weights under 'model' or 'state_dict'", id="nothing"),
        pytest.param(
            {"backbone.0.encoder.base_model.model.encoder.layernorm.weight": ONE},
            "holds LoRA adapters; merge them into the encoder (merge_and_unload of PEFT) and save again",
            id="LoRA",
        ),
        pytest.param(
            {"keypoint_head.weight": ONE},
            "is a keypoint model; this library detects boxes and masks",
            id="keypoints",
        ),
        pytest.param(
            {"_kp_active_mask": torch.ones(2, 17).bool()},
            "is a keypoint model; this library detects boxes and masks",
            id="active keypoints",
        ),
        pytest.param(
            {"backbone.0.encoder.encoder.embeddings.register_tokens": ONE},
            "its encoder has register tokens, which no published size has",
            id="registers",
        ),
        pytest.param(
            {"a": torch.ones(2).char()},
            "a holds no plain floating-point numbers (torch.int8); is it quantised?",
            id="whole numbers",
        ),
        pytest.param(
            {"a": torch.empty(2, device="meta")},
            "a holds no plain floating-point numbers (torch.float32); is it quantised?",
            id="no numbers",
        ),
        pytest.param(
            {"a": torch.eye(2).to_sparse()},
            "a holds no plain floating-point numbers (torch.float32); is it quantised?",
            id="sparse",
        ),
        pytest.param(
            {"a": torch.ones(1).expand(1 << 20, 1 << 20)},
            "damaged: its tensors claim to be larger than the file",
            id="one number that pretends to be many",
        ),
        pytest.param(
            {name: torch.full((2,), float("nan")) for name in "abcde"},
            "holds numbers that are not finite, in a, b, c and 2 more; its training diverged",
            id="not finite",
        ),
    ],
)
def test_weights_that_cannot_be_those_of_a_detector(model: object, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        published_weights({"model": model}, LARGE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ({"args": {"lr": 1}}, {"lr": 1}),
        ({"args": SimpleNamespace(lr=1)}, {"lr": 1}),
        ({"args": None, "hyper_parameters": {"lr": 1}}, {"lr": 1}),
        ({"args": {"lr": 1, 3: 4}}, {"lr": 1}),
        ({"args": [1]}, {}),
        ({}, {}),
    ],
    ids=str,
)
def test_settings(content: dict[str, Any], settings: dict[str, Any]) -> None:
    assert settings_of(content) == settings


def nested(depth: int) -> list[Any]:
    """A list that is small, and whose text would fill the memory."""
    found: list[Any] = ["x"]
    for _ in range(depth):
        found = [found, found]
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        ("a", ["a"]),
        ([0, 1], ["0", "1"]),
        (None, []),
        ({"a": 1}, []),
        (nested(60), []),
    ],
    ids=["list", "tuple", "one", "numbers", "none", "mapping", "nested"],
)
def test_class_names(names: object, expected: list[str]) -> None:
    assert class_names_of({"class_names": names}) == expected


def test_weights_are_not_copied() -> None:
    model: dict[str, Tensor] = {NAME: ONE}
    assert published_weights({"model": model}, LARGE)[NAME] is ONE
