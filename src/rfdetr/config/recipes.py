"""Named recipes of augmentation: what is done to training pictures, how often and how much."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Chances (0 to 1) that something is done to a picture, and amounts: the most that is drawn, either way.

    `TrainConfig` has a setting of the same name for each, which says what it means.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rotate90: float = 0.0
    crop: float = 0.5

    affine: float = 1.0  # a chance, for the four amounts below
    degrees: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    shear: float = 0.0

    color_jitter: float = 1.0  # a chance, for the four amounts below
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    grayscale: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    pipeline: Callable[..., Any] | None = None
    """The user's own: it gets each picture before all of the above."""

    @classmethod
    def options(cls) -> list[str]:
        """The names of all chances and amounts."""
        return [field.name for field in fields(cls) if field.name != "pipeline"]

    @classmethod
    def nothing_but(cls, pipeline: Callable[..., Any] | None = None) -> "Recipe":
        return cls(horizontal_flip=0.0, crop=0.0, pipeline=pipeline)

    def idle(self) -> Iterator[tuple[str, str]]:
        """Chances of what is nothing, with its names."""
        for chance, amounts in AMOUNTS.items():
            if not any(getattr(self, name) for name in amounts):
                yield chance, ", ".join(amounts)


AMOUNTS = {
    "affine": ("degrees", "scale", "translate", "shear"),
    "color_jitter": ("brightness", "contrast", "saturation", "hue"),
}
"""The chance on which amounts depend."""


RECIPES = {
    "default": Recipe(),
    "none": Recipe.nothing_but(),
    "conservative": Recipe(color_jitter=0.3, brightness=0.1, contrast=0.1),
    "aggressive": Recipe(
        vertical_flip=0.5,
        affine=0.5,
        degrees=45.0,
        scale=0.2,
        translate=0.1,
        shear=5.0,
        color_jitter=0.5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.1,
    ),
    # Seen from above no side is the upper one. Quarter turns keep boxes tight, which other angles do not.
    "aerial": Recipe(
        vertical_flip=0.5,
        rotate90=0.75,
        affine=0.5,
        scale=0.2,
        translate=0.1,
        color_jitter=0.5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
    ),
    # A mounted camera, parts that lie about straight, colours that mean something; lamps, focus and gain differ.
    "industrial": Recipe(
        vertical_flip=0.5,
        affine=0.5,
        degrees=5.0,
        scale=0.1,
        translate=0.05,
        color_jitter=0.5,
        brightness=0.2,
        contrast=0.2,
        blur=0.1,
        noise=0.1,
    ),
}
