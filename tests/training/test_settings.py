"""What each setting of a run changes, shown on the part that reads it. tests/config/test_page.py names all proofs."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.data.reading import read_split
from rfdetr.devices import multiplies_bfloat16
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.models.detector import Detector
from rfdetr.training.epoch import REGULAR, EpochReport
from rfdetr.training.run import Run
from rfdetr.training.selection import select
from rfdetr.training.setup import in_training
from rfdetr.training.state import Progress
from rfdetr.training.validation import evaluate_weights
from rfdetr.types import RawOutputs
from rfdetr.weights.checkpoint import load_checkpoint

from .tiny import CPU, STILL, recorded_gradients, tiny_config, tiny_detector, train_tiny


def opened(dataset_dir: Path, output_dir: Path, device: torch.device = CPU, **settings: Any) -> Run:
    """The parts of a run before its first step."""
    train_split = read_split(dataset_dir, "train")
    valid_split = read_split(dataset_dir, "valid")
    detector = tiny_detector(len(train_split.classes)).train()
    config = tiny_config(dataset_dir, output_dir, **settings)
    return Run(detector, train_split, valid_split, config, device)


def first_gradient(run: Run) -> Tensor:
    with recorded_gradients() as gradients:
        run.step(next(iter(run.loader)))
    return gradients[0]


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@contextmanager
def watched_passes() -> Iterator[list[tuple[bool, int, torch.dtype]]]:
    """Of every forward pass inside: whether it was one of training, its images, and the number format of its logits."""
    passes: list[tuple[bool, int, torch.dtype]] = []

    def note(module: nn.Module, _: Any, outputs: RawOutputs) -> None:
        if isinstance(module, Detector):
            passes.append((module.training, len(outputs["pred_logits"]), outputs["pred_logits"].dtype))

    hook = register_module_forward_hook(note)
    try:
        yield passes
    finally:
        hook.remove()


# Steps


@pytest.mark.parametrize(
    ("settings", "in_training", "in_evaluation"),
    [
        pytest.param({"batch_size": 2, "grad_accum_steps": 2}, [2, 2] * 5, [2, 1], id="batch_size"),
        pytest.param({"batch_size": 4, "eval_batch_size": 1}, [4] * 5, [1, 1, 1], id="eval_batch_size"),
    ],
)
def test_batch_sizes_are_the_images_of_a_forward_pass(
    settings: dict[str, Any], in_training: list[int], in_evaluation: list[int], dots: Path, tmp_path: Path
) -> None:
    with watched_passes() as passes:
        train_tiny(dots, tmp_path, use_ema=False, compute_val_loss=False, **settings)
    assert [images for is_training, images, _ in passes if is_training] == in_training
    assert [images for is_training, images, _ in passes if not is_training] == in_evaluation


RATES: dict[str, Any] = {"lr": 1e-3, "lr_encoder": 2e-3, "lr_component_decay": 0.5, "lr_vit_layer_decay": 0.6}


@pytest.fixture(scope="module")
def one_step(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Any]]:
    """The weights before and after a step."""

    def take(**settings: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        run = opened(dots, tmp_path_factory.mktemp("one_step"), **{**RATES, **settings})
        before = weights_of(run.detector)
        run.step(next(iter(run.loader)))
        return before, weights_of(run.detector)

    return take


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param("class_embed.weight", 1e-3, id="lr"),
        pytest.param("transformer.decoder.layers.0.linear1.weight", 1e-3 * 0.5, id="lr_component_decay"),
        pytest.param("backbone.vit.norm.weight", 2e-3 * 0.5**2, id="lr_encoder"),
        pytest.param("backbone.vit.blocks.0.mlp.fc1.weight", 2e-3 * 0.5**2 * 0.6**4, id="lr_vit_layer_decay"),
    ],
)
def test_a_weight_moves_by_its_rate(name: str, rate: float, one_step: Callable[..., tuple[Any, Any]]) -> None:
    """AdamW's first step is the rate times the sign of the gradient, for gradients that are not tiny."""
    before, after = one_step(weight_decay=0)
    assert (after[name] - before[name]).abs().max().item() == pytest.approx(rate, rel=0.01)


