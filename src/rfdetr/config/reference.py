"""The settings page and the help text, generated from the config classes."""

import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from rfdetr.config.base import Config

REQUIRED = "Required"
INTRODUCTION = """\
# Settings

Printed by `rfdetr settings`. A setting has the same name as keyword of a method, as flag (`--batch-size` for
`batch_size`; a switch is `--use-ema` or `--no-use-ema`) and in the YAML file that `--config` names. For the command
line alone are those of ModelChoice, CheckConfig, ConvertConfig and DemoConfig, and of PredictConfig `output_dir` and
`optimize`; those of OptimizeConfig are keywords of `model.optimize` alone.
"""


def settings_list(config: type[Config]) -> list[dict[str, Any]]:
    """Name, type, default and description of each setting, and the words it can be where there are some."""
    rows = []
    for name, field in config.model_fields.items():
        default = REQUIRED if field.is_required() else field.default
        kind, words = type_text(field.annotation), choices(field.annotation)
        row = {"name": name, "type": kind, "default": default, "description": field.description or ""}
        rows.append({**row, "choices": words} if words else row)
    return rows


def settings_page(configs: Sequence[type[Config]]) -> str:
    """The page of the docs as Markdown, read from the config classes so that it cannot be out of date."""
    sections = (f"## {config.__name__}\n\n{config.__doc__}\n\n{settings_table(config)}\n" for config in configs)
    return "\n".join([INTRODUCTION, *sections])


def settings_table(config: type[Config]) -> str:
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in config.model_fields.items():
        words = ", ".join(f"`{word}`" for word in choices(field.annotation))
        kind = type_text(field.annotation).replace("|", "\\|") + (f": {words}" if words else "")
        default = REQUIRED if field.is_required() else f"`{field.default}`"
        rows.append(f"| `{name}` | {kind} | {default} | {field.description} |")
    return "\n".join(rows)


def type_text(annotation: Any) -> str:
    """`int`, `float | None`, `str | Path`, `list[str]`; the words of `choices` are `str`."""
    return " | ".join(dict.fromkeys(map(_name, _kinds(annotation))))


def choices(annotation: Any) -> list[str]:
    """The words that a setting can be, beside its other types."""
    return [kind for kind in _kinds(annotation) if isinstance(kind, str)]


def _kinds(annotation: Any) -> list[Any]:
    """The types that a value can be of, and the words that it can be."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return [kind for arg in args for kind in _kinds(arg)]
    if origin is Literal:
        return list(args)
    if hasattr(annotation, "__metadata__"):
        return _kinds(args[0])
    return [annotation]


def _name(kind: Any) -> str:
    if isinstance(kind, str):
        return "str"
    if kind is type(None):
        return "None"
    if get_origin(kind) is tuple:
        return f"list[{' | '.join(map(_name, _kinds(get_args(kind)[0])))}]"
    return str(kind.__name__)
