"""`rfdetr demo`: the main job on a dataset of its own making."""

from pathlib import Path

from PIL import Image

from rfdetr.api import RFDETRNano
from rfdetr.config.runs import DemoConfig, TrainConfig, scratch_recipe
from rfdetr.console import say
from rfdetr.data.annotations import Annotations
from rfdetr.data.coco import read_coco
from rfdetr.data.images import open_image
from rfdetr.data.synthetic import draw_dataset
from rfdetr.files import make_folder, write_atomically, write_json
from rfdetr.inference.detections import Detections, named_detections
from rfdetr.report.draw import Panel, comparison

# Enough for shapes that fill a fifth of an image or more, and cheap.
RESOLUTION = 128
# More than the most shapes an image has.
NUM_QUERIES = 30
# Fewer query groups than for large data make steps faster, which counts more in a run of a few hundred.
GROUPS = 5
SHOWN = 8


def run_demo(config: DemoConfig) -> None:
    """Leave `dataset/`, the files of the run, `metrics.json` (of the test split) and `predictions.jpg`."""
    output_dir = Path(config.output_dir)
    make_folder(output_dir, "output_dir")
    dataset_dir = output_dir / "dataset"
    draw_dataset(dataset_dir, config.train_images, config.seed)
    say(f"dataset: {dataset_dir}")
    model = RFDETRNano(pretrain_weights=None, resolution=RESOLUTION, num_queries=NUM_QUERIES, group_detr=GROUPS)
    model.train(
        TrainConfig(
            dataset_dir=dataset_dir,
            output_dir=output_dir,
            epochs=config.epochs,
            batch_size=4,
            grad_accum_steps=1,
            seed=config.seed,
            multi_scale=False,
            tensorboard=False,
            lr_scheduler="cosine",
            **scratch_recipe(),
        )
    )
    result = model.evaluate(dataset_dir=dataset_dir, split="test")
    write_json(output_dir / "metrics.json", result.to_json())
    say(f"\ntest split: {result.table()}")
    picture = output_dir / "predictions.jpg"
    test = read_coco(dataset_dir, "test")
    threshold = result["F1_threshold"] or 0.5
    panels = [_panel(model, test, index, threshold) for index in range(min(SHOWN, len(test)))]
    write_atomically(picture, lambda path: comparison(panels).save(path, format="JPEG", quality=92))
    say(f"\npredictions beside the truth: {picture}")


def _panel(model: RFDETRNano, split: Annotations, index: int, threshold: float) -> Panel:
    path = split.image_path(index)
    objects = split.training_objects(index)
    truth: Detections = named_detections(objects.boxes.numpy(), objects.labels.numpy(), split.classes)
    image: Image.Image = open_image(path)
    return Panel(path.name, image, truth, model.predict(image, threshold))
