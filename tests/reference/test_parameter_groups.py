"""Learning rate and weight decay of every parameter against the recorded table."""

import pytest
import torch

from rfdetr.config.presets import preset
from rfdetr.config.runs import TrainConfig
from rfdetr.models.detector import Detector
from rfdetr.training.optimizer import parameter_groups
from rfdetr.weights.names import published_names
from tests.oracles import read_json


@pytest.mark.parametrize("size", ["nano", "base"])
def test_rate_and_decay_of_every_parameter(size: str) -> None:
    with torch.device("meta"):  # names and shapes suffice
        detector = Detector(preset(size))
    recorded = read_json(f"oracles/param_groups_{size}.json")
    groups = parameter_groups(detector.named_parameters(), detector.config, TrainConfig(dataset_dir="data"))
    found = {
        published: (group.lr, group.weight_decay)
        for group in groups
        for name in group.names
        for published in published_names(name)
    }
    table = {name: (lr, weight_decay) for name, lr, weight_decay in recorded["table"]}
    assert found.keys() == table.keys()
    for name, (lr, weight_decay) in table.items():
        assert found[name] == pytest.approx((lr, weight_decay), rel=1e-12), name
    assert len(groups) == len(recorded["merged_groups"])
