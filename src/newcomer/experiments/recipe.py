"""A recipe is a TOML file that names data, stream and learner, and their settings; filled in, it says all that a run depends on.

    title = "…"                     what a report calls it
    seed = 0
    seeds = 1                       how many runs, with seeds from that one on
    [data]      name = "cifar100"   a source, and its settings
    [stream]    tasks = 5           settings of the family's stream
    [backbone]  name = "…"          what class learners stand on, and its settings
    [learner]   name = "sd-lora"    a learner, and its settings
    [peers.NAME]                    another row of the same recipe: changes to the stream, and a learner of its own or, where it is
                                    not named, changes to the learner
    [search]                        what is tried for a row before it is judged: `newcomer.experiments.search`
    [chosen]                        of each row what a comparison chose on validation data, and `newcomer run` runs with

Which settings there are is said by the signatures of what is named; every one left out is filled with its default.
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.coda_prompt import CODAPrompt
from newcomer.classes.methods.dual_prompt import DualPrompt
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.full_fine_tuning import FullFineTuning
from newcomer.classes.methods.inf_lora import InfLoRA
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.methods.ranpac import RanPAC
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.datasets.cifar100 import cifar100
from newcomer.data.datasets.cub200 import cub200
from newcomer.data.datasets.digits import digits
from newcomer.data.datasets.domainnet import domainnet
from newcomer.data.datasets.imagenet import imagenet_a, imagenet_r
from newcomer.data.datasets.movielens import movielens_1m, movielens_latest
from newcomer.data.datasets.simulated_clicks import click_world
from newcomer.data.datasets.taobao import taobao_ads
from newcomer.data.io.image_folders import image_folder
from newcomer.data.io.log_reader import click_log
from newcomer.data.io.text_tables import banking77, text_table
from newcomer.errors import RecipeError, SettingError, nearest
from newcomer.experiments.search import Search, read_search
from newcomer.items.methods.cvar import CVAR
from newcomer.items.methods.dropout_net import DropoutNet
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.meta_embedding import MetaEmbedding
from newcomer.items.methods.mwuf import MWUF
from newcomer.settings import Json, fill
from newcomer.store.names import unfit
from newcomer.streams.class_incremental import ClassIncremental
from newcomer.streams.cold_start import ColdStart
from newcomer.training.learner import Learner
from newcomer.training.settings import Count

Table = Mapping[str, Json]


@dataclass(frozen=True)
class Family:
    """Learners of one kind, the stream that teaches them, and the data it is made of."""

    name: str
    learners: Mapping[str, type[Learner[Any, Any]]]
    sources: Mapping[str, Callable[..., Any]]
    stream: Callable[..., Any]
    data_arguments: Sequence[str]
    """The arguments of `stream` that the source gives."""
    stands_on: str
    """The argument of a learner that is no setting: what it stands on."""


def _by_name(*learners: type[Learner[Any, Any]]) -> dict[str, type[Learner[Any, Any]]]:
    return {learner.name: learner for learner in learners}


CLASSES = Family(
    "classes",
    learners=_by_name(
        SDLoRA, SequentialLoRA, FrozenBackbone, InfLoRA, RanPAC, FullFineTuning, L2P, DualPrompt, CODAPrompt
    ),
    sources={
        "digits": digits,
        "image-folder": image_folder,
        "cifar100": cifar100,
        "imagenet-r": imagenet_r,
        "imagenet-a": imagenet_a,
        "cub-200": cub200,
        "domainnet": domainnet,
        "text-table": text_table,
        "banking77": banking77,
    },
    stream=ClassIncremental,
    data_arguments=("train", "test"),
    stands_on="backbone",
)

ITEMS = Family(
    "items",
    learners=_by_name(EmerG, IdTuning, DropoutNet, MetaEmbedding, MWUF, CVAR),
    sources={
        "click-log": click_log,
        "movielens-1m": movielens_1m,
        "movielens-latest": movielens_latest,
        "taobao-ads": taobao_ads,
        "world": click_world,
    },
    stream=ColdStart,
    data_arguments=("log",),
    stands_on="schema",
)

FAMILIES = (CLASSES, ITEMS)
LEARNERS = {name: learner for family in FAMILIES for name, learner in family.learners.items()}


@dataclass(frozen=True)
class Recipe:
    """One row of an experiment, with every setting filled in and validated; nothing has been read or loaded yet."""

    name: str
    row: str
    """The name of the learner, or of the peer that stands in its place."""
    title: str
    seed: int
    data: Table
    stream: Table
    backbone: Table
    learner: Table
    peers: Mapping[str, Table]
    """The other rows, as the file has them."""
    search: Search
    chosen: Mapping[str, Table]
    """Of each row, what a comparison chose in place of its own settings, with which the search begins."""
    seeds: int = 1
    """How many runs a row has, with seeds from `seed` on."""
    place: int = 0
    """Where a table of all rows shows this one."""

    @property
    def family(self) -> Family:
        return next(family for family in FAMILIES if self.learner["name"] in family.learners)

    def filled(self) -> dict[str, Json]:
        """Everything that the result depends on, for the record."""
        parts = {"data": self.data, "stream": self.stream, "backbone": self.backbone, "learner": self.learner}
        return {
            "name": self.name,
            "row": self.row,
            "title": self.title,
            "seed": self.seed,
            "family": self.family.name,
        } | {key: dict(part) for key, part in parts.items()}

    def with_peer(self, peer: str) -> "Recipe":
        """The row of this peer.

        Raises RecipeError for a peer that the recipe does not have.
        """
        if peer not in self.peers:
            raise RecipeError(f"recipe '{self.name}' has no peer '{peer}'; {nearest(peer, self.peers)}")
        try:
            changes = _table(self.peers, peer)
            _require_keys(changes, ("learner", "stream", "search"), "")
            learner = _table(changes, "learner")
            learner = learner if "name" in learner else {**self.learner, **learner}
            content = {**self._content(), "learner": learner, "peers": {}}
            content["chosen"] = {peer: self.chosen[peer]} if peer in self.chosen else {}
            content["stream"] = {**self.stream, **_table(changes, "stream")}
            content["search"] = self._search_of_peer(_table(changes, "search"), learner)
            row = _from_content(content, self.name, row=peer)
        except RecipeError as error:
            raise RecipeError(f"in [peers.{peer}]: {error}") from None
        return replace(row, place=1 + list(self.peers).index(peer))

    def rows(self) -> list["Recipe"]:
        """This row and those of all its peers.

        Raises RecipeError where two would have the same folder.
        """
        names = [self.row, *self.peers]
        for place, name in enumerate(names):
            if same := [other for other in names[:place] if other.casefold() == name.casefold()]:
                raise RecipeError(f"rows '{same[0]}' and '{name}' would share a folder; give the peer another name")
        return [self, *(self.with_peer(peer) for peer in self.peers)]

    def with_seed(self, seed: int) -> "Recipe":
        return replace(self, seed=seed)

    def with_chosen(self) -> "Recipe":
        """This row with the settings that a comparison chose for it: what published tables are of."""
        return replace(self, learner={**self.learner, **self.chosen.get(self.row, {})})

    def build_stream(self) -> Any:
        """Read the data and put it in order."""
        source = self.family.sources[self.data["name"]]
        data = source(**_without_name(self.data))
        arguments = dict(zip(self.family.data_arguments, data if isinstance(data, tuple) else (data,), strict=True))
        return self.family.stream(**arguments, **self.stream, seed=self.seed)

    def build_learner(self, stream: Any) -> Learner[Any, Any]:
        """A learner that has learned nothing yet, for this stream."""
        make: Callable[..., Learner[Any, Any]] = self.family.learners[self.learner["name"]]
        if self.family is CLASSES:
            return make(self.build_backbone(), **_without_name(self.learner), seed=self.seed)
        return make(stream.schema, **_without_name(self.learner), seed=self.seed)

    def build_backbone(self) -> Backbone:
        return Backbone(**self.backbone)

    def _search_of_peer(self, changes: Table, learner: Table) -> Table:
        """Settings of its own or, of the recipe's, those that its learner has."""
        _require_keys(changes, ("settings",), "search")
        kind = LEARNERS.get(_name(learner, "learner"))
        known = inspect.signature(kind).parameters if kind else ()
        inherited = {key: values for key, values in self.search.settings.items() if key in known}
        return {"settings": inherited, **changes, "budget": self.search.budget, "seed": self.search.seed}

    def _content(self) -> dict[str, Json]:
        keys = ("title", "seed", "seeds", "data", "stream", "backbone", "learner", "peers", "chosen")
        return {key: getattr(self, key) for key in keys}


