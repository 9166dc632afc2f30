"""The moving average against the recorded one."""

import pytest
import torch

from rfdetr.models.detector import Detector
from rfdetr.training.ema import Ema, ema_decay
from tests.oracles import read_json
from tests.tiny import TINY


def test_decay_of_every_update() -> None:
    recorded = read_json("oracles/ema.json")
    decays = recorded["effective_decay_for_update_1..20"]
    found = [ema_decay(update, recorded["decay"], recorded["tau"]) for update in range(1, 21)]
    assert found == pytest.approx([0, *decays[1:]], rel=1e-12)  # the first update copies


def test_a_traced_average() -> None:
    """Weights that are [k, k^2, 1/k] at update k. The record took 1/k in float32."""
    detector = Detector(TINY).double()
    weight = detector.class_embed.bias
    ema = Ema(detector, decay=0.993, tau=100)
    averaged = ema.detector.class_embed.bias
    for update, (recorded, *_) in enumerate(read_json("oracles/ema.json")["trace"], start=1):
        with torch.no_grad():
            weight[:3] = torch.tensor([update, update**2, 1 / update], dtype=torch.float64)
        ema.update(detector, update)
        assert averaged[:3].tolist() == pytest.approx(recorded, rel=1e-7)
