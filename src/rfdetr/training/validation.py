"""Evaluation of the weights on the validation split, with their losses."""

from collections.abc import Callable

import torch

from rfdetr.config.runs import TrainConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.unreadable import Unreadable, of_all_processes
from rfdetr.devices import autocast_dtype
from rfdetr.distributed import gathered
from rfdetr.evaluation.evaluate import run_all
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.models.criterion import Losses, detection_losses, total_loss
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import REGULAR
from rfdetr.training.step import by_kind, loss_weights, mask_supervision
from rfdetr.types import ImageBatch, RawOutputs


def evaluate_weights(
    detectors: dict[str, Detector],
    annotations: Annotations,
    config: TrainConfig,
    device: torch.device,
    compute_loss: bool,
    is_interrupted: Callable[[], bool] = lambda: False,
    note_unreadable: Callable[[Unreadable], None] = lambda _: None,
) -> tuple[dict[str, EvaluationResult], dict[str, float]] | None:
    """Results by kind of weights, from one pass over the images, and the losses of the regular ones.

    None: interrupted on one of the processes. All of them call this and get the same. `note_unreadable` gets the images
    that could not be read on any of them, and are left out.
    """
    losses = ValidationLoss(device, config)
    evaluators, unreadable = run_all(
        detectors,
        annotations,
        batch_size=config.eval_batch_size or int(config.batch_size),
        max_dets=config.eval_max_dets,
        num_workers=config.num_workers,
        device=device,
        dtype=evaluation_dtype(config, device),
        observe=losses.add if compute_loss else None,
        is_interrupted=is_interrupted,
        pin_memory=config.pin_memory,
        prefetch_factor=config.prefetch_factor,
        max_bad_images=config.max_bad_images,
    )
    if any(gathered(is_interrupted())):
        return None
    note_unreadable(of_all_processes(unreadable))
    return {kind: evaluator.compute() for kind, evaluator in evaluators.items()}, losses.means()


def evaluation_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    return torch.float16 if config.fp16_eval else autocast_dtype(config.precision, device)


class ValidationLoss:
    """Losses over a whole split, normalised by its objects; the same however the split is batched."""

    def __init__(self, device: torch.device, config: TrainConfig) -> None:
        self.weights = loss_weights(config)
        self.supervision = mask_supervision(config, seed=0)
        self.one = torch.ones((), device=device)
        self.sums: Losses = {}
        self.objects = 0

    def add(self, kind: str, outputs: RawOutputs, batch: ImageBatch) -> None:
        """Add a batch; only the regular weights count, as in training."""
        if kind != REGULAR:
            return
        losses = detection_losses(outputs, batch.targets, self.one, groups=1, supervision=self.supervision)
        for name, loss in {**by_kind(losses), "loss": total_loss(losses, self.weights)}.items():
            self.sums[name] = self.sums.get(name, 0) + loss
        self.objects += sum(len(target["labels"]) for target in batch.targets)

    def means(self) -> dict[str, float]:
        """Over all ranks; empty if nothing was added anywhere."""
        parts = gathered(({name: loss.item() for name, loss in self.sums.items()}, self.objects))
        objects = max(sum(count for _, count in parts), 1)
        names = dict.fromkeys(name for sums, _ in parts for name in sums)
        return {name: sum(sums.get(name, 0.0) for sums, _ in parts) / objects for name in names}
