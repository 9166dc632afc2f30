"""Which classes the categories of a dataset are (training.md, 7.2)."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rfdetr.classes import ClassTable
from rfdetr.config.base import suggestion
from rfdetr.data.problems import Problems
from rfdetr.data.raw import Category
from rfdetr.data.split_data import SplitData

# Values of "supercategory" that mean none.
_NO_PARENT = ("none", "null", "")


def class_table(data: SplitData, file: Path, problems: Problems) -> ClassTable:
    """Classes 0..n-1 from a split's categories, sorted by id.

    Roboflow adds a category for the group of all others. Such parents, unless something is labelled as one, are not
    classes; if nothing else remains, all are.
    """
    used = set(np.unique(data.labels).tolist())
    categories = data.categories
    rows = [c for row, c in enumerate(categories) if row in used or not _is_parent(c, categories)] or categories
    for name, count in Counter(row.name for row in rows).items():
        if count > 1:
            ids = ", ".join(str(row.id) for row in rows if row.name == name)
            problems.error(file, "names of classes used more than once", f"{name!r} (ids {ids})")
    return ClassTable.from_categories((row.id, row.name) for row in rows)


def _is_parent(category: Category, categories: Sequence[Category]) -> bool:
    return category.name not in _NO_PARENT and any(
        other.supercategory == category.name for other in categories if other.id != category.id
    )


def class_ids(table: ClassTable, data: SplitData, file: Path, problems: Problems) -> list[int]:
    """The class id of each category of a split, by name; of those that are no class of the table, 0.

    That there are such categories is a problem where objects have them.
    """
    class_id_of = dict(zip(table.names, table.class_ids, strict=True))
    counts = np.bincount(data.labels, minlength=len(data.categories)).tolist()
    names = f"{', '.join(table.names[:10])}{', ...' * (len(table) > 10)}"
    for category, count in zip(data.categories, counts, strict=True):
        # Of a table that could not be read, its own error says enough.
        if class_id_of and category.name not in class_id_of and count:
            near = suggestion(category.name, list(table.names))
            problems.error(
                file,
                f"objects of classes that the training split does not have ({names}). Name them alike in all splits",
                f"{category.name!r} ({count} objects).{near}".rstrip("."),
            )
    return [class_id_of.get(category.name, 0) for category in data.categories]
