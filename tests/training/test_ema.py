import math

import pytest
import torch

from rfdetr.models.detector import Detector
from rfdetr.training.ema import Ema, ema_decay

from .tiny import TINY

# A weight that no loss depends on.
FROZEN = "transformer.decoder.ref_point_head.layers.0.weight"


@pytest.mark.parametrize(
    ("update", "tau", "expected"),
    [
        pytest.param(1, 100, 0.0, id="the first update copies"),
        pytest.param(2, 100, 0.9 * (1 - math.exp(-0.02)), id="rising"),
        pytest.param(100_000, 100, 0.9, id="risen"),
        pytest.param(2, 0, 0.9, id="no rise"),
    ],
)
def test_decay_of_an_update(update: int, tau: float, expected: float) -> None:
    assert ema_decay(update, 0.9, tau) == pytest.approx(expected, abs=1e-12)


def test_the_average_is_that_of_the_closed_form() -> None:
    detector = Detector(TINY)
    ema = Ema(detector, decay=0.9, tau=0)
    weight, averaged = detector.class_embed.weight.data, ema.detector.class_embed.weight
    frozen = ema.detector.state_dict()[FROZEN].clone()
    expected = torch.zeros(())
    for update, value in enumerate([3.0, 5.0, -1.0], start=1):
        weight.fill_(value)
        ema.update(detector, update)
        expected = torch.tensor(value) if update == 1 else 0.9 * expected + 0.1 * value
        torch.testing.assert_close(averaged, expected.expand_as(averaged))
    assert torch.equal(ema.detector.state_dict()[FROZEN], frozen)


def test_the_average_is_a_detector_of_its_own_for_evaluation() -> None:
    detector = Detector(TINY).train()
    ema = Ema(detector, decay=0.9, tau=0)
    assert not ema.detector.training
    assert not any(parameter.requires_grad for parameter in ema.detector.parameters())
    detector.class_embed.weight.data.fill_(7)
    assert not (ema.detector.class_embed.weight == 7).any()
