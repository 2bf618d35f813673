"""Settings: the keyword arguments of a constructor or function, flat in recipes and stores, in frozen groups in Python.

A learner, a stream or a data source states its settings once, as typed keyword arguments with defaults. An argument whose type is a
frozen dataclass is a *group*: its fields are settings by their own names, so that a recipe writes `epochs = 4`, and Python passes
`training=Training(epochs=4)` or `epochs=4`, which replaces one field of the default group. `fill` completes and validates a table
of settings (from a recipe or a store); `checked` does the same for a direct call.
"""

import dataclasses
import functools
import inspect
import tomllib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from newcomer.errors import SettingError, nearest

Json = Any
"""Any JSON value."""

Init = TypeVar("Init", bound=Callable[..., None])

FLAT_NAME = "setting"
"""Key in a dataclass field's metadata: the setting's name, if it is not the field's; None if it is no setting."""


CHECKED = "settings_are_checked"
"""Attribute that marks a checked constructor."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: its type, its default, and the argument (and the field of the group there) that takes it."""

    hint: Any
    default: Json
    argument: str
    field: str | None = None
    group: Any = None
    """The default group that the field is of."""

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.hint, config=ConfigDict(strict=False))

    def to_json(self, value: Any) -> Json:
        """A valid value as recipes and stores have it: lists for tuples."""
        return self._adapter.dump_python(value, mode="json")

    def valid(self, value: Json, where: str) -> Any:
        """The value in the setting's type. Raises SettingError for a value that it cannot have."""
        try:
            found = self._adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
            raise SettingError(f"{where} = {value!r} cannot be: {problem['msg'].lower()}") from None
        if _loses_truth(value, found):
            raise SettingError(f"{where} = {value!r} cannot be: input should not be true or false")
        return found


def setting_name(name: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field whose setting has another name: `epochs: int = setting_name("pretrain_epochs", 2)`."""
    return dataclasses.field(default=default, metadata={FLAT_NAME: name})


def internal(default: Any) -> Any:
    """A dataclass field that is no setting: the learner sets it."""
    return dataclasses.field(default=default, metadata={FLAT_NAME: None})


@functools.cache
def settings_of(make: Callable[..., object]) -> dict[str, Setting]:
    """The settings of a class or function by name, in the order of its arguments, groups flattened.

    A class that takes `**settings` has those of the next checked constructor in its method resolution order as well.
    """
    owners: list[Any] = [make]
    if isinstance(make, type):
        inits = [kind for kind in make.__mro__ if "__init__" in vars(kind)]
        owners = [*inits[:1], *(kind for kind in inits[1:] if hasattr(vars(kind)["__init__"], CHECKED))]
    found: dict[str, Setting] = {}
    for owner in owners:
        init = vars(owner)["__init__"] if isinstance(owner, type) else owner
        hints, open_ended = get_type_hints(init, include_extras=True), False
        for parameter in [*inspect.signature(init).parameters.values()][isinstance(owner, type) :]:
            hint = hints.get(parameter.name, Any)
            open_ended |= parameter.kind is inspect.Parameter.VAR_KEYWORD
            if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                continue
            for name, setting in _flattened(parameter, hint).items():
                found.setdefault(name, setting)
        if not open_ended:
            break
    return found


def fill(
    make: Callable[..., object], given: Mapping[str, Json], where: str, provided: Collection[str] = ()
) -> dict[str, Json]:
    """All settings of `make`, those in `given` validated, the others at their defaults.

    `where` is the path before a setting's name in messages, or empty; `provided` names arguments that are not settings (objects
    passed separately).

    >>> def source(path: str, limit: int = 3): ...
    >>> fill(source, {"path": "birds", "limit": "4"}, "data")
    {'path': 'birds', 'limit': 4}
    >>> fill(source, {"pat": "birds"}, "data")
    Traceback (most recent call last):
    newcomer.errors.SettingError: data.pat is not a setting of source; did you mean 'path'?

    Raises SettingError at the first unknown, missing or impossible setting.
    """
    settings = {name: setting for name, setting in settings_of(make).items() if name not in provided}
    name, path = getattr(make, "name", make.__name__), f"{where}." if where else ""
    for key in given:
        if key not in settings:
            raise SettingError(f"{path}{key} is not a setting of {name}; {nearest(key, settings)}")
    filled: dict[str, Json] = {}
    for key, setting in settings.items():
        if key in given:
            filled[key] = setting.to_json(setting.valid(given[key], f"{path}{key}"))
        elif setting.default is inspect.Parameter.empty:
            raise SettingError(f"{path}{key} is missing; {name} needs it")
        else:
            filled[key] = setting.to_json(setting.default)
    return filled


def parse_change(change: str) -> tuple[str, Json]:
    """Key and value of 'rank=4'; a value that is not TOML is taken as text, so that quotes can be left out.

    >>> parse_change("head=lda")
    ('head', 'lda')

    Raises SettingError if there is no '='.
    """
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not key:
        raise SettingError(f"--set {change}: write it as setting=value, e.g. rank=4")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text


def changes(old: Mapping[str, Json], new: Mapping[str, Json]) -> dict[str, tuple[Json, Json]]:
    """Every setting that differs between two tables, with its path and both values; None where it is missing.

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


