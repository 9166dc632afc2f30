from pathlib import Path
from typing import Any

import pytest

from rfdetr.errors import ConfigError
from rfdetr.training.trainer import build_trainer

from .tiny import CPU, tiny_config


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param(
            {"precision": "fp16"}, r"precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'", id="half precision"
        ),
        pytest.param({"accelerator": "abacus"}, r"accelerator, devices, strategy: .*'abacus'", id="accelerator"),
        pytest.param({"devices": "all of them"}, "accelerator, devices, strategy: .*int > 0", id="devices"),
        pytest.param({"strategy": "divide"}, "accelerator, devices, strategy: .*'divide'", id="strategy"),
        pytest.param({"devices": 2, "strategy": "ddp_spawn"}, "use strategy='ddp' in a script", id="spawned processes"),
    ],
)
def test_what_lightning_cannot_do_is_a_setting_error(settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        build_trainer(tiny_config(tmp_path, tmp_path, **settings), CPU, [], epochs=1)


@pytest.mark.parametrize(
    ("precision", "lightning_name"), [("auto", "32-true"), ("32", "32-true"), ("bf16", "bf16-mixed")]
)
def test_number_format_on_the_cpu(precision: str, lightning_name: str, tmp_path: Path) -> None:
    trainer = build_trainer(tiny_config(tmp_path, tmp_path, precision=precision), CPU, [], epochs=1)
    assert trainer.precision == lightning_name
