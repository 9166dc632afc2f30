"""The life of a model behind the facade: opened from weights, fitted to a dataset, trained, evaluated, saved."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rfdetr.classes import ClassTable
from rfdetr.config.commands import OptimizeConfig
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.presets import class_name, configure, preset
from rfdetr.config.runs import EvaluateConfig, Split, TrainConfig
from rfdetr.console import say, warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.layout import SPLITS, called, find_dataset
from rfdetr.data.loader import lost_workers_named
from rfdetr.data.reading import read_dataset, read_split
from rfdetr.data.validation_split import with_validation
from rfdetr.devices import pick_device
from rfdetr.distributed import World, broadcast, process_group, rank_and_world_size, world_of_environment
from rfdetr.errors import ConfigError, DatasetError, WeightsError
from rfdetr.evaluation.evaluate import evaluate
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.files import make_folder, user_path, write_json
from rfdetr.inference.mixed_precision import MixedPrecisionDetector
from rfdetr.inference.optimized import NUMBER_FORMATS, OptimizedDetector
from rfdetr.inference.predictor import Network
from rfdetr.launch import run_in_processes
from rfdetr.models.detector import Detector
from rfdetr.report.dataset_check import brief
from rfdetr.training.fitting import fitting_batch_size
from rfdetr.training.memory import return_gpu_memory
from rfdetr.training.placement import check_machine
from rfdetr.training.rehearsal import Rehearsal, rehearse
from rfdetr.training.run import TrainingResult, train
from rfdetr.weights.architecture import as_size, differences, hidden_facts
from rfdetr.weights.checkpoint import SUFFIXES, Checkpoint, load_checkpoint, save_checkpoint
from rfdetr.weights.download import resolve
from rfdetr.weights.encoder import load_encoder
from rfdetr.weights.state_dict import ClassHeads, load_fitted


@dataclass(frozen=True)
class Model:
    """A detector on its device, and what its logits stand for (None: nobody has said yet)."""

    detector: Detector
    classes: ClassTable | None
    device: torch.device
    spare_heads: ClassHeads | None = None
    """The class heads of the weights, where the model was given others; training takes from them what it can use."""
    optimized: OptimizedDetector | MixedPrecisionDetector | None = None
    """The detector prepared for prediction; training drops it."""

    @property
    def network(self) -> Network:
        """What predicts."""
        return self.optimized or self.detector

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
        detector = Detector(config, settings.init_seed)
        if settings.encoder_weights is not None:
            _report(load_encoder(detector, user_path(settings.encoder_weights, "encoder_weights")))
        return _placed(Model(detector, None, device), settings)
    path = resolve(settings.pretrain_weights, size.size)
    return _open(path, load_checkpoint(path, settings.trust_checkpoint), config, settings, device)


def open_file(path: Path, settings: ModelSettings, size: str | None) -> Model:
    """The model of a checkpoint; `size`, if given, is what it must be.

    Raises:
        ConfigError: the settings do not fit together, or the device is not there.
        WeightsError: the file cannot be read, does not say what it is, or is of another size.
    """
    device = pick_device(settings.device)
    checkpoint = load_checkpoint(path, settings.trust_checkpoint)
    config = checkpoint.config
    if size is not None and (config is None or not checkpoint.is_certain):
        config = as_size(preset(size), checkpoint.known, checkpoint.settings)
    if config is None:
        raise WeightsError(
            f"{path}: does not say which size it is, and no size or several are like it. "
            f"Name the size, as in RFDETRMedium.from_checkpoint({str(path)!r})"
        )
    if size is not None and config.size != size:
        raise WeightsError(f"{path}: is of size {config.size!r}, not {size!r}; use RFDETR.from_checkpoint")
    return _open(path, checkpoint, configure(config, settings), settings, device)


def _open(
    path: Path, checkpoint: Checkpoint, config: ModelConfig, settings: ModelSettings, device: torch.device
) -> Model:
    _check_architecture(path, checkpoint, config)
    of_file = {
        name: checkpoint.known[name] for name in ("num_classes", "num_channels") if getattr(settings, name) is None
    }
    config = config.replace(**of_file)
    detector = Detector(config, settings.init_seed)
    try:
        fit = load_fitted(detector, checkpoint.weights, checkpoint.classes, class_rows=settings.class_rows)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if checkpoint.config is not None and checkpoint.config.size != config.size:
        say(f"weights fitted: from {checkpoint.config.size} to {config.size}")
    _report(fit.report)
    classes = checkpoint.classes
    if fit.replaced is None:
        return _placed(Model(detector, classes, device), settings)
    if settings.class_rows == "by-name":
        return _placed(Model(detector, None, device, fit.replaced), settings)
    return _placed(Model(detector, classes and _first(classes, config.num_classes), device), settings)


def _first(classes: ClassTable, num_classes: int) -> ClassTable | None:
    """The classes of the first logits."""
    rows = zip(classes.category_ids, classes.names, classes.class_ids, strict=True)
    kept = [row for row in rows if row[2] < num_classes]
    return ClassTable(*zip(*kept, strict=True)) if kept else None


def _check_architecture(path: Path, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Raises:
    WeightsError: the file is of another architecture; says in what, and which class opens it.
    """
    lacking = hidden_facts(checkpoint.weights)
    if lacking:  # nothing but the weights vouches for sizes that memory is asked for
        raise WeightsError(f"{path}: not a detector of RF-DETR: its weights do not show its {', '.join(lacking)}")
    problems = differences(checkpoint.known, config)
    if not problems:
        return
    own, found = class_name(config.size), checkpoint.config
    message = "\n  ".join([f"{path}: does not fit {own}:", *problems])
    if found is not None and found.size != config.size:
        message += f"\nOpen it with {class_name(found.size)}(pretrain_weights={str(path)!r})"
    raise WeightsError(message)


