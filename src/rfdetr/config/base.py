"""The base of all configs: strict, frozen, and with error messages a person can act on."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import Self

from rfdetr.config.values import IN_PYTHON, name_of_callable
from rfdetr.errors import ConfigError


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
        refuse(type(self).__name__, self.check(settings)[1])
        super().__init__(**settings)

    @field_validator("*", mode="wrap")
    @classmethod
    def _note(cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Take no switch for a number (`lr: yes`); keep what is right for `check`."""
        name = str(info.field_name)
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[name].annotation):
            raise ValueError(f"is not a switch, got {value}")
        valid = validate(value)
        if info.context is not None:
            info.context[name] = valid
        return valid

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values that are right, those of defaults among them; and every problem."""
        valid: dict[str, Any] = {}
        problems: dict[str, str] = {}
        try:
            cls.__pydantic_validator__.validate_python(dict(settings), self_instance=cls.__new__(cls), context=valid)
        except ValidationError as error:
            problems = explain(cls, error)
        valid = {name: value for name, value in valid.items() if name not in problems}
        conflicts = cls.model_construct(**valid).contradictions()
        return valid, [*problems.values(), *(text for names, text in conflicts if valid.keys() >= set(names))]

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Settings that do not go together: which, and why. Asked of wrong settings too: required ones may lack."""
        yield from ()

    def is_changed(self, name: str) -> bool:
        """Whether a setting differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

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
    if callable(value):
        return IN_PYTHON + name_of_callable(value)
    return value


def explain(config: type[Config], error: ValidationError) -> dict[str, str]:
    """Pydantic's report as one plain line per setting."""
    found: dict[str, list[ErrorDetails]] = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        found.setdefault(name or problem["msg"], []).append(problem)
    return {name: _line(config, name, problems) for name, problems in found.items()}


def report(owner: str, lines: list[str]) -> str:
    """`TrainConfig has 2 problems:` and the problems below it."""
    if len(lines) == 1:
        return f"{owner}: {lines[0]}"
    return "\n  ".join([f"{owner} has {len(lines)} problems:", *lines])


def refuse(owner: str, problems: list[str]) -> None:
    """Raises:
    ConfigError: there are problems; names them all.
    """
    if problems:
        raise ConfigError(report(owner, problems))


def _line(config: type[Config], name: str, problems: list[ErrorDetails]) -> str:
    # A value that fits no member of a union has a problem with each; the first says enough, but for other words.
    problem, *others = problems
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such setting.{suggestion(name, list(config.model_fields))}"
    if problem["type"] == "missing":
        field = config.model_fields[name]
        return f"{name}: required. {field.description or ''}".rstrip()
    if problem["type"] == "value_error":
        return f"{name}: {message}" if problem["loc"] else message
    message = message[0].lower() + message[1:]
    words = "".join(f", or {other['ctx']['expected']}" for other in others if other["type"] == "literal_error")
    words += ", or true or false" * any(other["type"].startswith("bool") for other in others)
    near = _nearest(problem["input"], problem["ctx"]["expected"]) if problem["type"] == "literal_error" else ""
    return f"{name}: {message}{words}, got {problem['input']!r}{near}"


def _nearest(given: Any, expected: str) -> str:
    """`. Did you mean 'yolo'?`; `expected` are words in quotes."""
    near = suggestion(given, re.findall("'(.*?)'", expected)) if isinstance(given, str) else ""
    return "." * bool(near) + near


def suggestion(name: str, names: list[str]) -> str:
    """` Did you mean 'epochs'?`, or nothing when no name is near."""
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
