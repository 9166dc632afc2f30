"""Pictures that are not RGB with 8 bits, and those that are too large, from the dataset to the metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import rfdetr
from rfdetr import ImageError
from rfdetr.data.loading import EvaluationDataset
from rfdetr.data.reading import read_split
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint

from .data.tiny_coco import annotation, image, write_coco
from .tiny import TINY

SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 2,
    "grad_accum_steps": 1,
    "num_workers": 0,
    "device": "cpu",
    "seed": 0,
    "multi_scale": False,
    "sample_interval": 0,
    "tensorboard": False,
}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    config = TINY.replace(num_classes=2)
    save_checkpoint(tmp_path / "tiny.pth", Checkpoint(Detector(config, seed=5).state_dict(), config))
    return tmp_path / "tiny.pth"


def write_deep(root: Path, num_channels: int) -> Path:
    """Pictures of 16 bits, of which the upper eight say nothing."""
    images = [image(1, file_name="1.tif"), image(2, file_name="2.tif")]
    for split in ("train", "valid", "test"):
        write_coco(root, split, images, [annotation(1), annotation(2, image_id=2, bbox=[5, 5, 20, 20])])
        for number in (1, 2):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 60, num_channels)).astype(np.uint16)
            path = root / split / f"{number}.tif"
            # Grey has no channel axis.
            options: dict[str, Any] = {"planarconfig": "contig"} if num_channels > 1 else {}
            tifffile.imwrite(path, pixels.squeeze(), photometric="minisblack", **options)
    return root


@pytest.mark.parametrize("num_channels", [1, 5])
def test_a_model_trains_on_pictures_of_its_channels_and_its_file_knows_them(
    tmp_path: Path, model_file: Path, num_channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_deep(tmp_path / "data", num_channels)
    model = rfdetr.from_checkpoint(model_file, device="cpu", num_channels=num_channels)
    said = f"weights fitted: patch projection: 3 -> {num_channels} channels, each the mean of its filters\n"
    assert said in capsys.readouterr().out
    result = model.train(dataset_dir=data, output_dir=tmp_path / "run", **SETTINGS)
    again = rfdetr.from_checkpoint(result.best_checkpoint, device="cpu")
    assert again.config.num_channels == num_channels
    found = again.evaluate(dataset_dir=data, num_workers=0)
    assert found.to_json() == model.evaluate(dataset_dir=data, num_workers=0).to_json()
    file = data / "test" / "1.tif"
    pixels = tifffile.imread(file).reshape(40, 60, num_channels)
    boxes = again.predict(pixels, 0.0).xyxy
    assert len(boxes)
    assert again.predict(file, 0.0).xyxy.tolist() == boxes.tolist()


def test_what_the_upper_eight_bits_do_not_show_reaches_the_model(tmp_path: Path) -> None:
    split = read_split(write_deep(tmp_path, 3), "train")
    pixels, _ = EvaluationDataset(split, 64)[0]
    assert pixels.dtype == torch.uint16
    assert 0 < pixels.int().max() < 256
    assert len(pixels.int().unique()) > 50


def test_pictures_of_more_than_max_image_megapixels_are_refused(tmp_path: Path, model_file: Path) -> None:
    """60 x 40 pixels are 0.0024 megapixels."""
    data = write_coco(tmp_path / "data")
    write_coco(data, "valid")
    model = rfdetr.from_checkpoint(model_file, device="cpu")
    message = (
        r"[12]\.png: has 60 x 40 pixels, 0\.0024 megapixels; allowed: 0\.002\. "
        r"Make it smaller, or raise max_image_megapixels"
    )
    limits: dict[str, Any] = {"max_image_megapixels": 0.002, "max_bad_images": 0}
    with pytest.raises(ImageError, match=message):
        model.train(dataset_dir=data, output_dir=tmp_path / "run", **{**SETTINGS, "num_workers": 1}, **limits)
    with pytest.raises(ImageError, match=message):
        model.evaluate(dataset_dir=data, split="valid", num_workers=1, **limits)