def shipped() -> dict[str, Path]:
    """The recipes that come with the library, by name."""
    folder = Path(str(resources.files("newcomer.experiments") / "recipes"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def read_recipe(name: str, changes: Sequence[str] = (), seed: int | None = None) -> Recipe:
    """The recipe of this name, or in this file, with changes like 'learner.rank=4'.

    Raises RecipeError at the first thing in it that cannot be.
    """
    path = Path(name) if name.endswith(".toml") else shipped().get(name)
    if path is None:
        raise RecipeError(f"no recipe '{name}'; {nearest(name, shipped())} or give a .toml file")
    if why := unfit(path.stem):
        raise RecipeError(f"{path}: what it makes can have no folder of this name: {why}; rename the file")
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
    parts = ("title", "seed", "seeds", "data", "stream", "backbone", "learner", "peers", "search", "chosen")
    _require_keys(content, parts, "")
    learner = _table(content, "learner")
    family = next((family for family in FAMILIES if _name(learner, "learner") in family.learners), None)
    if family is None:
        raise RecipeError(f"learner.name = '{learner['name']}' is no learner; {nearest(learner['name'], LEARNERS)}")
    data = _table(content, "data")
    if _name(data, "data") not in family.sources:
        known = nearest(data["name"], family.sources)
        raise RecipeError(f"data.name = '{data['name']}' is no source of {family.name}; {known}")
    backbone = _table(content, "backbone")
    try:
        own, provided = _without_name(learner), [family.stands_on, "seed"]
        settings = fill(family.learners[learner["name"]], own, "learner", provided)
        peers = _table(content, "peers")
        rows = [row or learner["name"], *peers]
        for peer in peers:
            if why := unfit(peer):
                raise RecipeError(f"[peers.{peer}] can have no folder of its own: {why}; give it another name")
        chance = fill(_chance, {key: content[key] for key in ("seed", "seeds") if key in content}, "recipe")
        return Recipe(
            name=name,
            row=row or learner["name"],
            title=str(content.get("title", name)),
            seed=chance["seed"],
            seeds=chance["seeds"],
            data={"name": data["name"], **fill(family.sources[data["name"]], _without_name(data), "data")},
            stream=fill(family.stream, _table(content, "stream"), "stream", provided=[*family.data_arguments, "seed"]),
            backbone=fill(Backbone, backbone, "backbone") if family is CLASSES else _nothing(backbone, family),
            learner={"name": learner["name"], **settings},
            peers=peers,
            search=read_search(_table(content, "search"), family.learners[learner["name"]], settings, provided, rows),
            chosen=_chosen(_table(content, "chosen"), rows, family.learners[learner["name"]], settings, provided),
        )
    except RecipeError:
        raise
    except SettingError as error:
        raise RecipeError(str(error)) from None


def _chosen(
    table: Table, rows: Sequence[str], learner: Callable[..., object], own: Table, provided: Sequence[str]
) -> dict[str, Table]:
    """The settings chosen for each row; those of the first of `rows`, whose learner it is, are validated as if they stood there."""
    _require_keys(table, rows, "chosen")
    found = {row: _table(table, row) for row in table}
    if rows[0] in found:
        mine = found[rows[0]]
        filled = fill(learner, {**own, **mine}, f"chosen.{rows[0]}", provided)
        found[rows[0]] = {key: filled[key] for key in mine}
    return found


def _chance(seed: int = 0, seeds: Count = 1) -> None:
    """Only its signature is of use: what these may be."""


def _nothing(backbone: Table, family: Family) -> Table:
    if backbone:
        raise RecipeError(f"[backbone] has no place in a recipe for {family.name}; remove it")
    return {}


def _name(table: Table, where: str) -> str:
    if not isinstance(table.get("name"), str):
        raise RecipeError(f"{where}.name is missing; say which one")
    return str(table["name"])


def _table(content: Table, key: str) -> Table:
    table = content.get(key, {})
    if not isinstance(table, Mapping):
        raise RecipeError(f"{key} = {table!r} is not a table; write [{key}] and its settings below")
    return table


def _without_name(table: Table) -> dict[str, Json]:
    return {key: value for key, value in table.items() if key != "name"}


def _require_keys(content: Table, known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise RecipeError(f"{where + '.' if where else ''}{key} is not part of a recipe; {nearest(key, known)}")


def _apply(content: dict[str, Json], change: str) -> None:
    try:
        key, value = parse_change(change)
    except SettingError:
        key, value = "", None
    part, _, setting = key.partition(".")
    whole = ("title", "seed", "seeds")
    if part not in (*whole, "data", "stream", "backbone", "learner", "search") or (setting == "") != (part in whole):
        raise RecipeError(f"--set {change}: write it as part.setting=value, e.g. learner.rank=4")
    if not setting:
        content[part] = value
    elif setting == "name":
        content[part] = {"name": value}  # another learner or source has settings of its own
        if part == "learner":
            content["search"] = {k: v for k, v in _table(content, "search").items() if k != "settings"}
            content["chosen"] = {}
    else:
        content[part] = _with(_table(content, part), setting.split("."), value)
        if part == "learner":  # what is asked for is not chosen by anybody else
            rows = _table(content, "chosen")
            key = setting.partition(".")[0]
            content["chosen"] = {row: {k: v for k, v in _table(rows, row).items() if k != key} for row in rows}


def _with(table: Table, path: Sequence[str], value: Json) -> dict[str, Json]:
    """The table with a value in it or in a table of it."""
    key, *rest = path
    return {**table, key: _with(_table(table, key), rest, value) if rest else value}


def parse_change(change: str) -> tuple[str, Json]:
    """Key and value of 'rank=4'; the value is what TOML makes of it, else the text itself, so that quotes can be left out.

    >>> parse_change("head=lda")
    ('head', 'lda')

    Raises SettingError where there is no '='.
    """
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not key:
        raise SettingError(f"--set {change}: write it as setting=value, e.g. rank=4")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text