def test_weight_decay_shrinks_weights(one_step: Callable[..., tuple[Any, Any]]) -> None:
    (before, after), (_, shrunk) = (one_step(weight_decay=decay) for decay in (0.0, 3.0))
    for name, rate in (("class_embed.weight", 1e-3), ("backbone.vit.blocks.2.mlp.fc1.weight", 2e-3 * 0.5**2 * 0.6**2)):
        torch.testing.assert_close(after[name] - shrunk[name], 3.0 * rate * before[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        pytest.param({"lr_drop": 2}, [1, 1, 1, 1, 0.1, 0.1], id="lr_drop"),
        pytest.param({"warmup_epochs": 1.5}, [0, 1 / 3, 2 / 3, 1, 1, 1], id="warmup_epochs"),
        pytest.param(
            {"lr_scheduler": "cosine"}, [0.5 + 0.5 * math.cos(math.pi * step / 6) for step in range(6)], id="cosine"
        ),
        pytest.param(
            {"lr_scheduler": "cosine", "lr_min_factor": 0.5},
            [0.75 + 0.25 * math.cos(math.pi * step / 6) for step in range(6)],
            id="lr_min_factor",
        ),
    ],
)
def test_steps_follow_the_schedule(settings: dict[str, Any], factors: list[float], dots: Path, tmp_path: Path) -> None:
    """Three epochs of two steps."""
    run = opened(dots, tmp_path, epochs=3, use_ema=False, **{**RATES, **settings})
    run.step.steps_per_epoch = 2
    batches = next(iter(run.loader))
    for factor in factors:
        before = run.detector.class_embed.weight.clone()
        run.step(batches)
        assert [group["lr"] / group["base_lr"] for group in run.step.optimizer.param_groups] == pytest.approx(
            [factor] * len(run.step.optimizer.param_groups)
        )
        assert torch.equal(before, run.detector.class_embed.weight) == (factor == 0)


COEFFICIENTS: dict[str, Any] = {"cls_loss_coef": 1.0, "bbox_loss_coef": 5.0, "giou_loss_coef": 2.0}


@pytest.mark.parametrize(("name", "usual"), COEFFICIENTS.items(), ids=COEFFICIENTS)
def test_a_loss_is_weighted_by_its_coefficient(name: str, usual: float, dots: Path, tmp_path: Path) -> None:
    alone, default, more = (
        first_gradient(opened(dots, tmp_path, CPU, **STILL, **coefficients))
        for coefficients in ({**dict.fromkeys(COEFFICIENTS, 0.0), name: 1.0}, {}, {name: usual + 3})
    )
    assert alone.norm() > 0.1
    assert (more - default - 3 * alone).norm() < 1e-5 * default.norm()


def test_the_loss_is_the_weighted_sum(dots: Path, tmp_path: Path) -> None:
    run = opened(dots, tmp_path, cls_loss_coef=2.0, bbox_loss_coef=0.5, giou_loss_coef=3.0)
    run.step(next(iter(run.loader)))
    losses = run.step.mean_losses()
    weights = {"loss_ce": 2.0, "loss_bbox": 0.5, "loss_giou": 3.0}
    summed = sum(weight * (losses[name] + losses[f"{name}_aux"]) for name, weight in weights.items())
    assert losses["loss"] == pytest.approx(summed, rel=1e-6)


def test_drop_path_skips_blocks_of_the_encoder(dots: Path, tmp_path: Path) -> None:
    run = opened(dots, tmp_path, drop_path=0.5)
    vit, images = run.detector.backbone.vit, torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        plain, again = vit(images), vit(images)
        with in_training(run.detector, run.config, CPU):
            assert [block.drop_path for block in vit.blocks] == [0, 0.25, 0.5]
            first, second = vit(images), vit(images)
        after = vit(images)
    for features, others, same in [(first, second, False), (first, plain, False), (again, plain, True)]:
        assert [torch.equal(one, two) for one, two in zip(features, others, strict=True)] == [True, same, same]
    assert all(torch.equal(one, two) for one, two in zip(after, plain, strict=True))


