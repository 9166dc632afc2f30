"""`rfdetr predict`: files in, annotated images and one JSON out."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rfdetr.api import RFDETR
from rfdetr.config.commands import PredictConfig
from rfdetr.console import say, warn
from rfdetr.data.images import decode, to_eight_bits
from rfdetr.data.preprocess import as_source
from rfdetr.data.resampling import Picture
from rfdetr.errors import ConfigError, ImageError
from rfdetr.files import make_folder, write_atomically, write_json
from rfdetr.inference.ahead import map_ahead
from rfdetr.inference.detections import to_json
from rfdetr.report.draw import draw_detections

DECODED_AHEAD = 2
"""Pictures at full size that wait for the model."""
RESULTS = "predictions.json"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy"}


def predict_files(model: RFDETR, config: PredictConfig) -> None:
    """Write `predictions.json` and every image with its detections drawn; an unreadable image is named and left out.

    Raises:
        ConfigError: a path does not exist or has no images, or the results would lie among the images.
        ImageError: none of the images can be read.
    """
    output_dir = Path(config.output_dir)
    files = list_images([Path(path) for path in config.images], output_dir)
    names = _output_names(files)
    make_folder(output_dir, "output_dir")
    foreign = [name for name in names.values() if (output_dir / name).exists()]
    if foreign and not (output_dir / RESULTS).exists():
        raise ConfigError(f"output_dir: {output_dir} has a {foreign[0]} that would be replaced; choose another folder")
    if config.optimize:
        model.optimize()
    rows: list[dict[str, Any]] = []
    opened = _open_all(files, model.config.num_channels)
    while chunk := list(islice(opened, config.batch_size)):
        images = (as_source(picture) for _, picture in chunk)
        # One at a time: masks at full size are many times their image.
        found = model.predict_each(images, config.threshold, config.batch_size)
        for (file, picture), detections in zip(chunk, found, strict=True):
            rows.append(to_json(str(file), detections))
            drawn = draw_detections(to_eight_bits(picture), detections)
            write_atomically(output_dir / names[file], partial(drawn.save, format="JPEG", quality=92))
    if not rows:
        raise ImageError("none of the images can be read")
    write_json(output_dir / RESULTS, rows)
    count = sum(len(row["detections"]) for row in rows)
    say(f"{len(rows)} images, {count} detections above {config.threshold}: {output_dir / RESULTS}")


def list_images(paths: list[Path], output_dir: Path) -> list[Path]:
    """The images among files and folders, each folder's sorted by name."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            if path.resolve() == output_dir.resolve():
                raise ConfigError(f"output_dir: {output_dir} is the folder of the images; results would mix with them")
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise ConfigError(f"images: no images in {path} (looked for {', '.join(sorted(SUFFIXES))})")
            files += found
        elif path.is_file():
            if path.parent.resolve() == output_dir.resolve():
                raise ConfigError(f"output_dir: {output_dir} is the folder of {path.name}; results would mix with it")
            files.append(path)
        else:
            raise ConfigError(f"images: {path}: no such file or folder")
    return list(dict.fromkeys(files))


def _output_names(files: list[Path]) -> dict[Path, str]:
    """A name for each annotated image: its own, with a number where two would be the same."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        name, number = f"{file.stem}.jpg", 2
        while name.lower() in taken:
            name, number = f"{file.stem}_{number}.jpg", number + 1
        taken.add(name.lower())
        names[file] = name
    return names


def _open_all(files: list[Path], num_channels: int) -> Iterator[tuple[Path, Picture]]:
    for file, picture in zip(
        files, map_ahead(partial(_decoded, num_channels=num_channels), files, DECODED_AHEAD), strict=True
    ):
        if isinstance(picture, ImageError):
            warn(f"left out: {picture}")
        else:
            yield file, picture


def _decoded(file: Path, num_channels: int) -> Picture | ImageError:
    try:
        return decode(file, num_channels=num_channels)
    except ImageError as error:
        return error
