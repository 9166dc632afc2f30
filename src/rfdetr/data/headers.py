"""A look at the header of every picture, before a run depends on it."""

from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from rfdetr.data.annotations import Annotations
from rfdetr.data.validation import Problems

_ORIENTATION = 0x0112  # EXIF tag
_QUARTER_TURNS = (5, 6, 7, 8)


def check_headers(annotations: Annotations) -> None:
    """See that every picture is one, and of the size that its boxes were drawn at; pixels are not decoded.

    Raises:
        DatasetError: names the pictures that are not.
    """
    with ThreadPoolExecutor() as pool:
        found = [
            problem for problem in pool.map(lambda i: _problem(annotations, i), range(len(annotations))) if problem
        ]
    problems = Problems(annotations.annotation_file)
    problems.add("pictures that cannot be used", found)
    problems.raise_if_any()


def _problem(annotations: Annotations, index: int) -> str | None:
    path = annotations.image_path(index)
    height, width = annotations.size_hw(index)
    try:
        with Image.open(path) as image:
            size = image.size[::-1] if image.getexif().get(_ORIENTATION) in _QUARTER_TURNS else image.size
    except Exception:  # decoders raise whatever a damaged file leads them to
        return f"{path.name} is damaged or not an image"
    return (
        None
        if size == (width, height)
        else f"{path.name} is {size[0]} x {size[1]} pixels, listed as {width} x {height}"
    )
