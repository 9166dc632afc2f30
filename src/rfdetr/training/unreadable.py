"""The images that turn out to be unusable during a run: each is named once, and too many end it."""

from collections.abc import Callable

from rfdetr.console import warn
from rfdetr.data.annotations import Annotations
from rfdetr.data.loading import still_unreadable
from rfdetr.data.unreadable import Unreadable, check_number, number_line
from rfdetr.distributed import broadcast, rank_and_world_size


class UnreadableImages:
    """All processes of a run know the same.

    Args:
        known: by split; part of the run's state.
        limit: of each split (max_bad_images).
    """

    def __init__(self, known: dict[str, Unreadable], limit: int) -> None:
        self.known = known
        self.limit = limit

    def add(self, split: Annotations, save: Callable[[], None], found: Unreadable) -> None:
        """Some have been found in the training split.

        Raises:
            ImageError: they are too many; the state is saved.
        """
        self._note(split, save, {**self._of(split), **found}, "Another image takes its place")

    def replace(self, split: Annotations, save: Callable[[], None], found: Unreadable) -> None:
        """All images of a split have been looked at.

        Raises:
            ImageError: too many of them cannot be read; the state is saved.
        """
        self._note(split, save, found, "It is left out")

    def look_again(self, split: Annotations) -> None:
        """What could not be read before the run was resumed may have been mended.

        Raises:
            ImageError: it has not, and is more than is allowed.
        """
        known = self._of(split)
        if known:
            # Processes may have no disk in common, and have to know the same.
            left = broadcast(still_unreadable(split, known) if rank_and_world_size()[0] == 0 else known)
            self.known[split.split] = left
            check_number(left, split.split, len(split), self.limit)

    def line(self) -> str | None:
        """How many there are; None without any."""
        return number_line(self.known)

    def _of(self, split: Annotations) -> Unreadable:
        return self.known.get(split.split, {})

    def _note(self, split: Annotations, save: Callable[[], None], unreadable: Unreadable, what_happens: str) -> None:
        for index, reason in unreadable.items():
            if index not in self._of(split):
                warn(f"{reason}. {what_happens}")
        if unreadable or self._of(split):
            self.known[split.split] = unreadable
        if len(unreadable) > self.limit:
            save()
            check_number(unreadable, split.split, len(split), self.limit)
