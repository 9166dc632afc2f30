import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rfdetr.api import RFDETR
from rfdetr.classes import ClassTable
from rfdetr.cli.main import main
from rfdetr.cli.predict import list_images, predict_files
from rfdetr.config.commands import PredictConfig
from rfdetr.errors import ConfigError, ImageError
from rfdetr.models.detector import Detector
from rfdetr.report.draw import draw_detections
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint

from ..tiny import TINY_SEG


@pytest.fixture(scope="module")
def model(tiny_file: Path) -> RFDETR:
    return RFDETR.from_checkpoint(tiny_file, device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of three formats, one of them broken, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "b.png")
    Image.new("L", (40, 60), 120).save(folder / "a.JPG")
    (folder / "broken.webp").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("none")
    return folder


def test_a_folder_gives_annotated_images_and_one_json(
    tiny_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "found"
    arguments = ["--model", str(tiny_file), "--device", "cpu", "--threshold", "0", "--output-dir", str(output_dir)]
    assert main(["predict", str(pictures), *arguments]) == 0
    rows = json.loads((output_dir / "predictions.json").read_text())
    assert [row["image"] for row in rows] == [str(pictures / "a.JPG"), str(pictures / "b.png")]
    for row, size in zip(rows, [(40, 60), (60, 40)], strict=True):
        assert len(row["detections"]) == 20
        assert row["detections"][0].keys() == {"class_id", "class_name", "score", "box"}
        with Image.open(output_dir / f"{Path(row['image']).stem}.jpg") as annotated:
            assert annotated.size == size
    shown = capsys.readouterr()
    assert f"2 images, 40 detections above 0.0: {output_dir / 'predictions.json'}" in shown.out
    assert shown.err.startswith(f"rfdetr: warning: left out: {pictures / 'broken.webp'}")
    assert shown.err.count("\n") == 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with numpy 2
def test_masks_are_drawn_and_in_the_json(tmp_path: Path) -> None:
    weights, picture, output_dir = tmp_path / "seg.pth", tmp_path / "grey.png", tmp_path / "found"
    classes = ClassTable.from_categories(enumerate(["circle", "rectangle", "triangle", "star"]))
    save_checkpoint(weights, Checkpoint(Detector(TINY_SEG).state_dict(), TINY_SEG, classes))
    Image.new("RGB", (400, 300), "grey").save(picture)
    model = RFDETR.from_checkpoint(weights, device="cpu")
    predict_files(model, PredictConfig(images=(picture,), output_dir=output_dir, threshold=0))
    (row,) = json.loads((output_dir / "predictions.json").read_text())
    detections = model.predict(picture, threshold=0)
    masks = [coco_mask.decode(found["segmentation"]) for found in row["detections"]]
    assert np.any(masks)
    assert isinstance(detections.mask, np.ndarray)
    assert np.array_equal(masks, detections.mask)

    def distance(drawn: Image.Image) -> float:
        with Image.open(output_dir / "grey.jpg") as written:
            return float(np.abs(np.asarray(written, float) - np.asarray(drawn, float)).mean())

    with Image.open(picture) as image:
        unmasked = replace(detections, mask=None)
        assert distance(draw_detections(image, detections)) < 5 < distance(draw_detections(image, unmasked))


def test_pictures_of_the_same_name_are_kept_apart(model: RFDETR, tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "x.png", tmp_path / "two" / "x.png", tmp_path / "two" / "x.bmp"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 30)).save(path)
    predict_files(model, PredictConfig(images=tuple(paths), output_dir=tmp_path / "found", batch_size=2))
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "predictions.json",
        "x.jpg",
        "x_2.jpg",
        "x_3.jpg",
    ]


def test_results_never_mix_with_images(pictures: Path) -> None:
    with pytest.raises(ConfigError, match=r"output_dir: .*pictures is the folder of the images; results would mix"):
        list_images([pictures], pictures)
    with pytest.raises(ConfigError, match=r"output_dir: .*pictures is the folder of b.png; results would mix"):
        list_images([pictures / "b.png"], pictures.parent / "pictures")


def test_paths_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"images: .*nothing: no such file or folder"):
        list_images([tmp_path / "nothing"], tmp_path / "found")
    with pytest.raises(ConfigError, match=r"images: no images in .* \(looked for .bmp, .gif, .jpeg, .jpg, "):
        list_images([tmp_path], tmp_path / "found")


def test_an_image_given_twice_is_seen_once(pictures: Path, tmp_path: Path) -> None:
    files = list_images([pictures / "b.png", pictures], tmp_path)
    assert [file.name for file in files] == ["b.png", "a.JPG", "broken.webp"]


def test_nothing_readable_is_an_error(model: RFDETR, pictures: Path, tmp_path: Path) -> None:
    config = PredictConfig(images=(pictures / "broken.webp", pictures / "notes.txt"), output_dir=tmp_path / "found")
    with pytest.raises(ImageError, match="none of the images can be read"):
        predict_files(model, config)
    assert not list((tmp_path / "found").iterdir())
