"""The learner that `newcomer train` trains, from the schema file's [learner] table and the command line."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from newcomer.errors import DataError, SettingError, nearest
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.emerg import EmerG
from newcomer.registry import ITEMS
from newcomer.settings import Json, changes, fill, parse_change

NOTHING: Mapping[str, Json] = {}


def learner_of(
    file: Path | None, name: str | None, set_: Sequence[str], proposed: Mapping[str, Json] = NOTHING
) -> tuple[type[ItemLearner], dict[str, Json], str]:
    """Learner class, its settings, and a line that describes them.

    Settings come from the file's [learner] table and seed; if `name` is another method, only the seed is used. `proposed`: settings
    of EmerG where there is no file. Raises SettingError for an unknown method or setting.
    """
    content = _content(file)
    table = content.get("learner", {})
    if not isinstance(table, Mapping):
        raise DataError(f"{file}: learner = {table!r} is not a table; write [learner] and its settings below")
    named = str(table.get("name", "emerg"))
    in_file = {key: value for key, value in table.items() if key != "name"} if name in (None, named) else {}
    seed = {"seed": content["seed"]} if "seed" in content else {}
    kind = _kind(name or named, "--learner" if name else f"{file}: learner.name =")
    start = proposed if kind is EmerG and not file else {}
    of_file = fill(kind, {**start, **seed, **in_file}, "learner", provided=["schema"])
    settings = fill(kind, {**of_file, **dict(parse_change(change) for change in set_)}, "", provided=["schema"])
    return (
        kind,
        settings,
        _description(kind, settings, file if in_file or seed or (file and "learner" in content and not name) else None),
    )


def has_setting(file: Path | None, set_: Sequence[str], settings: Iterable[str]) -> bool:
    """Whether the file's [learner] table or the command line has one of these settings."""
    table = _content(file).get("learner", {})
    given = {parse_change(change)[0] for change in set_} | (set(table) if isinstance(table, Mapping) else set())
    return not given.isdisjoint(settings)


def _description(kind: type[ItemLearner], settings: Mapping[str, Json], file: Path | None) -> str:
    other = changes(fill(kind, {}, "learner", provided=["schema"]), settings)
    source = f" of {file}" if file else ""
    changed = ", ".join(f"{key} = {now!r}" for key, (_, now) in other.items())
    return f"learner: {kind.name}{source}, {changed or 'all settings at their defaults'}"


def _content(file: Path | None) -> Mapping[str, Json]:
    """Empty if the file cannot be read: reading the schema reports that."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _kind(name: str, where: str) -> type[ItemLearner]:
    kind = ITEMS.get(name)
    if kind is None or not issubclass(kind, ItemLearner):
        raise SettingError(f"{where} {name}: no such method for items; {nearest(name, ITEMS)}")
    return kind
