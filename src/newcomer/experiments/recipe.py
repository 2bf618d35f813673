"""Recipes: TOML files that configure an experiment by data source, stream, backbone and learner.

    title = "…"                     title in reports
    seed = 0
    seeds = 1                       number of runs, with seeds from `seed` on
    [data]      name = "cifar100"   a data source and its settings
    [stream]    tasks = 5           settings of the family's stream, or of another by its `name`
    [backbone]  name = "…"          the backbone of class learners and its settings
    [learner]   name = "sd-lora"    a learner and its settings
    [baselines.NAME]                another row: changes to the stream, and another learner (with `name`) or changes to the learner
    [search]                        hyper-parameter search, see `newcomer.experiments.search`
    [chosen]                        the settings per row that a comparison chose on validation data; `newcomer run` uses them

The settings of each part are the keyword arguments of the named function or class; missing ones get their defaults.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newcomer import registry
from newcomer.data.inference.schema_toml import RECIPE_TABLES
from newcomer.errors import RecipeError, SettingError, nearest
from newcomer.experiments.search import Search, read_search
from newcomer.settings import Json, fill, parse_change, settings_of
from newcomer.store.names import invalid_reason
from newcomer.streams.class_incremental import ClassIncremental
from newcomer.streams.cold_start import ColdStart
from newcomer.streams.domain_incremental import DomainIncremental
from newcomer.training.learner import Learner
from newcomer.training.settings import Count

if TYPE_CHECKING:
    from newcomer.backbones.backbone import Backbone

TomlTable = Mapping[str, Json]

NEWER_SETTINGS: TomlTable = {
    "calibrate": False,
    "negative_rate": 1.0,
    "gradient_checkpointing": False,
    "shard_backbone": False,
    "dtype": "float32",
    "user_min_count": 1,
    "user_buckets": None,
    "shard_tables": "auto",
    "adapt": "always",
    "logit_distillation": 0.0,
    "prior": "uniform",
}
"""Settings that older records do not have, with the values that those runs had; omitted from records at these."""

DOMAINS = "domain-incremental"


@dataclass(frozen=True)
class Family:
    """A kind of learners with their streams and data sources: classes or items."""

    name: str
    learners: Mapping[str, type[Learner[Any, Any]]]
    sources: Mapping[str, Callable[..., Any]]
    streams: Mapping[str, Callable[..., Any]]
    """By name; the first is the default, and has no name in records."""
    data_arguments: Sequence[str]
    """The arguments of a stream that a data source returns."""
    depends_on: str
    """The learner's argument that is not a setting: its backbone or schema."""


CLASSES = Family(
    "classes",
    learners=registry.CLASSES,
    sources=registry.DataSources(registry.CLASS_DATA),
    streams={"class-incremental": ClassIncremental, DOMAINS: DomainIncremental},
    data_arguments=("train", "test"),
    depends_on="backbone",
)

ITEMS = Family(
    "items",
    learners=registry.ITEMS,
    sources=registry.DataSources(registry.ITEM_DATA),
    streams={"cold-start": ColdStart},
    data_arguments=("log",),
    depends_on="schema",
)

FAMILIES = (CLASSES, ITEMS)


