"""Classes of formats that write their names beside each object."""

from array import array

from rfdetr.data.formats.folders import same_text
from rfdetr.data.raw import Category, RawSplit


class NamedClasses:
    """Collects names in the order in which they come; in the end classes are in the order of the alphabet."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def row(self, name: str) -> int:
        return self._rows.setdefault(same_text(name), len(self._rows))

    def finish(self, raw: RawSplit) -> None:
        """Set the categories of a split whose labels are rows of this table."""
        names = sorted(self._rows)
        raw.categories = [Category(index, name) for index, name in enumerate(names)]
        new_rows = {self._rows[name]: index for index, name in enumerate(names)}
        raw.labels = array("q", [new_rows[row] for row in raw.labels])