def _placed(model: Model, settings: ModelSettings) -> Model:
    model.detector.backbone.vit.gradient_checkpointing = settings.gradient_checkpointing
    model.detector.to(model.device).eval()
    return model


def _report(changes: list[str]) -> None:
    for change in changes:
        say(f"weights fitted: {change}")


def train_model(model: Model, settings: ModelSettings, config: TrainConfig) -> tuple[Model, TrainingResult]:
    """Fit the model to the dataset's classes, train it, and open the best weights.

    With several `devices` it is done in as many processes, unless torchrun or srun has started them already.

    Raises:
        ConfigError: a setting contradicts the dataset or the machine.
        DatasetError: the dataset cannot be trained on.
        ImageError: more than `max_bad_images` images cannot be read; the state is saved.
        TrainingError: the loss stopped being finite, a file cannot be written, or a process has ended.
        WeightsError: the checkpoint to resume from cannot be used.
        Interrupted: by a signal; the state is saved.
    """
    world = world_of_environment()
    devices = check_machine(config, settings, world)
    if world is None and len(devices) > 1:
        on_host = replace(model, detector=model.detector.cpu(), optimized=None)
        return_gpu_memory()
        try:
            trained, result = run_in_processes(len(devices), train_model, on_host, settings, config)
        finally:
            model.detector.to(model.device)
        trained.detector.to(trained.device)
        return trained, result
    world = world or World(rank=0, local_rank=0, size=1, local_size=1)
    device = devices[world.local_rank]
    is_group = world.size > 1 or config.strategy == "ddp"
    with process_group(world, device) if is_group else nullcontext():
        return _train(model, settings, config, device)


@lost_workers_named()
def _train(
    model: Model, settings: ModelSettings, config: TrainConfig, device: torch.device
) -> tuple[Model, TrainingResult]:
    if device.type != "cuda" and config.device == "cuda" and config.accelerator == "auto":
        say(f"device: no CUDA device here; training on the {device.type}")
    splits = _read_splits(model, config)
    classes = splits["train"].classes
    detector = _fitted(model, classes, settings, config)
    for line in brief(splits, detector.config, config.eval_max_dets):
        say(line)
    if rank_and_world_size()[0] == 0:
        make_folder(Path(config.output_dir), "output_dir")
    config = fitting_batch_size(detector, splits["train"], splits["valid"], config, device)
    # A detector that was made for the run is dropped if that fails; the model's own has to be what it was.
    is_own = detector is model.detector
    before = {name: tensor.to("cpu", copy=True) for name, tensor in detector.state_dict().items()} if is_own else {}
    try:
        result = train(detector, splits["train"], splits["valid"], config, settings, device, splits.get("test"))
    except BaseException:
        # What the run has reached is in its checkpoints.
        if is_own:
            detector.load_state_dict(before)
            detector.to(model.device)
        raise
    is_main = rank_and_world_size()[0] == 0
    # The processes may have no disk in common.
    detector.load_state_dict(broadcast(load_checkpoint(result.best_checkpoint).weights if is_main else {}))
    return Model(detector.eval(), classes, device), result