@dataclass(frozen=True)
class Recipe:
    """One row of an experiment with all settings resolved and validated; no data or model is loaded yet."""

    name: str
    row: str
    """The name of the learner or of the baseline."""
    title: str
    seed: int
    data: TomlTable
    stream: TomlTable
    backbone: TomlTable
    learner: TomlTable
    baselines: Mapping[str, TomlTable]
    """The other rows, unresolved."""
    search: Search
    chosen: Mapping[str, TomlTable]
    """Row → the settings that a comparison chose, to be laid over its `learner` settings; the search starts at the latter."""
    seeds: int = 1
    """Number of runs, with seeds from `seed` on."""
    position: int = 0
    """Index of this row in result tables."""

    def __post_init__(self) -> None:
        """Raises RecipeError for a learner that would learn nothing from known classes in a new domain."""
        known_only = self.stream.get("name") == DOMAINS and not self.stream["joint"]
        if known_only and self.learner.get("head") == "linear":
            raise RecipeError(
                f"learner '{self.learner['name']}' with head = 'linear' learns nothing from a domain of known classes; give "
                "another learner.head, such as 'lda'"
            )

    @property
    def family(self) -> Family:
        return next(family for family in FAMILIES if self.learner["name"] in family.learners)

    def resolved(self) -> dict[str, Json]:
        """All settings that the result depends on, as they are written into the record."""
        learner, backbone = (
            {k: v for k, v in part.items() if k not in NEWER_SETTINGS or v != NEWER_SETTINGS[k]}
            for part in (self.learner, self.backbone)
        )
        parts = {"data": self.data, "stream": self.stream, "backbone": backbone, "learner": learner}
        return {
            "name": self.name,
            "row": self.row,
            "title": self.title,
            "seed": self.seed,
            "family": self.family.name,
        } | {key: dict(part) for key, part in parts.items()}

    def with_baseline(self, baseline: str) -> "Recipe":
        """The row of this baseline.

        Raises RecipeError for an unknown baseline.
        """
        if baseline not in self.baselines:
            raise RecipeError(f"recipe '{self.name}' has no baseline '{baseline}'; {nearest(baseline, self.baselines)}")
        try:
            changes = _table(self.baselines, baseline)
            _require_keys(changes, ("learner", "stream", "search"), "")
            learner = _table(changes, "learner")
            learner = learner if "name" in learner else {**self.learner, **learner}
            content = {**self._content(), "learner": learner, "baselines": {}}
            content["chosen"] = {baseline: self.chosen[baseline]} if baseline in self.chosen else {}
            stream = _table(changes, "stream")
            content["stream"] = stream if "name" in stream else {**self.stream, **stream}
            content["search"] = self._search_of_baseline(_table(changes, "search"), learner)
            row = _from_content(content, self.name, row=baseline)
        except RecipeError as error:
            raise RecipeError(f"in [baselines.{baseline}]: {error}") from None
        return replace(row, position=1 + list(self.baselines).index(baseline))

    def rows(self) -> list["Recipe"]:
        """This row and those of all its baselines.

        Raises RecipeError if two names differ in case only: they would share a folder on some systems.
        """
        names = [self.row, *self.baselines]
        for number, name in enumerate(names):
            if same := [other for other in names[:number] if other.casefold() == name.casefold()]:
                raise RecipeError(f"rows '{same[0]}' and '{name}' would share a folder; give the baseline another name")
        return [self, *(self.with_baseline(baseline) for baseline in self.baselines)]

    def with_seed(self, seed: int) -> "Recipe":
        return replace(self, seed=seed)

    def with_chosen(self) -> "Recipe":
        """This row with its chosen settings, as in the published tables."""
        return replace(self, learner={**self.learner, **self.chosen.get(self.row, {})})

    def build_stream(self) -> Any:
        """Load the data and build the stream."""
        source = self.family.sources[self.data["name"]]
        data = source(**_without_name(self.data))
        arguments = dict(zip(self.family.data_arguments, data if isinstance(data, tuple) else (data,), strict=True))
        stream = self.family.streams[_stream_name(self.stream, self.family)]
        return stream(**arguments, **_without_name(self.stream), seed=self.seed)

    def build_learner(self, stream: Any) -> Learner[Any, Any]:
        """A new, untrained learner for this stream."""
        make: Callable[..., Learner[Any, Any]] = self.family.learners[self.learner["name"]]
        if self.family is CLASSES:
            return make(self.build_backbone(), **_without_name(self.learner), seed=self.seed)
        return make(stream.schema, **_without_name(self.learner), seed=self.seed)

    def build_backbone(self) -> "Backbone":
        return _backbone_class()(**self.backbone)

    def _search_of_baseline(self, changes: TomlTable, learner: TomlTable) -> TomlTable:
        """The baseline's own grid, else the part of the recipe's grid that its learner has."""
        _require_keys(changes, ("settings",), "search")
        kind = registry.LEARNERS.get(_require_name(learner, "learner"))
        known = settings_of(kind) if kind else ()
        inherited = {key: values for key, values in self.search.settings.items() if key in known}
        of_all = {key: getattr(self.search, key) for key in ("budget", "seed", "draws")}
        return {"settings": inherited, **changes, **of_all}

    def _content(self) -> dict[str, Json]:
        keys = ("title", "seed", "seeds", "data", "stream", "backbone", "learner", "baselines", "chosen")
        return {key: getattr(self, key) for key in keys}


