"""The base of all configs: strict, frozen, and with error messages a person can act on."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import Self

from rfdetr.errors import ConfigError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Settings with names, types, ranges and one line of meaning each (the line under the field).

    Raises:
        ConfigError: names every problem at once: what was given, what is allowed, the nearest name.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError(explain(type(self), error)) from None

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Checked config from a mapping of names to values, as YAML or the command line give it."""
        return cls(**dict(settings))

    def given(self) -> dict[str, Any]:
        """The settings that were not left at their defaults."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some settings changed. What was left at its default stays so."""
        return type(self)(**{**self.given(), **changes})

    def plain(self) -> dict[str, Any]:
        """The settings as plain values, ready for YAML, JSON or a checkpoint."""
        return {name: _plain(value) for name, value in self.model_dump().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def explain(config: type[Config], error: ValidationError) -> str:
    """Pydantic's report as one plain line per problem."""
    seen: dict[str, str] = {}
    for problem in error.errors():
        # A value that fits no member of a union is reported once per member; the first says enough.
        name = str(problem["loc"][0]) if problem["loc"] else ""
        seen.setdefault(name or problem["msg"], _line(config, name, problem))
    return report(config.__name__, list(seen.values()))


def report(owner: str, lines: list[str]) -> str:
    """`TrainConfig has 2 problems:` and the problems below it."""
    if len(lines) == 1:
        return f"{owner}: {lines[0]}"
    return "\n  ".join([f"{owner} has {len(lines)} problems:", *lines])


def _line(config: type[Config], name: str, problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such setting.{suggestion(name, list(config.model_fields))}"
    if problem["type"] == "missing":
        field = config.model_fields[name]
        return f"{name}: required. {field.description or ''}".rstrip()
    if problem["type"] == "value_error":
        return f"{name}: {message}" if name else message
    message = message[0].lower() + message[1:]
    return f"{name}: {message}, got {problem['input']!r}"


def suggestion(name: str, names: list[str]) -> str:
    """` Did you mean 'epochs'?`, or nothing when no name is near."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
