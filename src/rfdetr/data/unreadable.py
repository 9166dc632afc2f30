"""Images that turn out to be unusable in the middle of a run."""

from collections.abc import Mapping
from typing import TypeAlias

from rfdetr.distributed import gathered
from rfdetr.errors import ImageError

Unreadable: TypeAlias = dict[int, str]
"""Row of an image -> what is wrong with it, naming its file."""

_NAMED = 20


class UnreadableImageError(ImageError):
    """An image of a split cannot be used."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        """Its row."""


def of_all_processes(found: Unreadable) -> Unreadable:
    """What the processes have found, in the order of the images. All of them call this."""
    everything = {index: reason for part in gathered(found) for index, reason in part.items()}
    return dict(sorted(everything.items()))


def check_number(unreadable: Unreadable, split: str, num_images: int, limit: int) -> None:
    """Raises:
    ImageError: more than `limit` (max_bad_images) images of a split cannot be read; it lists them.
    """
    if len(unreadable) > limit:
        reasons = list(unreadable.values())
        more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
        raise ImageError(
            f"{len(reasons)} of {num_images} images of the {split} split cannot be read, more than "
            f"max_bad_images={limit} allows. Mend them, take them out of the dataset, or raise max_bad_images:"
            + "".join(f"\n  {line}" for line in [*reasons[:_NAMED], *more])
        )


def number_line(unreadable: Mapping[str, Unreadable]) -> str | None:
    """`images that cannot be read: 3 of train (others take their places), 1 of valid (left out)`; None if all can."""
    parts = [
        f"{len(found)} of {split} ({'others take their places' if split == 'train' else 'left out'})"
        for split, found in unreadable.items()
        if found
    ]
    return f"images that cannot be read: {', '.join(parts)}" if parts else None
