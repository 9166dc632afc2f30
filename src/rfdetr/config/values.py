"""Kinds of values that settings have."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

# YAML reads `precision: 32` as a number.
Precision = Annotated[
    Literal["auto", "32", "bf16", "fp16"], BeforeValidator(lambda value: "32" if value == 32 else value)
]
Chance = Annotated[float, Field(ge=0, le=1)]
"""A probability."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""Below the whole."""


def check_path(path: str | Path) -> str | Path:
    """Raises:
    ValueError: the path is empty, or none.
    """
    if not str(path).strip():
        raise ValueError("must not be empty")
    if "\0" in str(path):
        raise ValueError(f"is no path: {str(path)!r}")
    return path


AnyPath = Annotated[str | Path, AfterValidator(check_path)]


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

IN_PYTHON = "python:"
"""Begins what is written down for a callable."""


def name_of_callable(value: Any) -> str:
    """`my_project.augment.stormy` of a function, `albumentations.core.composition.Compose` of an object."""
    if isinstance(value, partial):
        return name_of_callable(value.func)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def is_sendable(value: Any) -> bool:
    """Whether another program, which imports the same modules, can be given this value."""
    try:
        pickle.dumps(value)
    except Exception:  # objects raise what they like
        return False
    return not name_of_callable(value).startswith("__main__.")


def check_pipeline(value: Any) -> Any:
    """Raises:
    ValueError: it is the name of a pipeline rather than one, or one that cannot move boxes.
    """
    if isinstance(value, str) and value.startswith(IN_PYTHON):
        raise ValueError(
            f"was {value.removeprefix(IN_PYTHON)}, which a file cannot hold; give it again in Python, "
            "as train(augment=...), or name a recipe"
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
