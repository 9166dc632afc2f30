"""Training augmentation: from pictures as they were loaded to the one that the detector is shown.

All random numbers of a sample come from its own generator. Pictures that are mixed with it are drawn from that, too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.config.recipes import Recipe
from rfdetr.data.colour import finish
from rfdetr.data.geometry import draw_geometry, render
from rfdetr.data.mixing import Tile, copy_paste, draw_tiles, mixup, mosaic
from rfdetr.data.pipelines import run_pipeline
from rfdetr.data.scenes import Scene, Source


@dataclass(frozen=True, eq=False)
class Augmenter:
    """A recipe, and the pictures that it is applied to."""

    recipe: Recipe
    load: Callable[[int], Source]
    """The picture and the objects of an image."""
    num_images: int
    classes: ClassTable
    """The labels that a pipeline of the user may return are its class ids."""

    def sample(self, index: int, rng: np.random.Generator, size: int) -> Scene:
        """Image `index` as a square.

        Raises:
            TrainingError: the user's pipeline fails, or returns what cannot be trained on.
            ImageError: a picture cannot be read, be it this one or one that is mixed with it.
        """
        mixing, finishing = rng.spawn(2)
        scene = self._mosaic(index, rng, mixing, size) if self._happens(mixing, "mosaic") else None
        scene = scene or self._view(index, rng, (size, size))
        if self._happens(mixing, "copy_paste"):
            scene = copy_paste(scene, self._partner(mixing, (size, size)), mixing)
        if self._happens(mixing, "mixup"):
            scene = mixup(scene, self._partner(mixing, (size, size)), mixing)
        return replace(scene, pixels=finish(scene.pixels, finishing, self.recipe))

    def _happens(self, rng: np.random.Generator, name: str) -> bool:
        return bool(rng.random() < getattr(self.recipe, name))

    def _view(self, index: int, rng: np.random.Generator, size_hw: tuple[int, int], is_tile: bool = False) -> Scene:
        """One picture with its own geometry."""
        source = self.load(index)
        if self.recipe.pipeline is not None:
            (seeds,) = rng.spawn(1)
            source = run_pipeline(self.recipe.pipeline, source, int(seeds.integers(2**32)), self.classes)
        geometry = draw_geometry(rng, source.size_hw, self.recipe)
        if is_tile:
            # A part as high and wide as the tile, so that objects are not squeezed more than in a whole picture.
            longer = max(size_hw)
            geometry = replace(geometry, is_moved=True)
            geometry = geometry.part(size_hw[1] / longer, size_hw[0] / longer, *rng.random(2).tolist())
        return render(source, geometry, size_hw)

    def _partner(self, rng: np.random.Generator, size_hw: tuple[int, int], is_tile: bool = False) -> Scene:
        """A view of any image."""
        (own,) = rng.spawn(1)
        return self._view(int(rng.integers(self.num_images)), own, size_hw, is_tile)

    def _mosaic(self, index: int, rng: np.random.Generator, mixing: np.random.Generator, size: int) -> Scene:
        """The image and three others, in any order."""
        tiles: list[Tile] = draw_tiles(mixing, size)
        own = int(mixing.integers(len(tiles)))

        def show(number: int, size_hw: tuple[int, int]) -> Scene:
            if number == own:
                return self._view(index, rng, size_hw, is_tile=True)
            return self._partner(mixing, size_hw, is_tile=True)

        return mosaic(tiles, show, size)
