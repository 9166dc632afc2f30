"""One training step: forward, backward, optimiser, average."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rfdetr.config.runs import TrainConfig
from rfdetr.data.collation import on_device
from rfdetr.devices import autocast_dtype
from rfdetr.distributed import gathered, rank_and_world_size
from rfdetr.errors import TrainingError
from rfdetr.models.criterion import Losses, detection_losses, kind_of, total_loss
from rfdetr.models.detector import Detector
from rfdetr.models.mask_points import MaskSupervision
from rfdetr.models.on_host import OnHost
from rfdetr.training.ema import Ema
from rfdetr.training.optimizer import build_optimizer, restore_optimizer
from rfdetr.training.schedules import lr_factor
from rfdetr.training.state import Progress
from rfdetr.types import ImageBatch, Target
from rfdetr.weights.names import from_published, to_published


class Wishes(NamedTuple):
    """What a process wants to happen after a step; granted to all as soon as one asks."""

    stop: bool = False
    save: bool = False
    note: bool = False
    """Of images that could not be read."""


class TrainingStep:
    """A step takes all micro-batches of one effective batch, so that losses are averaged over its objects as a whole.

    Any split of the same images into batch_size x grad_accum_steps x devices gives the same gradient,
    drop_path aside.

    Args:
        detector: on its device, in training mode.
        config: of the run.
        progress: where the run stands; moved on by each step.
        steps_per_epoch: of the run.
        device: where the detector is.
        exchanges: whether the processes of a group share their gradients; else each is on its own.
    """

    def __init__(
        self,
        detector: Detector,
        config: TrainConfig,
        progress: Progress,
        steps_per_epoch: int,
        device: torch.device,
        exchanges: bool = True,
    ) -> None:
        self.detector = detector
        self.config = config
        self.progress = progress
        self.steps_per_epoch = steps_per_epoch
        self.device = device
        self.dtype = autocast_dtype(config.precision, device)
        self.optimizer = build_optimizer(detector, detector.config, config)
        self.ema = Ema(detector, config.ema_decay, config.ema_tau) if config.use_ema else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.rank, _ = rank_and_world_size()
        self.parallel = _parallel(detector, device) if exchanges and dist.is_initialized() else None
        self.loss_sums: Losses = {}
        """Of the epoch under way, of this process."""
        self.steps_summed = 0
        self._last_loss: OnHost | None = None
        self._last_step = (0, 0)

    def __call__(self, batches: list[ImageBatch], wishes: Callable[[], Wishes] = Wishes) -> Wishes:
        """Learn from all micro-batches of a step; gives what the processes want to happen next.

        A lone process is asked after the step, several are before it, as they exchange a number there anyway.
        """
        self._seed()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(self.progress.step, self.steps_per_epoch, self.config)
        self.optimizer.zero_grad()
        granted = self._backward(batches, wishes() if self.parallel else Wishes())
        if self.config.clip_max_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.clip_max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.progress.next_step()
        if self.ema:
            self.ema.update(self.detector, self.progress.step)
        return granted if self.parallel else wishes()

    def _backward(self, batches: list[ImageBatch], wishes: Wishes) -> Wishes:
        groups = self.detector.config.group_detr
        num_boxes, votes = self._exchange([target for batch in batches for target in batch.targets], groups, wishes)
        supervision = mask_supervision(self.config, _mixed(self.progress.seed, self.progress.step))
        step_losses: Losses = {}
        for batch, sync in zip(batches, self._synchronise_last(len(batches)), strict=True):
            with sync:
                losses = self._learn_from(batch, num_boxes, supervision)
            for name, loss in losses.items():
                step_losses[name] = step_losses.get(name, 0) + loss
        last_loss = total_loss(step_losses, loss_weights(self.config))
        self._last_loss = OnHost(last_loss)
        self._last_step = (self.progress.epoch + 1, self.progress.step_in_epoch + 1)
        self._record({**by_kind(step_losses), "loss": last_loss})
        return Wishes(*(vote > 0 for vote in votes.read().tolist()))

    def _learn_from(self, host_batch: ImageBatch, num_boxes: Tensor, supervision: MaskSupervision) -> Losses:
        """Add a micro-batch's gradients. A method, so that its images and outputs are gone before the next one."""
        batch = on_device(host_batch, self.device)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = (self.parallel or self.detector)(batch.images)
            losses = detection_losses(outputs, batch.targets, num_boxes, self.detector.config.group_detr, supervision)
        # Its copy to the host was begun before that of the assignment, which has come.
        self._raise_unless_finite()
        self.scaler.scale(total_loss(losses, loss_weights(self.config))).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _exchange(self, targets: list[Target], groups: int, wishes: Wishes) -> tuple[Tensor, OnHost]:
        """Objects of the step over all ranks and groups, at least 1, divided by the ranks (gradients are averaged).

        And how many ranks have each of the wishes.
        """
        objects = float(sum(len(target["labels"]) for target in targets) * groups)
        counts = torch.tensor([objects, *map(float, wishes)])
        if self.parallel is None:
            return counts[0].clamp(min=1), OnHost(counts[1:])
        counts = counts.to(self.device, non_blocking=True)
        dist.all_reduce(counts)
        # Not at least 1 on each rank: then a step without objects would depend on the number of ranks.
        return counts[0].clamp(min=1) / dist.get_world_size(), OnHost(counts[1:])

    def _synchronise_last(self, count: int) -> Iterator[AbstractContextManager[Any]]:
        """Ranks exchange gradients in the backward pass of the last micro-batch only."""
        for index in range(count):
            yield self.parallel.no_sync() if self.parallel and index < count - 1 else nullcontext()

    def _seed(self) -> None:
        """Random numbers of a step depend on (seed, step, rank) alone."""
        torch.manual_seed(_mixed(self.progress.seed, self.progress.step, self.rank))

    def _record(self, losses: Losses) -> None:
        for name, loss in losses.items():
            self.loss_sums[name] = self.loss_sums[name] + loss if name in self.loss_sums else loss
        self.steps_summed += 1

    def mean_losses(self) -> dict[str, float]:
        """Means over the steps of the epoch so far, of all ranks."""
        self._raise_unless_finite()
        sums = torch.stack(list(self.loss_sums.values()))
        if self.parallel:
            dist.all_reduce(sums)
            sums /= dist.get_world_size()
        return dict(zip(self.loss_sums, (sums / self.steps_summed).tolist(), strict=True))

    def forget_losses(self) -> None:
        """The next epoch has sums of its own."""
        self.loss_sums, self.steps_summed = {}, 0

    def rates(self) -> dict[str, float]:
        """Learning rates of the last step: of the heads, and of the ViT's last block."""
        factor = lr_factor(max(self.progress.step - 1, 0), self.steps_per_epoch, self.config)
        encoder = self.config.lr_encoder * self.config.lr_component_decay**2
        return {"lr": self.config.lr * factor, "lr_encoder": 0.0 if self.config.freeze_encoder else encoder * factor}

    def _raise_unless_finite(self) -> None:
        if self._last_loss is not None and not self._last_loss.read().isfinite():
            epoch, step = self._last_step
            saved = f"; the state after epoch {epoch - 1} is in {self.config.output_dir}" if epoch > 1 else ""
            raise TrainingError(
                f"the loss is no longer finite (epoch {epoch}, step {step}). "
                f"Try a lower lr, clip_max_norm=0.1 or precision='32'{saved}"
            )

    def state(self) -> dict[str, Any]:
        """All that the next step depends on beside the weights and `progress`. Every rank has to ask for it."""
        sums = {name: loss.cpu() for name, loss in self.loss_sums.items()}
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_model": to_published(self.ema.detector.state_dict()) if self.ema else None,
            "losses": gathered({"steps": self.steps_summed, "sums": sums}),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ConfigError: the settings group the parameters in another way.
        """
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.ema and state["ema_model"]:
            self.ema.detector.load_state_dict(from_published(state["ema_model"]))
        ranks, (rank, size) = state["losses"], rank_and_world_size()
        own = ranks if len(ranks) == size else [_merged(ranks)] * size
        self.steps_summed = own[rank]["steps"]
        self.loss_sums = {name: loss.to(self.device) for name, loss in own[rank]["sums"].items()}


def _mixed(*seeds: int) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


def _merged(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over the ranks of a run that had another number of them."""
    names = ranks[0]["sums"]
    means = {name: torch.stack([rank["sums"][name] for rank in ranks]).mean() for name in names}
    return {"steps": ranks[0]["steps"], "sums": means}