def _read_splits(model: Model, config: TrainConfig) -> dict[Split, Annotations]:
    """The splits of the dataset that the run needs, with the classes that the model is to have.

    Raises:
        DatasetError: a split is missing or broken.
        ConfigError: `class_names` does not fit.
    """
    own = model.detector.config
    wanted = SPLITS if config.run_test else SPLITS[:2]
    dataset = read_dataset(config.dataset_dir, wanted, masks=own.segmentation_head).usable()
    splits = with_validation(dataset, config.dataset_dir, config.valid_fraction, config.valid_seed)
    if "test" in dataset.missing:
        warn(f"{called(config.dataset_dir)}: no test split, so that run_test has nothing to test on")
    for name, split in splits.items():
        renamed = split if config.class_names is None else split.renamed(config.class_names)
        if model.classes is not None and set(model.classes.names) == set(renamed.classes.names):
            # The dataset the model knows: keep what its logits stand for (COCO's ids, for one).
            renamed = renamed.with_classes(model.classes.with_ids_of(renamed.classes))
        pictures = renamed.pictures.configured(own.num_channels, config.max_image_megapixels)
        splits[name] = replace(renamed, pictures=pictures)
    return splits


def _fitted(model: Model, classes: ClassTable, settings: ModelSettings, config: TrainConfig) -> Detector:
    """The model's detector, or one like it with a head for these classes or another resolution."""
    own = model.detector.config
    # A head that has its classes is large enough: COCO's last class is the logit that others leave unused.
    is_known = model.classes is not None and model.classes.name_of == classes.name_of
    num_classes = own.num_classes if is_known else settings.num_classes or classes.num_classes
    if num_classes < classes.num_classes and not is_known:
        raise ConfigError(
            f"num_classes={num_classes}, but the dataset has {classes.num_classes}: {', '.join(classes.names)}. "
            "Leave num_classes out to take the dataset's"
        )
    if num_classes > classes.num_classes:
        warn(f"num_classes={num_classes}, but the dataset has {classes.num_classes}; the other logits stay untrained")
    changed = configure(own, ModelSettings(num_classes=num_classes, resolution=config.resolution))
    keeps_rows = settings.class_rows == "by-position" or model.classes is None or is_known
    same_head = num_classes == own.num_classes and keeps_rows and model.spare_heads is None
    if changed == own and same_head:
        return model.detector
    detector = Detector(changed, settings.init_seed)
    heads = model.spare_heads or ClassHeads({}, model.classes)
    weights = {name: tensor.cpu() for name, tensor in {**model.detector.state_dict(), **heads.tensors}.items()}
    fit = load_fitted(detector, weights, heads.classes, None if same_head else classes, settings.class_rows)
    if model.classes is not None or settings.pretrain_weights is not None:
        _report(fit.report)
    detector.backbone.vit.gradient_checkpointing = model.detector.backbone.vit.gradient_checkpointing
    return detector


@lost_workers_named()
def rehearse_model(model: Model, settings: ModelSettings, config: TrainConfig) -> Rehearsal:
    """What training would do, and about what it would need; the model stays as it is, and nothing is written.

    Raises:
        ConfigError: a setting contradicts the dataset or the machine, or there is not enough memory.
        DatasetError: the dataset cannot be trained on.
        TrainingError: the loss is not finite.
    """
    world = world_of_environment()
    devices = check_machine(config, settings, world)
    device = devices[world.local_rank if world else 0]
    splits = _read_splits(model, config)
    detector = _fitted(model, splits["train"].classes, settings, config)
    for line in brief(splits, detector.config, config.eval_max_dets):
        say(line)
    for remark in config.remarks():
        warn(remark)
    count, here = (world.size, world.local_size) if world else (len(devices), len(devices))
    config = fitting_batch_size(detector, splits["train"], splits["valid"], config, device, count, here)
    return rehearse(detector, splits["train"], splits["valid"], config, device, count)


