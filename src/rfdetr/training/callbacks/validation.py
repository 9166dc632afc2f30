"""At the end of an epoch: close its books and evaluate the weights."""

import time
from typing import Any

import lightning.pytorch as lightning
import torch

from rfdetr.config.runs import TrainConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches
from rfdetr.devices import autocast_dtype
from rfdetr.evaluation.evaluate import run_all
from rfdetr.evaluation.processes import gathered
from rfdetr.models.criterion import Losses, detection_losses, total_loss
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import EMA, REGULAR, EpochReport
from rfdetr.training.module import TrainingModule, by_kind, loss_weights, mask_supervision
from rfdetr.types import ImageBatch, RawOutputs


class Validation(lightning.Callback):
    """Makes the report of the epoch. Regular and averaged weights are evaluated on the same pass over the images."""

    def __init__(self, annotations: Annotations, config: TrainConfig, batches: EpochBatches) -> None:
        self.annotations = annotations
        self.config = config
        self.batches = batches
        self.report: EpochReport | None = None
        self._started = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not isinstance(module, TrainingModule):
            raise TypeError("only a TrainingModule has what a report needs")
        losses = module.mean_losses()  # waits for the device, so the clock is read after it
        seconds = time.perf_counter() - self._started
        epoch = module.progress.epoch
        self.report = EpochReport(
            epoch=epoch,
            step=module.progress.step,
            lr=max(group["lr"] for group in trainer.optimizers[0].param_groups),
            losses=losses,
            images_per_second=module.steps_summed * self.batches.images_per_step / seconds,
        )
        if epoch % self.config.eval_interval == 0 or epoch == self.config.epochs:
            self._evaluate(self.report, module)

    def _evaluate(self, report: EpochReport, module: TrainingModule) -> None:
        detectors: dict[str, Detector] = {REGULAR: module.detector}
        if module.ema:
            detectors[EMA] = module.ema.detector
        losses = ValidationLoss(module.device, self.config)
        evaluators = run_all(
            detectors,
            self.annotations,
            batch_size=self.config.eval_batch_size or self.config.batch_size,
            max_dets=self.config.eval_max_dets,
            num_workers=self.config.num_workers,
            device=module.device,
            dtype=evaluation_dtype(self.config, module.device),
            observe=losses.add if self.config.compute_val_loss else None,
        )
        report.results = {kind: evaluator.compute() for kind, evaluator in evaluators.items()}
        report.val_losses = losses.means()


def evaluation_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    return torch.float16 if config.fp16_eval else autocast_dtype(config.precision, device)


class ValidationLoss:
    """Losses over a whole split, normalised by its objects; the same however the split is batched.

    Masks are compared at random points, for each batch the same every time; so for them this holds in expectation.
    """

    def __init__(self, device: torch.device, config: TrainConfig) -> None:
        self.weights = loss_weights(config)
        self.supervision = mask_supervision(config)
        self.one = torch.ones((), device=device)
        self.sums: Losses = {}
        self.objects = 0

    def add(self, kind: str, outputs: RawOutputs, batch: ImageBatch) -> None:
        """Add a batch; only the regular weights count, as in training."""
        if kind != REGULAR:
            return
        with torch.random.fork_rng([self.one.device] if self.one.is_cuda else []):
            torch.manual_seed(batch.targets[0]["image_id"])
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
