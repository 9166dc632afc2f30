import json
from pathlib import Path

import pytest
from PIL import Image

from rfdetr.api import RFDETR
from rfdetr.cli.main import main
from rfdetr.cli.predict import list_images, predict_files
from rfdetr.config.runs import PredictConfig
from rfdetr.errors import ConfigError, ImageError


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