def shipped() -> dict[str, Path]:
    """The recipes of this package: name → file."""
    folder = Path(str(resources.files("newcomer.experiments") / "recipes"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def read_recipe(name: str, changes: Sequence[str] = (), seed: int | None = None) -> Recipe:
    """Read a shipped recipe by name or a .toml file, with changes like 'learner.rank=4'.

    Raises RecipeError at the first invalid entry.
    """
    path = Path(name) if name.endswith(".toml") else shipped().get(name)
    if path is None:
        raise RecipeError(f"no recipe '{name}'; {nearest(name, shipped())} or give a .toml file")
    if why := invalid_reason(path.stem):
        raise RecipeError(f"{path}: its name cannot be the name of a folder: {why}; rename the file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from None
    for change in changes:
        _apply(content, change)
    if seed is not None:
        content["seed"] = seed
    return _from_content(content, path.stem)


def _from_content(content: Mapping[str, Json], name: str, row: str | None = None) -> Recipe:
    _require_keys(content, RECIPE_TABLES, "")
    learner = _table(content, "learner")
    try:
        family = next((family for family in FAMILIES if _require_name(learner, "learner") in family.learners), None)
    except RecipeError:
        raise
    except SettingError as error:  # a broken package
        raise RecipeError(str(error)) from None
    if family is None:
        raise RecipeError(
            f"learner.name = '{learner['name']}' is not a learner; {nearest(learner['name'], registry.LEARNERS)}"
        )
    data = _table(content, "data")
    if _require_name(data, "data") not in family.sources:
        known = nearest(data["name"], family.sources)
        raise RecipeError(f"data.name = '{data['name']}' is not a data source for {family.name}; {known}")
    backbone = _table(content, "backbone")
    try:
        provided = [family.depends_on, "seed"]
        settings = fill(family.learners[learner["name"]], _without_name(learner), "learner", provided)
        baselines = _table(content, "baselines")
        rows = [row or learner["name"], *baselines]
        for baseline in baselines:
            if why := invalid_reason(baseline):
                raise RecipeError(f"[baselines.{baseline}] cannot be the name of a folder: {why}; give it another name")
        seeds = fill(_seed_settings, {key: content[key] for key in ("seed", "seeds") if key in content}, "recipe")
        return Recipe(
            name=name,
            row=row or learner["name"],
            title=str(content.get("title", name)),
            seed=seeds["seed"],
            seeds=seeds["seeds"],
            data={"name": data["name"], **fill(family.sources[data["name"]], _without_name(data), "data")},
            stream=_stream(_table(content, "stream"), family),
            backbone=fill(_backbone_class(), backbone, "backbone")
            if family is CLASSES
            else _require_empty(backbone, family),
            learner={"name": learner["name"], **settings},
            baselines=baselines,
            search=read_search(_table(content, "search"), family.learners[learner["name"]], settings, provided, rows),
            chosen=_chosen(_table(content, "chosen"), rows, family.learners[learner["name"]], settings, provided),
        )
    except RecipeError:
        raise
    except SettingError as error:
        raise RecipeError(str(error)) from None


def _stream(table: TomlTable, family: Family) -> TomlTable:
    """All settings of a stream, with its name unless it is the family's first."""
    name, provided = _stream_name(table, family), [*family.data_arguments, "seed"]
    filled = fill(family.streams[name], _without_name(table), "stream", provided)
    return filled if name == next(iter(family.streams)) else {"name": name, **filled}


def _stream_name(table: TomlTable, family: Family) -> str:
    name = str(table.get("name", next(iter(family.streams))))
    if name not in family.streams:
        raise RecipeError(f"stream.name = '{name}' is not a stream for {family.name}; {nearest(name, family.streams)}")
    return name


def _chosen(
    table: TomlTable, rows: Sequence[str], learner: Callable[..., object], settings: TomlTable, provided: Sequence[str]
) -> dict[str, TomlTable]:
    """The chosen settings per row. Those of the first row are validated: `learner` and its `settings` are this row's."""
    _require_keys(table, rows, "chosen")
    chosen = {row: _table(table, row) for row in table}
    if rows[0] in chosen:
        values = chosen[rows[0]]
        valid = fill(learner, {**settings, **values}, f"chosen.{rows[0]}", provided)
        chosen[rows[0]] = {key: valid[key] for key in values}
    return chosen


def _backbone_class() -> "type[Backbone]":
    from newcomer.backbones.backbone import Backbone  # transformers takes seconds to import; click models do without

    return Backbone


def _seed_settings(seed: int = 0, seeds: Count = 1) -> None:
    """The types and defaults of `seed` and `seeds`, for `fill`; never called."""


def _require_empty(backbone: TomlTable, family: Family) -> TomlTable:
    if backbone:
        raise RecipeError(f"a recipe for {family.name} has no [backbone]; remove it")
    return {}


def _require_name(table: TomlTable, where: str) -> str:
    if not isinstance(table.get("name"), str):
        raise RecipeError(f"{where}.name is missing; add it")
    return str(table["name"])


def _table(content: TomlTable, key: str) -> TomlTable:
    table = content.get(key, {})
    if not isinstance(table, Mapping):
        raise RecipeError(f"{key} = {table!r} is not a table; write [{key}] and its settings below")
    return table


def _without_name(table: TomlTable) -> dict[str, Json]:
    return {key: value for key, value in table.items() if key != "name"}


def _require_keys(content: TomlTable, known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise RecipeError(f"{where + '.' if where else ''}{key} is not part of a recipe; {nearest(key, known)}")


def _apply(content: dict[str, Json], change: str) -> None:
    try:
        key, value = parse_change(change)
    except SettingError:
        key, value = "", None
    part, _, setting = key.partition(".")
    top_level = ("title", "seed", "seeds")
    parts = (*top_level, "data", "stream", "backbone", "learner", "search")
    if part not in parts or (setting == "") != (part in top_level):
        raise RecipeError(f"--set {change}: write it as part.setting=value, e.g. learner.rank=4")
    if not setting:
        content[part] = value
    elif setting == "name":
        content[part] = {"name": value}  # another learner or source has other settings
        if part == "learner":
            content["search"] = {k: v for k, v in _table(content, "search").items() if k != "settings"}
            content["chosen"] = {}
    else:
        content[part] = _with(_table(content, part), setting.split("."), value)
        if part == "learner":  # a setting of the call overrides the chosen one
            rows = _table(content, "chosen")
            key = setting.partition(".")[0]
            content["chosen"] = {row: {k: v for k, v in _table(rows, row).items() if k != key} for row in rows}


def _with(table: TomlTable, path: Sequence[str], value: Json) -> dict[str, Json]:
    """A copy of the table with the value set at this path."""
    key, *rest = path
    return {**table, key: _with(_table(table, key), rest, value) if rest else value}
