"""data.yaml of a YOLO dataset: the names of its classes, and where its splits lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rfdetr.config.runs import Split
from rfdetr.data.formats.folders import VALIDATION_NAMES, list_files, read_text, same_text, suffix_of
from rfdetr.data.problems import Problems, brief
from rfdetr.files import UniqueKeys, parse_yaml

_USUAL_NAMES = ("data.yaml", "data.yml")
_SUFFIXES = (".yaml", ".yml")
_SPLIT_KEYS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("val", *VALIDATION_NAMES),
    "test": ("test",),
}
_NOTHING = ("", "~", "null", "Null", "NULL", "None")
_HOW_TO_NAME = "Write the names in the order of their indices: `names: [cat, dog]`"


@dataclass(frozen=True)
class DataFile:
    """What data.yaml says."""

    file: Path
    names: tuple[str, ...]
    path: str | None = None
    """Where the splits are looked for, as it is written."""
    splits: dict[Split, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """The key of each split that is named, and its folders or text files as they are written."""
    keypoint_numbers: int = 0
    """Numbers of key points that follow each box."""


class _Text(UniqueKeys, yaml.BaseLoader):
    """YAML whose values all are text, so that classes may be called `no`, `1` or `null`."""


def find_data_file(root: Path) -> Path | None:
    """The YAML file of a dataset: the given one, data.yaml, data.yml, or the only one that reads like it."""
    if root.is_file():
        return root if suffix_of(root.name) in _SUFFIXES else None
    if not root.is_dir():
        return None
    usual = next((root / name for name in _USUAL_NAMES if (root / name).is_file()), None)
    if usual:
        return usual
    others = [root / name for name in list_files(root) if suffix_of(name) in _SUFFIXES]
    alike = [file for file in others if _reads_like_one(file)]
    return alike[0] if len(alike) == 1 else None


def _reads_like_one(file: Path) -> bool:
    try:
        content = parse_yaml(read_text(file), _Text)
    except ValueError:
        return False
    return isinstance(content, dict) and not content.keys().isdisjoint(("names", "train"))


def read_data_file(file: Path, problems: Problems) -> DataFile | None:
    """None where it is unusable, which has been noted as an error."""
    try:
        content = parse_yaml(read_text(file), _Text)
    except ValueError as error:
        problems.error(file, str(error))
        return None
    if not isinstance(content, dict):
        given = "nothing" if content in (None, "") else brief(content)
        problems.error(file, f"expected lines `key: value` with `names`, `train` and `val`, got {given}")
        return None
    values: list[Any] = []
    for part in (_names, _path, _splits, _keypoint_numbers):
        try:
            values.append(part(content))
        except ValueError as error:
            problems.error(file, str(error))
    return DataFile(file, *values) if len(values) == 4 else None


def _names(content: Mapping[str, Any]) -> tuple[str, ...]:
    value = content.get("names")
    if value is None or value in _NOTHING or value in ([], {}):
        raise ValueError(f"no names of classes. {_HOW_TO_NAME}")
    if isinstance(value, dict):
        value = _in_order(value)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"names: expected a list of names, got {brief(value)}. {_HOW_TO_NAME}")
    names = checked_names(value)
    _check_number_of_names(content.get("nc"), len(names))
    return names


def checked_names(given: Iterable[str]) -> tuple[str, ...]:
    """Raises:
    ValueError: one is empty, or there twice.
    """
    names = [same_text(name.strip()) for name in given]
    if "" in names:
        raise ValueError(f"names: the one of index {names.index('')} is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        places = [str(index) for index, name in enumerate(names) if name == twice]
        raise ValueError(f"names: {twice!r} is there more than once (indices {', '.join(places)})")
    return tuple(names)


def _in_order(names: dict[str, Any]) -> list[Any]:
    """The values of {"0": ..., "1": ...}."""
    not_whole = [key for key in names if not _is_index(key)]
    if not_whole:
        raise ValueError(f"names: expected the indices 0, 1, ... as keys, got {brief(not_whole[0])}. {_HOW_TO_NAME}")
    by_index = {int(key): name for key, name in names.items()}
    if len(by_index) < len(names):
        raise ValueError(f"names: an index is there twice, got {brief([*names])}")
    missing = next((index for index in range(len(by_index)) if index not in by_index), None)
    if missing is not None:
        raise ValueError(f"names: no index {missing}; the keys must be 0, 1, ... without a gap, got {brief([*names])}")
    return [by_index[index] for index in range(len(by_index))]


def _check_number_of_names(nc: Any, number: int) -> None:
    """The labels would still find names. But a comma too many or too few in `names` gives them the wrong ones."""
    if nc is not None and nc not in _NOTHING and not (isinstance(nc, str) and nc.strip() == str(number)):
        raise ValueError(f"nc is {brief(nc)}, but there are {number} names. Mend one of them, or remove `nc`")


def _path(content: Mapping[str, Any]) -> str | None:
    value = content.get("path")
    if value is None or value in _NOTHING:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"path: expected a folder, got {brief(value)}")
    return value


def _splits(content: Mapping[str, Any]) -> dict[Split, tuple[str, tuple[str, ...]]]:
    found: dict[Split, tuple[str, tuple[str, ...]]] = {}
    for split, keys in _SPLIT_KEYS.items():
        for key in keys:
            value = content.get(key)
            if value is None or value in _NOTHING or value == []:
                continue
            paths = value if isinstance(value, list) else [value]
            if not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
                raise ValueError(f"{key}: expected a folder, a text file of image paths or a list of them, "
                                 f"got {brief(value)}")  # fmt: skip
            found[split] = (key, tuple(path.strip() for path in paths))
            break
    return found


def _keypoint_numbers(content: Mapping[str, Any]) -> int:
    """From kpt_shape: [points, numbers of each]. Lines of key points would else be read as polygons."""
    value = content.get("kpt_shape")
    if value is None or value in _NOTHING:
        return 0
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_index, value)):
        raise ValueError(f"kpt_shape: expected [points, 2 or 3], got {brief(value)}")
    return int(value[0]) * int(value[1])


def _is_index(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
