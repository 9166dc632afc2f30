"""Flags from config fields, and configs from flags and a settings file."""

import argparse
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from rfdetr.config.base import Config, suggestion
from rfdetr.config.reference import type_text
from rfdetr.errors import ConfigError
from rfdetr.files import read_settings


def add_flags(parser: argparse.ArgumentParser, configs: Sequence[type[Config]]) -> None:
    """One flag per setting, underscores as hyphens. A required setting may also be given as plain argument."""
    if not configs:
        return
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings; flags win over it")
    seen: set[str] = set()
    for config in configs:
        group = parser.add_argument_group((config.__doc__ or "").split("\n", 1)[0].rstrip("."))
        for name, field in config.model_fields.items():
            if name in seen:
                continue
            seen.add(name)
            default = "" if field.is_required() or field.default is None else f" [{field.default}]"
            options: dict[str, Any] = {
                "default": argparse.SUPPRESS,
                "help": f"{field.description}{default}".replace("%", "%%"),
            }
            flag = "--" + name.replace("_", "-")
            if _is_switch(field.annotation):
                group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, **options)
                continue
            metavar = type_text(field.annotation).replace(" or None", "").replace("'", "").replace(" or ", "|")
            nargs = "+" if get_origin(field.annotation) is tuple else None
            group.add_argument(flag, dest=name, metavar=metavar, nargs=nargs, **options)
            if field.is_required():
                parser.add_argument(
                    name, nargs="*" if nargs else "?", default=argparse.SUPPRESS, help=f"the same as {flag}"
                )


def _is_switch(annotation: Any) -> bool:
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return bool in members and not any(get_origin(member) is Literal for member in members)


def read_configs(flags: Mapping[str, Any], configs: Sequence[type[Config]]) -> list[Config]:
    """The configs from flags and, below them, from the file that `config` names.

    Raises:
        ConfigError: every problem of every config at once.
    """
    file = flags.get("config")
    settings = {**(read_settings(file) if file else {}), **{k: v for k, v in flags.items() if k != "config"}}
    problems = [_unknown(name, configs) for name in settings if not any(name in c.model_fields for c in configs)]
    built: list[Config] = []
    for config in configs:
        try:
            fields = {name: field for name, field in config.model_fields.items() if name in settings}
            built.append(config.from_dict({name: _value(settings[name], field) for name, field in fields.items()}))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def _value(value: Any, field: FieldInfo) -> Any:
    """The text `none` means None for a setting that may be None; for others it may be a word like any other."""
    can_be_none = type(None) in get_args(field.annotation)
    return None if can_be_none and isinstance(value, str) and value.lower() == "none" else value


def _unknown(name: str, configs: Sequence[type[Config]]) -> str:
    names = [known for config in configs for known in config.model_fields]
    return f"{name}: no such setting.{suggestion(name, names)}"


def changed(configs: Sequence[Config]) -> str:
    """The settings that differ from their defaults, on one line."""
    given: dict[str, Any] = {}
    for config in configs:
        for name, field in type(config).model_fields.items():
            if field.is_required() or getattr(config, name) != field.default:
                given[name] = getattr(config, name)
    return " ".join(f"{name}={_short(value)}" for name, value in given.items())


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value[:3])) + (",..." if len(value) > 3 else "")
    return str(value)
