"""`rfdetr demo`: the main job on a dataset of its own making."""

from pathlib import Path

from rfdetr.api import RFDETRNano
from rfdetr.config.commands import DemoConfig
from rfdetr.config.runs import TrainConfig, scratch_recipe
from rfdetr.console import say
from rfdetr.data.reading import read_split
from rfdetr.data.synthetic import draw_dataset
from rfdetr.files import make_folder, write_atomically, write_json
from rfdetr.report.ground_truth import pick_samples
from rfdetr.report.samples import sample_sheet

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
    test = read_split(dataset_dir, "test")
    threshold = result["F1_threshold"] or 0.5
    sheet = sample_sheet(lambda image: model.predict(image, threshold), test, pick_samples(test, SHOWN))
    if sheet is not None:
        write_atomically(picture, lambda path: sheet.save(path, format="JPEG", quality=92))
        say(f"\npredictions beside the truth: {picture}")