def test_a_frozen_encoder_stays_as_it_is(dots: Path, tmp_path: Path) -> None:
    # The rates of what is frozen would be refused.
    unset = {"lr_encoder": 1.5e-4, "lr_vit_layer_decay": 0.8}
    detector = tiny_detector(2)
    before = weights_of(detector)
    with recorded_gradients() as gradients:
        result, _ = train_tiny(dots, tmp_path, detector, freeze_encoder=True, **unset)
    vit = {name for name in before if name.startswith("backbone.vit.")}
    trained = [parameter for name, parameter in detector.named_parameters() if name not in vit]
    assert len(gradients[0]) == sum(parameter.numel() for parameter in trained if parameter.requires_grad)
    averaged = load_checkpoint(tmp_path / "checkpoint_best_ema.pth").weights
    for weights in (detector.state_dict(), averaged):
        assert all(torch.equal(weights[name], before[name]) for name in vit)
        assert not torch.equal(weights["class_embed.weight"], before["class_embed.weight"])
    assert result.history[0]["train/lr_encoder"] == 0
    assert all(parameter.requires_grad for parameter in detector.backbone.vit.blocks[0].parameters())


@pytest.mark.parametrize(("decay", "tau"), [(0.5, 0.0), (0.9, 4.0)])
def test_the_average_decays_as_ema_decay_and_ema_tau_say(decay: float, tau: float, dots: Path, tmp_path: Path) -> None:
    run = opened(dots, tmp_path, lr=1e-2, ema_decay=decay, ema_tau=tau)
    assert run.step.ema is not None
    averaged = torch.zeros(())
    for update, batches in enumerate(run.loader, start=1):
        run.step(batches)
        now = run.detector.class_embed.weight.detach().clone()
        kept = decay * (1 - math.exp(-update / tau)) if tau else decay
        averaged = now if update == 1 else kept * averaged + (1 - kept) * now
        torch.testing.assert_close(run.step.ema.detector.class_embed.weight, averaged)


def test_gradient_checkpointing_keeps_less_for_the_same_gradient(dots: Path, tmp_path: Path) -> None:
    kept: list[int] = []
    gradients: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    for setting in (False, True):
        run = opened(dots, tmp_path, drop_path=0.3, gradient_checkpointing=setting, **STILL)
        kept.append(0)
        with in_training(run.detector, run.config, CPU):
            with saved_tensors_hooks(note, lambda tensor: tensor):
                run.detector.backbone.vit(torch.rand(4, 3, 64, 64))
            gradients.append(first_gradient(run))
    assert 0 < kept[1] < kept[0] / 2
    assert (gradients[1] - gradients[0]).norm() < 1e-6 * gradients[0].norm()


def test_precision_is_the_number_format_of_the_forward_pass(dots: Path, tmp_path: Path) -> None:
    losses = {}
    auto = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    for precision, dtype in {"auto": auto, "32": torch.float32, "bf16": torch.bfloat16}.items():
        run = opened(dots, tmp_path, precision=precision)
        with watched_passes() as passes:
            run.step(next(iter(run.loader)))
            evaluate_weights({REGULAR: run.detector}, run.valid_split, run.config, CPU, compute_loss=False)
        assert {(is_training, found) for is_training, _, found in passes} == {(True, dtype), (False, dtype)}
        assert {parameter.dtype for parameter in run.detector.parameters()} == {torch.float32}
        losses[precision] = run.step.mean_losses()["loss"]
    assert losses["auto"] == losses["bf16" if multiplies_bfloat16() else "32"]
    assert losses["32"] != losses["bf16"] == pytest.approx(losses["32"], rel=0.05)


# Evaluation


