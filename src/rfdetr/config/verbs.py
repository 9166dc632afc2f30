"""Methods that take one config object or its fields as keywords, typed as the config class is."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from rfdetr.config.base import Config, refuse
from rfdetr.errors import ConfigError

P = ParamSpec("P")
S = TypeVar("S")
C = TypeVar("C", bound=Config)
R = TypeVar("R")


class BoundVerb(Generic[P, C, R]):
    """What a type checker sees of `model.train`: `train(config)` or `train(dataset_dir=..., ...)`."""

    @overload
    def __call__(self, config: C, /) -> R: ...
    @overload
    def __call__(self, *args: P.args, **settings: P.kwargs) -> R: ...
    def __call__(self, *args: Any, **settings: Any) -> R:
        raise NotImplementedError  # only its type is used


class Verb(Generic[P, C, R]):
    """The type of such a method before it is bound to an object."""

    def __get__(self, instance: Any, owner: Any) -> BoundVerb[P, C, R]:
        raise NotImplementedError  # only its type is used


def takes_settings(
    config_class: Callable[P, C], further: Callable[[Any, Mapping[str, Any]], list[str]] = lambda _self, _valid: []
) -> Callable[[Callable[[S, C], R]], Verb[P, C, R]]:
    """Let a method of one config object take the fields of its class as keywords instead.

    `further` names the problems that valid settings have because of the object.
    """
    config_type = cast("type[C]", config_class)

    def decorate(method: Callable[[S, C], R]) -> Verb[P, C, R]:
        @functools.wraps(method)
        def call(self: S, config: C | None = None, /, **settings: Any) -> R:
            if config is not None and settings:
                raise ConfigError(f"{method.__name__}: give a config or settings, not both")
            if config is not None and type(config) is not config_type:
                expected = config_type.__name__
                raise ConfigError(f"{method.__name__}: give settings by name, or one {expected}; got {config!r}")
            valid, problems = config_type.check(settings) if config is None else (dict(config), [])
            refuse(config_type.__name__, [*problems, *further(self, valid)])
            return method(self, config or config_type(**settings))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        fields = inspect.signature(config_class).parameters.values()
        call.__signature__ = inspect.Signature([own, *fields])  # type: ignore[attr-defined]  # for help() and editors
        return cast("Verb[P, C, R]", call)

    return decorate


def takes_fields(
    config_class: Callable[P, C], further: Callable[[Any, Mapping[str, Any]], list[str]] = lambda _self, _valid: []
) -> Callable[[Callable[[S, C], None]], Callable[Concatenate[S, P], None]]:
    """The same for a constructor, which takes keywords only."""

    def decorate(method: Callable[[S, C], None]) -> Callable[Concatenate[S, P], None]:
        return cast("Callable[Concatenate[S, P], None]", takes_settings(config_class, further)(method))

    return decorate