def checked(init: Init) -> Init:
    """A constructor whose keyword-only arguments are validated settings, kept flat as `self.settings` for the store.

    Fields of its groups may be given by name. Of constructors that call one another the outermost writes `self.settings`, so a
    subclass keeps settings of its own.
    Raises SettingError for a value that a setting cannot have, and for a field given beside its group.
    """
    parameters = list(inspect.signature(init).parameters.values())[1:]
    keyword_only = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    positional = {p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD}

    @functools.wraps(init)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> None:
        owner = next(kind for kind in type(self).__mro__ if vars(kind).get("__init__") is call)
        known = {name: setting for name, setting in settings_of(owner).items() if name not in positional}
        passed = {name: kwargs[name] for name in kwargs if name in positional}
        flat = _flat(
            {name: value for name, value in kwargs.items() if name not in positional}, known, type(self).__name__
        )
        for name in flat:
            if name not in known:
                raise SettingError(
                    f"{name} is not a setting of {type(self).__name__}; {nearest(name, [*positional, *known])}"
                )
        given = {name: known[name].valid(value, f"{type(self).__name__}: {name}") for name, value in flat.items()}
        values = {name: given.get(name, setting.default) for name, setting in known.items()}
        vars(self).setdefault("settings", {name: known[name].to_json(value) for name, value in values.items()})
        init(self, *args, **passed, **_arguments(known, given, keyword_only))

    setattr(call, CHECKED, True)
    return cast(Init, call)


def _flat(given: Mapping[str, Any], known: Mapping[str, Setting], where: str) -> dict[str, Any]:
    """The settings in these keyword arguments, groups taken apart."""
    flat = {name: value for name, value in given.items() if name in known}
    for argument, group in given.items():
        if argument in known:
            continue
        fields = {name: setting for name, setting in known.items() if setting.argument == argument and setting.field}
        if not fields:
            flat[argument] = group  # unknown, and refused as such
            continue
        kind = type(next(iter(fields.values())).group)
        if not isinstance(group, kind):
            raise SettingError(f"{where}: {argument} = {group!r} cannot be: give {kind.__name__}(…)")
        if twice := [name for name in fields if name in flat]:
            raise SettingError(f"{where}: {twice[0]} is given twice, by itself and in {argument}; give one")
        flat |= {name: getattr(group, setting.field) for name, setting in fields.items() if setting.field}
    return flat


def _arguments(
    known: Mapping[str, Setting], given: Mapping[str, Json], keyword_only: Collection[str]
) -> dict[str, Any]:
    """The constructor's `keyword_only` arguments, groups put together, and what it passes on by name."""
    groups: dict[str, dict[str, Any]] = {}
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        setting = known[name]
        if setting.field is None or setting.argument not in keyword_only:
            arguments[name] = value
        else:
            groups.setdefault(setting.argument, {})[setting.field] = value
    defaults = {setting.argument: setting.group for setting in known.values()}
    return arguments | {name: dataclasses.replace(defaults[name], **fields) for name, fields in groups.items()}


def _flattened(parameter: inspect.Parameter, hint: Any) -> dict[str, Setting]:
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(parameter.default, hint)):
        return {parameter.name: Setting(hint, parameter.default, parameter.name)}
    hints = get_type_hints(hint, include_extras=True)
    return {
        field.metadata.get(FLAT_NAME, field.name): Setting(
            hints[field.name],
            getattr(parameter.default, field.name),
            parameter.name,
            field.name,
            parameter.default,
        )
        for field in dataclasses.fields(hint)
        if field.metadata.get(FLAT_NAME, field.name) is not None
    }


def _loses_truth(given: Any, found: Any) -> bool:
    """Whether true or false has become a number: for Python it is one."""
    if isinstance(given, bool):
        return not isinstance(found, bool)
    if isinstance(given, Mapping) and isinstance(found, Mapping):
        return any(_loses_truth(value, found.get(key)) for key, value in given.items())
    if isinstance(given, (list, tuple)) and isinstance(found, (list, tuple)):
        return any(map(_loses_truth, given, found))
    return False
