"""Flags from config fields, and configs from flags and a settings file."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from rfdetr.config.base import Config, report, suggestion
from rfdetr.config.reference import choices, type_text
from rfdetr.errors import ConfigError
from rfdetr.files import read_settings


class Once(argparse.Action):
    """What can be given with and without its flag, but not both ways."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _flag: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            raise ConfigError(f"{self.dest}: given twice, as {getattr(namespace, self.dest)!r} and as {values!r}")
        setattr(namespace, self.dest, values)


def fields_of(configs: Sequence[type[Config]]) -> dict[str, FieldInfo]:
    """All settings of a command. A name that several configs have is a setting of all, described by the last."""
    return {name: field for config in configs for name, field in config.model_fields.items()}


def add_flags(parser: argparse.ArgumentParser, configs: Sequence[type[Config]]) -> None:
    """One flag per setting, underscores as hyphens. A required setting may also be given as plain argument."""
    if not configs:
        return
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings; flags win over it")
    known = fields_of(configs)
    for config in configs:
        group = parser.add_argument_group((config.__doc__ or "").split("\n", 1)[0].rstrip("."))
        for name, field in config.model_fields.items():
            if field is not known[name]:
                continue
            group.add_argument(flag_of(name), dest=name, **_flag_options(field))
            if field.is_required():
                nargs, meaning = "*" if _is_list(field) else "?", f"the same as {flag_of(name)}"
                parser.add_argument(name, nargs=nargs, action=Once, default=argparse.SUPPRESS, help=meaning)


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flag_options(field: FieldInfo) -> dict[str, Any]:
    default = "" if field.is_required() or field.default is None else f" [{field.default}]"
    options = {"default": argparse.SUPPRESS, "help": f"{field.description}{default}".replace("%", "%%")}
    text, words = type_text(field.annotation), choices(field.annotation)
    if _is_list(field):
        return {**options, "action": Once, "nargs": "+", "metavar": "path" if "Path" in text else "name"}
    kinds = ["path"] if "Path" in text else [kind for kind in text.split(" | ") if kind not in ("None", "Callable")]
    if "bool" in kinds and not words:
        return {**options, "action": argparse.BooleanOptionalAction}
    options["metavar"] = "|".join([*words, *(kind for kind in kinds if kind != "str")] if words else kinds)
    return {**options, "action": Once} if field.is_required() else options


def _is_list(field: FieldInfo) -> bool:
    return type_text(field.annotation).startswith("list[")


def read_configs(
    flags: Mapping[str, Any],
    configs: Sequence[type[Config]],
    further: Callable[[Mapping[str, Any]], list[str]] = lambda _valid: [],
    problems: Sequence[str] = (),
) -> list[Config]:
    """The configs from flags and, below them, from the file that `config` names.

    `further` names the problems that valid settings of several configs have with each other; `problems` are known.

    Raises:
        ConfigError: every problem of every config at once.
    """
    file = flags.get("config")
    settings = {**(read_settings(file) if file else {}), **{k: v for k, v in flags.items() if k != "config"}}
    known = fields_of(configs)
    unknown = (name for name in settings if name not in known)
    problems = [*problems, *(f"{name}: no such setting.{suggestion(name, list(known))}" for name in unknown)]
    parts, values = [], {}
    for config in configs:
        fields = {name: field for name, field in config.model_fields.items() if name in settings}
        parts.append({name: _value(settings[name], field) for name, field in fields.items()})
        valid, wrong = config.check(parts[-1])
        values.update(valid)
        problems += [report(config.__name__, wrong)] if wrong else []
    problems += further(values)
    if problems:
        raise ConfigError("\n".join(problems))
    return [config.from_dict(part) for config, part in zip(configs, parts, strict=True)]


def _value(value: Any, field: FieldInfo) -> Any:
    """The text `none` means None for a setting that may be None; for others it may be a word like any other."""
    can_be_none = "None" in type_text(field.annotation)
    return None if can_be_none and isinstance(value, str) and value.lower() == "none" else value


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
