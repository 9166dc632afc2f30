"""Kinds of values that settings have."""

import pickle
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

# YAML reads `precision: 32` as a number.
_AS_TEXT = BeforeValidator(lambda value: "32" if value == 32 else value)
Precision = Annotated[Literal["auto", "32", "bf16", "fp16"], _AS_TEXT]
OptimizedPrecision = Annotated[Literal["auto", "32", "bf16", "fp16", "int8", "int8-bf16"], _AS_TEXT]
MAX_MEGAPIXELS = 178.0
"""What Pillow reads at most; 0.5 GB as RGB."""
Chance = Annotated[float, Field(ge=0, le=1)]
"""A probability."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""Below the whole."""


IN_PYTHON = "python:"
"""Begins what is written down for an object that exists in Python alone."""


def check_path(path: str | Path) -> str | Path:
    """With the user's folder for `~`, which no shell expands in Python or in a YAML file.

    Raises:
        ValueError: the path is empty, or none, or there is no such user.
    """
    if not str(path).strip():
        raise ValueError("must not be empty")
    if "\0" in str(path):
        raise ValueError(f"is no path: {str(path)!r}")
    if not str(path).startswith("~"):
        return path
    try:
        return type(path)(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"no such user: {str(path)!r}; a folder of that name is './{path}'") from None


AnyPath = Annotated[str | Path, AfterValidator(check_path)]


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of random numbers; torch takes no larger one."""


@runtime_checkable
class Samples(Protocol):
    """A dataset in Python, as a `torch.utils.data.Dataset`; `rfdetr.data.samples` says what its samples are."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def check_dataset(value: Any) -> Any:
    """Raises:
    ValueError: it is none of the forms that a dataset has.
    """
    if isinstance(value, str) and value.startswith(IN_PYTHON):
        raise ValueError(f"was {value.removeprefix(IN_PYTHON)}, which a file cannot hold; give it again in Python")
    if isinstance(value, str | Path):
        return check_path(value)
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in ("train", "valid", "val", "test")]
        if unknown or not value or {"valid", "val"} <= set(value):
            raise ValueError(f"expected datasets under 'train', 'valid' and 'test', got {list(value)!r}")
    for name, own in value.items() if isinstance(value, Mapping) else [("", value)]:
        if not isinstance(own, Samples) or isinstance(own, str | bytes | Mapping):
            where = f" under {name!r}" if name else ""
            raise ValueError(f"expected a folder or a sequence of samples{where}, got {reprlib.repr(own)}")
    return value


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, str | Path) else IN_PYTHON + name_of_callable(value)


DatasetSource = Annotated[
    str | Path | Samples | Mapping[str, Samples], PlainValidator(check_dataset), PlainSerializer(_written)
]


def check_class_names(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Raises:
    ValueError: there are none, or they do not tell the classes apart.
    """
    if names is None:
        return None
    if not names or not all(name.strip() for name in names):
        raise ValueError("must not be empty, nor a name among them")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each class needs a name of its own, but {', '.join(map(repr, twice))} is there twice")
    return names


ClassNames = Annotated[tuple[str, ...] | None, AfterValidator(check_class_names)]


def name_of_callable(value: Any) -> str:
    """`my_project.augment.stormy` of a function, `albumentations.core.composition.Compose` of an object, `list`."""
    if isinstance(value, partial):
        return name_of_callable(value.func)
    named = value if hasattr(value, "__qualname__") else type(value)
    return named.__qualname__ if named.__module__ == "builtins" else f"{named.__module__}.{named.__qualname__}"


def is_sendable(value: Any) -> bool:
    """Whether another program, which imports the same modules, can be given this value."""
    try:
        pickle.dumps(value)
    except Exception:  # objects raise what they like
        return False
    return is_importable(value)


def is_importable(value: Any) -> bool:
    """Whether another program finds its class, or for a mapping those of its values: not that of the main script."""
    values = value.values() if isinstance(value, Mapping) else [value]
    return not any(name_of_callable(own).startswith("__main__.") for own in values)


def check_pipeline(value: Any) -> Any:
    """Raises:
    ValueError: it is no pipeline, only the name of one, or one that cannot move boxes.
    """
    if isinstance(value, str) and value.startswith(IN_PYTHON):
        raise ValueError(
            f"was {value.removeprefix(IN_PYTHON)}, which a file cannot hold; give it again in Python, "
            "as train(augment=...), or name a recipe"
        )
    if not isinstance(value, str) and not callable(value):
        raise ValueError(
            "expected the name of a recipe, a function, transforms of torchvision v2 or a Compose of Albumentations, "
            f"got {reprlib.repr(value)}"
        )
    module = type(value).__module__
    if module.startswith("albumentations.") and "bboxes" not in getattr(value, "processors", {}):
        raise ValueError(
            "Albumentations moves boxes only with bbox_params, as in "
            "Compose([...], bbox_params=BboxParams(format='pascal_voc', label_fields=['labels']))"
        )
    if module.startswith("torchvision.transforms.") and not module.startswith("torchvision.transforms.v2."):
        raise ValueError("torchvision.transforms leaves boxes where they are; use torchvision.transforms.v2")
    return value


RecipeName = Literal["default", "none", "conservative", "aggressive", "aerial", "industrial"]
Augment = Annotated[RecipeName | Callable[..., Any], BeforeValidator(check_pipeline)]
