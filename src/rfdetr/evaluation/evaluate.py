"""A detector and a split -> EvaluationResult."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from rfdetr.config.runs import EvaluateConfig
from rfdetr.console import warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.collation import on_device
from rfdetr.data.loading import evaluation_loader
from rfdetr.data.unreadable import Unreadable, check_number, of_all_processes
from rfdetr.devices import as_current, autocast_dtype
from rfdetr.distributed import rank_and_world_size
from rfdetr.evaluation.coco_metrics import CocoEvaluator
from rfdetr.evaluation.results import EvaluationResult
from rfdetr.evaluation.results_file import ResultsFile
from rfdetr.inference.predictor import evaluating
from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import postprocess
from rfdetr.types import ImageBatch, RawOutputs

Observer = Callable[[str, RawOutputs, ImageBatch], None]


def evaluate(
    detector: Detector,
    annotations: Annotations,
    config: EvaluateConfig,
    device: torch.device,
    predictions_file: Path | None = None,
) -> EvaluationResult:
    """Score the detector, which is on `device`; write its predictions to a file in COCO's results format, if named.

    In a torch.distributed process group the processes share the images, and each gets the results of all. On a
    terminal it shows a progress bar.

    Raises:
        ImageError: more than `max_bad_images` cannot be read; fewer are named and left out.
    """
    with ExitStack() as stack:
        results = None
        if predictions_file is not None:
            results = stack.enter_context(ResultsFile.open(predictions_file, annotations))
        evaluators, unreadable = run_all(
            {"": detector},
            annotations,
            batch_size=config.batch_size,
            max_dets=config.eval_max_dets,
            num_workers=config.num_workers,
            device=device,
            dtype=autocast_dtype(config.precision, device),
            results=results,
            max_bad_images=config.max_bad_images,
        )
        unreadable = of_all_processes(unreadable)
        for reason in unreadable.values():
            warn(f"{reason}. The image is left out")
        check_number(unreadable, annotations.split, len(annotations), config.max_bad_images)
        result = evaluators[""].compute()
        if results is not None:
            results.save()
    return result if config.log_per_class_metrics else replace(result, per_class={}, segm_per_class={})


def run_all(
    detectors: Mapping[str, Detector],
    annotations: Annotations,
    *,
    batch_size: int,
    max_dets: int,
    num_workers: int,
    device: torch.device,
    dtype: torch.dtype | None,
    observe: Observer | None = None,
    results: ResultsFile | None = None,
    is_interrupted: Callable[[], bool] = lambda: False,
    pin_memory: bool | None = None,
    prefetch_factor: int | None = None,
    max_bad_images: int | None = None,
) -> tuple[dict[str, CocoEvaluator], Unreadable]:
    """Run several weights of one architecture over the images, which are loaded once; scores are not yet computed.

    Images that cannot be read are left out, and given beside the evaluators: those of this process.

    Args:
        detectors: by name; their training modes are as before afterwards.
        annotations: the split.
        batch_size: images per forward pass.
        max_dets: detections per image that count.
        num_workers: loader processes.
        device: where the detectors are.
        dtype: of mixed precision; None is float32.
        observe: is given the name, the raw outputs and the batch (on the device) of every forward pass.
        results: takes the detections, if there is one detector.
        is_interrupted: asked before every batch; the rest of the images is left out when it says so.
        pin_memory: of the loader; None: where the device is a GPU.
        prefetch_factor: batches each loader process prepares ahead; None: 2.
        max_bad_images: when more than these cannot be read, the rest of the images is left out, too; None: any number.
    """
    model = next(iter(detectors.values())).config
    rank, world_size = rank_and_world_size()
    loader = evaluation_loader(
        annotations,
        model.resolution,
        batch_size=batch_size,
        num_workers=num_workers,
        masks=observe is not None,
        rank=rank,
        world_size=world_size,
        pin_memory=device.type == "cuda" and pin_memory is not False,
        prefetch_factor=prefetch_factor,
    )
    evaluators = {name: CocoEvaluator(annotations, max_dets, results) for name in detectors}
    unreadable: Unreadable = {}
    with ExitStack() as modes, as_current(device), torch.inference_mode():
        for detector in detectors.values():
            modes.enter_context(evaluating(detector))
        # disable=None: only on a terminal.
        for batch in tqdm(loader, desc="evaluating", unit="batch", leave=False, disable=True if rank else None):
            unreadable |= loader.take_unreadable()
            if is_interrupted() or (max_bad_images is not None and len(unreadable) > max_bad_images):
                break
            moved = on_device(batch, device)
            for name, detector in detectors.items():
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    outputs = detector(moved.images, last_only=observe is None)
                if observe:
                    observe(name, outputs, moved)
                sizes = torch.stack([target["orig_size"] for target in batch.targets])
                image_ids = [target["image_id"] for target in batch.targets]
                evaluators[name].update(image_ids, postprocess(outputs, sizes, model.num_select))
    unreadable |= loader.take_unreadable()
    for evaluator in evaluators.values():
        evaluator.leave_out(unreadable)
    return evaluators, unreadable
