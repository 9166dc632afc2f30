"""One training step, as Lightning runs it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from rfdetr.config.runs import TrainConfig
from rfdetr.errors import TrainingError
from rfdetr.models.criterion import Losses, detection_losses, kind_of, total_loss
from rfdetr.models.detector import Detector
from rfdetr.models.mask_points import MaskSupervision
from rfdetr.training.ema import Ema
from rfdetr.training.optimizer import build_optimizer, restore_optimizer
from rfdetr.training.schedules import lr_factor
from rfdetr.training.state import Progress
from rfdetr.types import ImageBatch, Target


class TrainingModule(lightning.LightningModule):
    """A step takes all micro-batches of one effective batch, so that losses are averaged over its objects as a whole.

    Any split of the same images into batch_size x grad_accum_steps x devices gives the same gradient (masks, which
    are compared at random points: in expectation).
    """

    def __init__(
        self,
        detector: Detector,
        ema: Ema | None,
        config: TrainConfig,
        progress: Progress,
        steps_per_epoch: int,
        make_loader: Callable[[], DataLoader[Any]],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.detector = detector
        self.config = config
        self.progress = progress
        self.steps_per_epoch = steps_per_epoch
        self.make_loader = make_loader
        self.optimizer_state: dict[str, Any] | None = None
        """Of an earlier run that this one goes on from."""
        self.loss_sums: Losses = {}
        self.steps_summed = 0
        self._ema = [ema] if ema else []  # in a list, so that its weights are not taken for trained ones
        self._last_loss: Tensor | None = None
        self._last_step = (0, 0)

    @property
    def ema(self) -> Ema | None:
        return self._ema[0] if self._ema else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.detector, self.detector.config, self.config)
        if self.optimizer_state is not None:
            restore_optimizer(optimizer, self.optimizer_state)
        return optimizer

    def train_dataloader(self) -> DataLoader[Any]:
        return self.make_loader()

    def on_fit_start(self) -> None:
        if self.ema:
            self.ema.detector.to(self.device)

    def on_train_epoch_start(self) -> None:
        self.loss_sums, self.steps_summed = {}, 0

    def training_step(self, batches: list[ImageBatch], _: int) -> None:
        """Forward and backward of every micro-batch, then one optimiser step."""
        optimizer = self.optimizers(use_pl_optimizer=True)
        if isinstance(optimizer, list):
            raise TypeError("there is one optimiser")
        self._seed_step()
        factor = lr_factor(self.progress.step, self.steps_per_epoch, self.config)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.zero_grad()
        self._backward(batches)
        optimizer.step()
        self.progress.next_step(self.steps_per_epoch)
        if self.ema:
            self.ema.update(self.detector, self.progress.step)

    def _backward(self, batches: list[ImageBatch]) -> None:
        groups = self.detector.config.group_detr
        num_boxes = self._count_boxes([target for batch in batches for target in batch.targets], groups)
        step_losses: Losses = {}
        for batch, sync in zip(batches, self._synchronise_last(len(batches)), strict=True):
            with sync:
                outputs = self.detector(batch.images, batch.padding_mask)
                losses = detection_losses(outputs, batch.targets, num_boxes, groups, mask_supervision(self.config))
                # The assignment has just waited for the device, so looking at the last step's loss costs nothing.
                self._raise_unless_finite()
                self.manual_backward(total_loss(losses, loss_weights(self.config)))
            for name, loss in losses.items():
                step_losses[name] = step_losses.get(name, 0) + loss.detach()
        self._last_loss = total_loss(step_losses, loss_weights(self.config))
        self._last_step = (self.progress.epoch + 1, self.progress.step_in_epoch + 1)
        self._record({**by_kind(step_losses), "loss": self._last_loss})

    def _count_boxes(self, targets: list[Target], groups: int) -> Tensor:
        """Objects of the step over all ranks and groups, per rank (gradients are averaged over ranks), at least 1."""
        count = torch.tensor(float(sum(len(target["labels"]) for target in targets) * groups), device=self.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)
            count /= dist.get_world_size()
        return count.clamp(min=1)

    def _synchronise_last(self, count: int) -> Iterator[AbstractContextManager[Any]]:
        """Ranks exchange gradients in the backward pass of the last micro-batch only."""
        model = self.trainer.strategy.model
        for index in range(count):
            if isinstance(model, DistributedDataParallel) and index < count - 1:
                yield model.no_sync()
            else:
                yield nullcontext()

    def _seed_step(self) -> None:
        """Random numbers of a step depend on (seed, step, rank) alone."""
        sequence = np.random.SeedSequence([self.progress.seed, self.progress.step, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))

    def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
        if self.config.clip_max_norm:
            nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.clip_max_norm)

    def _record(self, losses: Losses) -> None:
        for name, loss in losses.items():
            self.loss_sums[name] = self.loss_sums[name] + loss if name in self.loss_sums else loss
        self.steps_summed += 1

    def mean_losses(self) -> dict[str, float]:
        """Means over the steps of the epoch, of all ranks."""
        self._raise_unless_finite()
        if not self.loss_sums:
            return {}
        sums = torch.stack(list(self.loss_sums.values()))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
            sums /= dist.get_world_size()
        return dict(zip(self.loss_sums, (sums / self.steps_summed).tolist(), strict=True))

    def _raise_unless_finite(self) -> None:
        if self._last_loss is not None and not self._last_loss.isfinite():
            epoch, step = self._last_step
            saved = f"; the state after epoch {epoch - 1} is in {self.config.output_dir}" if epoch > 1 else ""
            raise TrainingError(
                f"the loss is no longer finite (epoch {epoch}, step {step}). "
                f"Try a lower lr, clip_max_norm=0.1 or precision='32'{saved}"
            )


def loss_weights(config: TrainConfig) -> dict[str, float]:
    return {
        "loss_ce": config.cls_loss_coef,
        "loss_bbox": config.bbox_loss_coef,
        "loss_giou": config.giou_loss_coef,
        "loss_mask_ce": config.mask_ce_loss_coef,
        "loss_mask_dice": config.mask_dice_loss_coef,
    }


def mask_supervision(config: TrainConfig) -> MaskSupervision:
    return MaskSupervision(config.mask_ce_loss_coef, config.mask_dice_loss_coef, config.mask_point_sample_ratio)


def by_kind(losses: Losses) -> Losses:
    """The losses of the last layer, and for each kind the sum over the other layers as `<kind>_aux`."""
    summed: Losses = {}
    for name, loss in losses.items():
        kind = kind_of(name)
        key = name if name == kind else f"{kind}_aux"
        summed[key] = summed[key] + loss if key in summed else loss
    return summed
