"""Which learner `train` teaches: that of the file that its schema is in, with what the command line changes."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from newcomer.errors import DataError, SettingError, nearest
from newcomer.experiments.recipe import ITEMS, parse_change
from newcomer.items.learner import ItemLearner
from newcomer.settings import Json, changes, fill


def learner_of(
    file: Path | None, name: str | None, set_: Sequence[str]
) -> tuple[type[ItemLearner], dict[str, Json], str]:
    """The kind of learner, all its settings, and what to say of them.

    Those of the file's [learner], and its seed; another method by name has none of them but the seed. Raises SettingError for a
    method or a setting that there is not.
    """
    content = _content(file)
    table = content.get("learner", {})
    if not isinstance(table, Mapping):
        raise DataError(f"{file}: learner = {table!r} is not a table; write [learner] and its settings below")
    there = str(table.get("name", "emerg"))
    own = {key: value for key, value in table.items() if key != "name"} if name in (None, there) else {}
    seed = {"seed": content["seed"]} if "seed" in content else {}
    kind = _kind(name or there, "--learner" if name else f"{file}: learner.name =")
    given = {**seed, **own, **dict(parse_change(change) for change in set_)}
    settings = fill(kind, given, "learner", provided=["schema"])
    return (
        kind,
        settings,
        _said(kind, settings, file if own or seed or (file and "learner" in content and not name) else None),
    )


def _said(kind: type[ItemLearner], settings: Mapping[str, Json], file: Path | None) -> str:
    other = changes(fill(kind, {}, "learner", provided=["schema"]), settings)
    source = f" of {file}" if file else ""
    told = ", ".join(f"{key} = {now!r}" for key, (_, now) in other.items())
    return f"learner: {kind.name}{source}, {told or 'all settings at their defaults'}"


def _content(file: Path | None) -> Mapping[str, Json]:
    """Of a file that cannot be read nothing: whoever reads the schema says so."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _kind(name: str, where: str) -> type[ItemLearner]:
    kind = ITEMS.learners.get(name)
    if kind is None or not issubclass(kind, ItemLearner):
        raise SettingError(f"{where} {name}: no such method for items; {nearest(name, ITEMS.learners)}")
    return kind