@lost_workers_named()
def evaluate_model(model: Model, config: EvaluateConfig) -> EvaluationResult:
    """Evaluate on a split; with `output_dir`, leave its metrics and predictions there.

    Raises:
        ConfigError: `output_dir` cannot be written to, or `class_names` does not fit.
        DatasetError: the split is missing or broken, or has classes that the model does not know.
        ImageError: more than `max_bad_images` images cannot be read.
        TrainingError: a process that loads images has ended.
    """
    if config.output_dir is not None:
        make_folder(Path(config.output_dir), "output_dir")
    split = _read_for_evaluation(model, config)
    if config.class_names is not None:
        split = split.renamed(config.class_names)
    _check_classes(model, split)
    if model.classes is not None:
        split = split.with_classes(model.classes)
    if config.output_dir is None:
        return evaluate(model.detector, split, config, model.device)
    output_dir = Path(config.output_dir)
    predictions = output_dir / f"predictions_{split.split}.json"
    result = evaluate(model.detector, split, config, model.device, predictions)
    write_json(output_dir / f"metrics_{split.split}.json", result.to_json())
    return result


def _read_for_evaluation(model: Model, config: EvaluateConfig) -> Annotations:
    own, name = model.detector.config, config.split
    found, _ = find_dataset(config.dataset_dir)
    if name == "test" and name not in found and "valid" in found and found["valid"].format == "yolo":
        warn(f"{called(config.dataset_dir)}: no test split; this is the validation split")
        name = "valid"
    split = read_split(config.dataset_dir, name, masks=own.segmentation_head)
    return replace(split, pictures=split.pictures.configured(own.num_channels, config.max_image_megapixels))


def _check_classes(model: Model, split: Annotations) -> None:
    """Raises:
    DatasetError: the split has classes that the model does not know, with or without objects.
    """
    known, found = model.classes, split.classes
    if known is None:
        count = model.detector.config.num_classes
        if count != len(found):
            raise DatasetError(
                f"{split.annotation_file}: has {len(found)} classes ({_listed(found.names)}), the model {count} "
                "without names. Open a checkpoint with class names, or train the model on this dataset"
            )
        return
    unknown = [name for name in found.names if name not in known.names]
    unseen = [name for name in known.names if name not in found.names]
    if unknown:
        raise DatasetError(
            f"{split.annotation_file}: its classes are not those of the model. "
            f"Only in the dataset: {_listed(unknown)}; only in the model: {_listed(unseen) or 'none'}"
        )
    if unseen:
        warn(f"{split.annotation_file}: lacks {len(unseen)} classes of the model, left out: {_listed(unseen)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def optimize_model(model: Model, config: OptimizeConfig) -> Model:
    """The model, prepared for prediction with the weights it has.

    Raises:
        ConfigError: a setting is not for this device or processor; for the CPU, OpenVINO is not installed or too old,
            or the cache cannot be written to.
    """
    if next(model.detector.parameters()).device.type != "cpu":
        mixed = MixedPrecisionDetector(model.detector, config)
        say(f"optimize: prediction now runs in mixed precision, {str(mixed.dtype).removeprefix('torch.')}")
        return replace(model, optimized=mixed)
    optimized = OptimizedDetector(model.detector, config)
    say(f"optimize: prediction now runs in OpenVINO, {NUMBER_FORMATS[optimized.precision]}")
    return replace(model, optimized=optimized)


def save_model(model: Model, path: Path) -> None:
    """Write weights, architecture and classes to a checkpoint.

    Raises:
        ConfigError: the file cannot be written, or its suffix is of no format.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"save: {path}: a checkpoint ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    try:
        save_checkpoint(path, Checkpoint(model.detector.state_dict(), model.detector.config, model.classes))
    except OSError as error:
        raise ConfigError(f"save: {path}: cannot be written: {error.strerror or error}") from None
