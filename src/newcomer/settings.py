"""Settings are the arguments of what they set: one signature serves the Python caller, the recipe and the store.

A learner, a stream or a data source states its settings once, as typed keyword arguments with defaults. `fill` completes and
validates a table of them (from a recipe or a store); `checked` gives the same care to a direct call.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from newcomer.errors import SettingError, nearest

Json = Any
"""What a JSON file can hold."""

LONGEST_NAME = 100
"""Characters of a folder's name."""

P = ParamSpec("P")
Self = TypeVar("Self")


@functools.cache
def _hints(make: Callable[..., object]) -> dict[str, Any]:
    return get_type_hints(vars(make)["__init__"] if isinstance(make, type) else make, include_extras=True)


@functools.cache
def _adapter(make: Callable[..., object], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_hints(make)[name], config=ConfigDict(strict=False))


def fill(
    make: Callable[..., object], given: Mapping[str, Json], where: str, provided: Collection[str] = ()
) -> dict[str, Json]:
    """All settings of `make`, those in `given` validated, the others at their defaults.

    `where` is the path shown in messages, `provided` names the arguments that are no settings (another object comes there).

    >>> def source(path: str, limit: int = 3): ...
    >>> fill(source, {"path": "birds", "limit": "4"}, "data")
    {'path': 'birds', 'limit': 4}
    >>> fill(source, {"pat": "birds"}, "data")
    Traceback (most recent call last):
    newcomer.errors.SettingError: data.pat is not a setting of source; did you mean 'path'?

    Raises SettingError at the first unknown, missing or impossible setting.
    """
    parameters = {n: p for n, p in inspect.signature(make).parameters.items() if n not in provided}
    name = getattr(make, "name", make.__name__)
    for key in given:
        if key not in parameters:
            raise SettingError(f"{where}.{key} is not a setting of {name}; {nearest(key, parameters)}")
    filled: dict[str, Json] = {}
    for key, parameter in parameters.items():
        if key in given:
            filled[key] = _valid(make, key, given[key], f"{where}.{key}")
        elif parameter.default is inspect.Parameter.empty:
            raise SettingError(f"{where}.{key} is missing; {name} needs it")
        else:
            filled[key] = parameter.default
    return filled


def changes(old: Mapping[str, Json], new: Mapping[str, Json]) -> dict[str, tuple[Json, Json]]:
    """Every setting that differs between two tables, with its path and both values; None where one has it not.

    >>> changes({"seed": 0, "learner": {"rank": 2, "epochs": 1}}, {"seed": 0, "learner": {"rank": 3, "epochs": 1}})
    {'learner.rank': (2, 3)}
    """
    found: dict[str, tuple[Json, Json]] = {}
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in changes(was, now).items()}
        elif was != now:
            found[key] = was, now
    return found


def is_file_name(name: str) -> bool:
    """Whether a folder can be called so, below another: a word, not a path, not hidden, nothing in it that cannot be seen.

    >>> [is_file_name(name) for name in ("sd-lora", "größer 2", "../x", "a/b", ".lock", "a:b", "")]
    [True, True, False, False, False, False, False]
    """
    return (
        0 < len(name) <= LONGEST_NAME
        and name == name.strip()
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set("/\\:")
    )


def checked(
    init: Callable[Concatenate[Self, P], None],
) -> Callable[Concatenate[Self, P], None]:
    """A constructor whose keyword-only arguments are validated settings, kept as `self.settings` for the store.

    Raises SettingError for a value that a setting cannot have.
    """
    parameters = list(inspect.signature(init).parameters.values())[1:]
    settings = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @functools.wraps(init)
    def call(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        known = [p.name for p in parameters]
        for key, value in kwargs.items():
            if key not in known:
                raise SettingError(f"{key} is not a setting of {type(self).__name__}; {nearest(key, known)}")
            if key in settings:
                kwargs[key] = _valid(init, key, value, f"{type(self).__name__}: {key}")
        vars(self)["settings"] = settings | {k: v for k, v in kwargs.items() if k in settings}
        init(self, *args, **kwargs)

    return call


def _valid(make: Callable[..., object], key: str, value: Json, where: str) -> Any:
    try:
        return _adapter(make, key).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise SettingError(f"{where} = {value!r} cannot be: {problem['msg'].lower()}") from None
