"""The class table: which dataset category stands behind which logit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from rfdetr.errors import ConfigError


@dataclass(frozen=True)
class ClassTable:
    """Rows (dataset category id, name, index of the logit), in the order of the logits.

    Predictions and evaluation speak of logit indices ("class ids"); the table gives names and the dataset's own ids.
    Tables built from a dataset have class ids 0..n-1. COCO's published weights use the COCO id as class id.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...]
    class_ids: tuple[int, ...]

    @classmethod
    def from_categories(cls, categories: Iterable[tuple[int, str]]) -> Self:
        """Contiguous class ids for (category id, name) pairs, sorted by category id."""
        rows = sorted(categories)
        return cls(tuple(i for i, _ in rows), tuple(name for _, name in rows), tuple(range(len(rows))))

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        return cls(tuple(table["category_ids"]), tuple(table["names"]), tuple(table["class_ids"]))

    def to_dict(self) -> dict[str, list[Any]]:
        return {
            "category_ids": list(self.category_ids),
            "names": list(self.names),
            "class_ids": list(self.class_ids),
        }

    def renamed(self, names: Sequence[str]) -> "ClassTable":
        """The same rows under other names, in their order.

        Raises:
            ConfigError: not as many names as rows, or the same names in another order, which would mix up classes.
        """
        if len(names) != len(self.names):
            raise ConfigError(
                f"class_names: {len(names)} names for {len(self.names)} classes ({', '.join(self.names)}); "
                "give one for each, in this order"
            )
        if tuple(names) != self.names and sorted(names) == sorted(self.names):
            raise ConfigError(
                f"class_names: the dataset has the same names in another order: {', '.join(self.names)}. "
                "Names are given by position; leave class_names out"
            )
        return ClassTable(self.category_ids, tuple(names), self.class_ids)

    def with_ids_of(self, other: "ClassTable") -> "ClassTable":
        """The same logits, with the category ids that another table gives to the same names."""
        category_id_of = dict(zip(other.names, other.category_ids, strict=True))
        return ClassTable(tuple(category_id_of[name] for name in self.names), self.names, self.class_ids)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """What ModelConfig.num_classes must be at least: the largest class id plus one."""
        return max(self.class_ids, default=-1) + 1

    @property
    def name_of(self) -> dict[int, str]:
        """Class id -> name."""
        return dict(zip(self.class_ids, self.names, strict=True))
