"""Learning rates of every optimiser step against the recorded ones."""

from typing import Any

import pytest

from rfdetr.config.runs import TrainConfig
from rfdetr.training.schedules import lr_factor
from tests.oracles import read_json

RECORDED: dict[str, Any] = read_json("oracles/lr_schedules.json")
# Their settings -> ours.
SETTINGS = {"lr_drop": "lr_drop", "min_factor": "lr_min_factor"}


@pytest.mark.parametrize("name", RECORDED)
def test_rates_of_every_step(name: str) -> None:
    run = RECORDED[name]
    config = TrainConfig.from_dict(
        {
            "dataset_dir": "data",
            "epochs": run["epochs"],
            "lr_scheduler": run["preset"],
            "warmup_epochs": run["warmup_epochs"],
            **{SETTINGS[key]: value for key, value in run["kwargs"].items()},
        }
    )
    factors = [lr_factor(step, run["steps_per_epoch"], config) for step in range(run["total_steps"])]
    recorded = run["lr_used_at_optimizer_step"]
    for factor, rates in zip(factors, recorded, strict=True):
        assert [rate * factor for rate in run["base_lr"]] == pytest.approx(rates, rel=1e-9, abs=1e-18)
