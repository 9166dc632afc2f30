import pytest

from rfdetr.config.runs import TrainConfig
from rfdetr.training.schedules import lr_factor


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, {0: 1.0, 9: 1.0, 39: 1.0}, id="constant"),
        pytest.param({"lr_drop": 2}, {0: 1.0, 19: 1.0, 20: 0.1, 39: 0.1}, id="one drop"),
        pytest.param({"warmup_epochs": 1}, {0: 0.0, 5: 0.5, 9: 0.9, 10: 1.0}, id="warm-up from zero"),
        pytest.param({"warmup_epochs": 0.25}, {0: 0.0, 1: 0.5, 2: 1.0}, id="part of an epoch"),
        pytest.param({"lr_scheduler": "cosine"}, {0: 1.0, 20: 0.5, 40: 0.0}, id="cosine"),
        pytest.param(
            {"lr_scheduler": "cosine", "warmup_epochs": 2, "lr_min_factor": 0.2},
            {10: 0.5, 20: 1.0, 30: 0.6, 40: 0.2},
            id="cosine with warm-up and floor",
        ),
    ],
)
def test_factor_at_step_of_four_epochs_with_ten_steps(settings: dict[str, object], expected: dict[int, float]) -> None:
    config = TrainConfig.from_dict({"dataset_dir": "data", "epochs": 4, **settings})
    assert {step: lr_factor(step, 10, config) for step in expected} == pytest.approx(expected)