def test_eval_max_dets_limits_what_counts(dots: Path, tmp_path: Path) -> None:
    """Every picture has five objects."""
    _, detector = train_tiny(dots, tmp_path)
    valid, recalls = read_split(dots, "valid"), []
    for count in (1, 5, 500):
        config = tiny_config(dots, tmp_path, eval_max_dets=count)
        found = evaluate_weights({REGULAR: detector}, valid, config, CPU, compute_loss=False)
        assert found is not None
        recalls.append(found[0][REGULAR]["mAR"] or 0)
    assert 0 < recalls[0] < recalls[1] < recalls[2]
    assert recalls[0] <= 1 / 5


def test_fp16_eval_evaluates_in_half_precision(dots: Path, tmp_path: Path) -> None:
    with watched_passes() as passes:
        result, _ = train_tiny(dots, tmp_path, fp16_eval=True)
    assert {(is_training, dtype) for is_training, _, dtype in passes} == {(True, torch.float32), (False, torch.float16)}
    assert result.history[0]["val/mAP_50"] > 0


METRICS = ("mAP_50_95", "mAP_50", "mAP_75", "mAR", "F1")


@pytest.mark.parametrize("metric", METRICS)
def test_best_metric_selects_the_best_weights(metric: str, dots: Path, tmp_path: Path) -> None:
    """Each of five epochs is the best in another metric."""
    progress = Progress(seed=0, num_images=8, images_per_step=4)
    for epoch, best in enumerate(METRICS, start=1):
        metrics: dict[str, float | None] = {name: 0.9 if name == best else 0.1 for name in METRICS}
        results = {REGULAR: EvaluationResult(metrics, {}, num_images=3, num_objects=15)}
        report = EpochReport(epoch, 10 * epoch, {}, {}, images_per_second=None, results=results)
        select(report, progress, tiny_config(dots, tmp_path, best_metric=metric))
    assert progress.best[REGULAR].step == 10 * (METRICS.index(metric) + 1)


# Files


@pytest.mark.parametrize("tensorboard", [False, True])
def test_files_go_to_output_dir_and_tensorboard_is_one_of_them_where_wanted(
    tensorboard: bool, dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_tiny(dots, Path("runs/first"), use_ema=False, tensorboard=tensorboard)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs" / "first" / "checkpoint.pth").exists()
    assert (tmp_path / "runs" / "first" / "tensorboard").exists() == tensorboard


def states_within_an_epoch(dataset_dir: Path, output_dir: Path, **settings: Any) -> list[int]:
    """The step of the state on disk when each of five steps is taken; 0: there is none."""
    found: list[int] = []

    def look(*_: Any) -> None:
        path = output_dir / "checkpoint.pth"
        found.append((load_checkpoint(path).run or {})["progress"]["step"] if path.exists() else 0)

    hook = register_optimizer_step_post_hook(look)
    try:
        train_tiny(dataset_dir, output_dir, use_ema=False, **settings)
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize(("steps", "found"), [(None, [0] * 5), (2, [0, 0, 2, 2, 4])])
def test_checkpoints_within_an_epoch_by_steps(steps: int | None, found: list[int], dots: Path, tmp_path: Path) -> None:
    assert states_within_an_epoch(dots, tmp_path, checkpoint_every_steps=steps) == found


@pytest.mark.parametrize(("minutes", "found"), [(60, [0] * 5), (1e-6, [0, 1, 2, 3, 4])])
def test_checkpoints_within_an_epoch_by_minutes(minutes: float, found: list[int], dots: Path, tmp_path: Path) -> None:
    assert states_within_an_epoch(dots, tmp_path, checkpoint_every_minutes=minutes) == found


@pytest.mark.parametrize(
    ("interval", "sheets"), [(0, []), (2, ["epoch_0000.jpg", "epoch_0002.jpg"])], ids=["none", "every second epoch"]
)
def test_sample_interval_is_the_epochs_between_sheets(
    interval: int, sheets: list[str], dots: Path, tmp_path: Path
) -> None:
    train_tiny(dots, tmp_path, epochs=2, sample_interval=interval, use_ema=False)
    assert sorted(path.name for path in (tmp_path / "samples").glob("*")) == sheets