def _parallel(detector: Detector, device: torch.device) -> DistributedDataParallel:
    """Gradients are computed where they are exchanged, not copied there and back."""
    devices = [device] if device.type == "cuda" else None
    # It does so for those of 1 x 1 convolutions, whose elements lie in the same order for all that.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(detector, device_ids=devices, gradient_as_bucket_view=True)


def exchange_bytes(detector: Detector, config: TrainConfig, devices: int) -> int:
    """What DistributedDataParallel holds more at most: its gradients stay when those of a lone process are let go."""
    if devices == 1 and config.strategy != "ddp":
        return 0
    return sum(parameter.nbytes for parameter in detector.parameters() if parameter.requires_grad)


def loss_weights(config: TrainConfig) -> dict[str, float]:
    return {
        "loss_ce": config.cls_loss_coef,
        "loss_bbox": config.bbox_loss_coef,
        "loss_giou": config.giou_loss_coef,
        "loss_mask_ce": config.mask_ce_loss_coef,
        "loss_mask_dice": config.mask_dice_loss_coef,
    }


def mask_supervision(config: TrainConfig, seed: int) -> MaskSupervision:
    return MaskSupervision(config.mask_ce_loss_coef, config.mask_dice_loss_coef, config.mask_point_sample_ratio, seed)


def by_kind(losses: Losses) -> Losses:
    """The losses of the last layer, and for each kind the sum over the other layers as `<kind>_aux`."""
    summed: Losses = {}
    for name, loss in losses.items():
        kind = kind_of(name)
        key = name if name == kind else f"{kind}_aux"
        summed[key] = summed[key] + loss if key in summed else loss
    return summed
