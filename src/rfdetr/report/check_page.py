"""The check of a dataset as one HTML file that needs no other."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from rfdetr.config.runs import Split
from rfdetr.data.copies import Place
from rfdetr.data.images import to_eight_bits
from rfdetr.data.statistics import all_box_sizes
from rfdetr.errors import ImageError
from rfdetr.report.check_pictures import Tile
from rfdetr.report.check_text import copies_sentence, headline
from rfdetr.report.dataset_check import Check, median, shown
from rfdetr.report.ground_truth import small_picture
from rfdetr.report.marks import color_of

_TEMPLATE = "check_page.html.jinja"
_SIDES = (0, 8, 16, 32, 64, 96, 192, 384)
_COUNTS = (0, 1, 2, 3, 6, 11, 21, 51, 101, 301)
_PAIR_SIDE, _MOST_PAIRS = 200, 8


class Bar(NamedTuple):
    """One line of a chart."""

    label: str
    number: int
    percent: float
    """Length, of the longest."""
    color: str


class Pair(NamedTuple):
    """Two pictures that are the same."""

    names: tuple[str, str]
    sources: tuple[str, str]


def check_page(check: Check, pictures: Sequence[Tile]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    everything = list(check.statistics.values())
    sides = np.sqrt(all_box_sizes(everything, check.model.resolution).prod(axis=1))
    counts = np.concatenate([np.zeros(0, np.int64), *(own.objects_per_image for own in everything)])
    return environment.get_template(_TEMPLATE).render(
        check=check,
        title=Path(check.config.dataset_dir).resolve().name or str(check.config.dataset_dir),
        headline=headline(check) if check.format else "",
        splits=[_split(check, name) for name in check.statistics],
        classes=list(_classes(check)),
        box_bars=_histogram(sides, _SIDES, "px"),
        count_bars=_histogram(counts, _COUNTS, ""),
        copies=copies_sentence(check.copies) if check.copies else "",
        pairs=list(_pairs(check)),
        pictures=[(tile, data_uri(tile.image)) for tile in pictures],
    )


def _split(check: Check, name: Split) -> dict[str, Any]:
    own = check.statistics[name]
    return {
        "name": name,
        "images": own.num_images,
        "objects": own.num_objects,
        "empty": own.num_empty,
        "unlisted": check.unlisted.get(name, 0),
        "median": median(own.objects_per_image),
        "most": int(own.objects_per_image.max(initial=0)),
    }


def _classes(check: Check) -> Iterator[tuple[int, str, list[Bar]]]:
    counts = {name: own.objects_per_class for name, own in check.statistics.items()}
    longest = {name: max(1, int(own.max(initial=0))) for name, own in counts.items()}
    for index, name in enumerate(check.class_names):
        color = _css(index)
        bars = [
            Bar(split, int(own[index]), 100 * int(own[index]) / longest[split], color) for split, own in counts.items()
        ]
        yield index, name, bars


def _css(class_id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color_of(class_id))


def _histogram(values: Shaped[np.ndarray, "N"], starts: Sequence[int], unit: str) -> list[Bar]:
    """How many values lie from each start to the next; ends without any are left out."""
    counts = np.histogram(values, [*starts, np.inf])[0]
    filled = np.flatnonzero(counts)
    if not len(filled):
        return []
    bars = []
    for index in range(filled[0], filled[-1] + 1):
        label = _range(starts, index, unit)
        bars.append(Bar(label, int(counts[index]), 100 * counts[index] / counts.max(), "var(--accent)"))
    return bars


def _range(starts: Sequence[int], index: int, unit: str) -> str:
    suffix = f" {unit}" if unit else ""
    if index + 1 == len(starts):
        return f"{starts[index]}{suffix} or more"
    start, end = starts[index], starts[index + 1] - (not unit)
    return f"{start}{suffix}" if start == end else f"{start} to {end}{suffix}"


def _pairs(check: Check) -> Iterator[Pair]:
    """Some pictures of each leak, beside the same one in the other split."""
    for pairs in (check.copies.leaked if check.copies else {}).values():
        for place, other in pairs[:_MOST_PAIRS]:
            sources = _source(check, place), _source(check, other)
            if all(sources):
                yield Pair((shown(place), shown(other)), sources)


def _source(check: Check, place: Place) -> str:
    split = next(own for name, own in check.splits.items() if name == place.split)
    try:
        picture = small_picture(split, place.row, _PAIR_SIDE)
    except ImageError:
        return ""
    return data_uri(to_eight_bits(picture))


def data_uri(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
