"""Learning-rate factor as a function of the step."""

import math

from rfdetr.config.runs import TrainConfig

STEP_FACTOR = 0.1


def lr_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """What every group's rate is multiplied with at the given optimiser step, counted from 0.

    A linear warm-up from 0, then 1 with one drop ("step") or half a cosine wave down to `lr_min_factor` ("cosine").
    """
    warmup = int(steps_per_epoch * config.warmup_epochs)
    if step < warmup:
        return step / warmup
    if config.lr_scheduler == "step":
        return 1.0 if step < config.lr_drop * steps_per_epoch else STEP_FACTOR
    total = steps_per_epoch * config.epochs
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return config.lr_min_factor + (1 - config.lr_min_factor) * 0.5 * (1 + math.cos(math.pi * progress))
