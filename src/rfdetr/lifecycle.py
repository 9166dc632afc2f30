"""The life of a model behind the facade: opened from weights, fitted to a dataset, trained, evaluated, saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rfdetr.classes import ClassTable
from rfdetr.coco_names import COCO
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.presets import configure
from rfdetr.config.runs import EvaluateConfig, TrainConfig
from rfdetr.console import say, warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.coco import read_coco
from rfdetr.data.headers import check_headers
from rfdetr.devices import pick_device
from rfdetr.errors import ConfigError, WeightsError
from rfdetr.evaluation.evaluate import evaluate, run_all
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.files import make_folder, write_json
from rfdetr.models.detector import Detector
from rfdetr.training.callbacks.validation import ValidationLoss, evaluation_dtype
from rfdetr.training.epoch import REGULAR
from rfdetr.training.run import TrainingResult, train
from rfdetr.training.run_dir import RunDir
from rfdetr.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rfdetr.weights.download import resolve
from rfdetr.weights.state_dict import load_fitted

# Logits of the published COCO weights; their class ids are COCO's ids, 1 to 90.
COCO_LOGITS = 91


@dataclass(frozen=True)
class Model:
    """A detector on its device, and what its logits stand for (None: nobody has said yet)."""

    detector: Detector
    classes: ClassTable | None
    device: torch.device

    @property
    def named_classes(self) -> ClassTable:
        """The classes, with numbers for names where there are none."""
        if self.classes is not None:
            return self.classes
        return ClassTable.from_categories(
            (index, f"class {index}") for index in range(self.detector.config.num_classes)
        )


def open_size(size: ModelConfig, settings: ModelSettings) -> Model:
    """A model of a published size with the weights that the settings name.

    Raises:
        ConfigError: the settings do not fit together, or the device is not there.
        WeightsError: the weights cannot be had, or are of another architecture.
    """
    device = pick_device(settings.device)
    config = configure(size, settings)
    if settings.pretrain_weights is None:
        return _placed(Detector(config, settings.init_seed), None, device, settings)
    path = resolve(settings.pretrain_weights, size.size)
    return _open(path, load_checkpoint(path), config, settings, device)


def open_file(path: Path, settings: ModelSettings, size: str | None) -> Model:
    """The model of a checkpoint; `size`, if given, is what it must be.

    Raises:
        ConfigError: the settings do not fit together, or the device is not there.
        WeightsError: the file cannot be read, does not say what it is, or is of another size.
    """
    device = pick_device(settings.device)
    checkpoint = load_checkpoint(path)
    if checkpoint.config is None:
        raise WeightsError(
            f"{path}: does not say which size it is. Name it, as in RFDETRNano(pretrain_weights={str(path)!r})"
        )
    if size is not None and checkpoint.config.size != size:
        raise WeightsError(f"{path}: is of size {checkpoint.config.size!r}, not {size!r}; use RFDETR.from_checkpoint")
    return _open(path, checkpoint, configure(checkpoint.config, settings), settings, device)


def _open(
    path: Path, checkpoint: Checkpoint, config: ModelConfig, settings: ModelSettings, device: torch.device
) -> Model:
    head = checkpoint.weights.get("class_embed.bias")
    if head is None:
        raise WeightsError(f"{path}: has no class head: not a detector of RF-DETR")
    is_published = checkpoint.config is None and checkpoint.classes is None and len(head) == COCO_LOGITS
    classes = COCO if is_published else checkpoint.classes
    if settings.num_classes is None:
        config = config.replace(num_classes=len(head) - 1)
    detector = Detector(config, settings.init_seed)
    queries = checkpoint.config.num_queries if checkpoint.config else None
    try:
        changes = load_fitted(detector, checkpoint.weights, classes, None, queries)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    _report(changes)
    return _placed(detector, classes if config.num_classes == len(head) - 1 else None, device, settings)


def _placed(detector: Detector, classes: ClassTable | None, device: torch.device, settings: ModelSettings) -> Model:
    detector.backbone.vit.gradient_checkpointing = settings.gradient_checkpointing
    return Model(detector.to(device).eval(), classes, device)


def _report(changes: list[str]) -> None:
    for change in changes:
        say(f"weights fitted: {change}")


def train_model(model: Model, settings: ModelSettings, config: TrainConfig) -> tuple[Model, TrainingResult]:
    """Fit the model to the dataset's classes, train it, and open the best weights.

    Raises:
        ConfigError: a setting contradicts the dataset or the machine.
        DatasetError: the dataset cannot be trained on.
        TrainingError: the loss stopped being finite.
    """
    device = pick_device(config.device) if config.device else model.device
    train_split = read_coco(config.dataset_dir, "train")
    if model.classes is not None and set(model.classes.names) == set(train_split.classes.names):
        # The dataset the model knows: keep what its logits stand for (COCO's ids, for one).
        train_split = read_coco(config.dataset_dir, "train", model.classes)
    classes = train_split.classes
    valid_split = read_coco(config.dataset_dir, "valid", classes)
    test_split = read_coco(config.dataset_dir, "test", classes) if config.run_test else None
    for split in (train_split, valid_split, test_split):
        if split is not None:
            check_headers(split)
    detector = _fitted(model, classes, settings, config)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    try:
        result = train(detector, train_split, valid_split, config, settings, device)
    except BaseException:
        # The model is what it was; what the run has reached is in its checkpoints.
        detector.load_state_dict(before)
        detector.to(model.device)
        raise
    detector.load_state_dict(load_checkpoint(result.best_checkpoint).weights)
    trained = Model(detector.to(device).eval(), classes, device)
    if test_split is not None:
        result.metrics["test"] = _test(trained, test_split, config)
        write_json(RunDir(result.output_dir).results, result.metrics)
    return trained, result


def _test(model: Model, split: Annotations, config: TrainConfig) -> dict[str, Any]:
    """Metrics of the test split, with the losses under `losses`."""
    losses = ValidationLoss(model.device, config)
    evaluators = run_all(
        {REGULAR: model.detector},
        split,
        batch_size=config.eval_batch_size or config.batch_size,
        max_dets=config.eval_max_dets,
        num_workers=config.num_workers,
        device=model.device,
        dtype=evaluation_dtype(config, model.device),
        observe=losses.add if config.compute_test_loss else None,
    )
    metrics = evaluators[REGULAR].compute().to_json()
    return {**metrics, "losses": losses.means()} if config.compute_test_loss else metrics


def _fitted(model: Model, classes: ClassTable, settings: ModelSettings, config: TrainConfig) -> Detector:
    """The model's detector, or one like it with a head for these classes or another resolution."""
    num_classes = settings.num_classes or classes.num_classes
    if num_classes < classes.num_classes:
        raise ConfigError(
            f"num_classes={num_classes}, but the dataset has {classes.num_classes}: {', '.join(classes.names)}. "
            "Leave num_classes out to take the dataset's"
        )
    if num_classes > classes.num_classes:
        warn(f"num_classes={num_classes}, but the dataset has {classes.num_classes}; the other logits stay untrained")
    changed = configure(model.detector.config, ModelSettings(num_classes=num_classes, resolution=config.resolution))
    same_head = num_classes == model.detector.config.num_classes and model.classes in (None, classes)
    if changed == model.detector.config and same_head:
        return model.detector
    detector = Detector(changed, settings.init_seed)
    weights = {name: tensor.cpu() for name, tensor in model.detector.state_dict().items()}
    own_classes = None if same_head else classes
    changes = load_fitted(detector, weights, model.classes, own_classes, model.detector.config.num_queries)
    if model.classes is not None:
        _report(changes)
    detector.backbone.vit.gradient_checkpointing = model.detector.backbone.vit.gradient_checkpointing
    return detector


def evaluate_model(model: Model, config: EvaluateConfig) -> EvaluationResult:
    """Evaluate on a split; with `output_dir`, leave its metrics and predictions there.

    Raises:
        DatasetError: the split is missing or broken, or has classes that the model does not know.
    """
    if config.output_dir is not None:
        make_folder(Path(config.output_dir), "output_dir")
    split = read_coco(config.dataset_dir, config.split, model.classes)
    if split.classes.num_classes > model.detector.config.num_classes:
        raise ConfigError(
            f"the dataset has {split.classes.num_classes} classes, the model {model.detector.config.num_classes}"
        )
    result, predictions = evaluate(model.detector, split, config, model.device)
    if config.output_dir is not None:
        write_json(Path(config.output_dir) / f"metrics_{config.split}.json", result.to_json())
        write_json(Path(config.output_dir) / f"predictions_{config.split}.json", predictions)
    return result


def save_model(model: Model, path: Path) -> None:
    """Write weights, architecture and classes to a checkpoint."""
    save_checkpoint(path, Checkpoint(model.detector.state_dict(), model.detector.config, model.classes))
