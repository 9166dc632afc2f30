"""The settings page and the help text, generated from the config classes."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from rfdetr.config.base import Config


def settings_list(config: type[Config]) -> list[dict[str, Any]]:
    """Name, type, default and description of each setting; a required one has no default."""
    rows = []
    for name, field in config.model_fields.items():
        row = {"name": name, "type": type_text(field.annotation)}
        if not field.is_required():
            row["default"] = field.default
        rows.append({**row, "description": field.description or ""})
    return rows


def settings_table(config: type[Config]) -> str:
    """The settings page of the docs as Markdown, read from the config class so that it cannot be out of date."""
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in config.model_fields.items():
        kind = type_text(field.annotation).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {_default_text(field)} | {field.description} |")
    return "\n".join(rows)


def _default_text(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{field.default}`"


def type_text(annotation: Any) -> str:
    """`int`, `float or None`, `'step' or 'cosine'`, `path`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        texts = list(dict.fromkeys(type_text(arg) for arg in args))
        if "path" in texts and "str" in texts:
            texts.remove("str")
        return " or ".join(texts)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"list of {type_text(args[0])}"
    if annotation is type(None):
        return "None"
    if hasattr(annotation, "__metadata__"):
        return type_text(args[0])
    return "path" if annotation is Path else str(annotation.__name__)
