"""Exponential moving average of the weights."""

import copy
import math

import torch

from rfdetr.models.detector import Detector


def ema_decay(update: int, decay: float, tau: float) -> float:
    """Decay of the given update, counted from 1. It rises to `decay` over about `tau` updates; the first one copies."""
    if update == 1:
        return 0.0
    return decay * (1 - math.exp(-update / tau)) if tau else decay


class Ema:
    """A detector whose weights follow those of another. Its buffers and frozen weights are the same from the start."""

    def __init__(self, detector: Detector, decay: float, tau: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self._pairs: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    @torch.no_grad()
    def update(self, detector: Detector, update: int) -> None:
        """Move towards the detector, which must be the same object in every call; `update` counts from 1."""
        if self._pairs is None:
            live = dict(detector.named_parameters())
            names = [name for name, parameter in live.items() if parameter.requires_grad]
            own = dict(self.detector.named_parameters())
            self._pairs = [own[name].data for name in names], [live[name] for name in names]
        averaged, current = self._pairs
        torch._foreach_lerp_(averaged, current, weight=1 - ema_decay(update, self.decay, self.tau))
