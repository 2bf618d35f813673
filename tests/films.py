"""A small click model of films, trained in a second, with a database of its own."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.serialization import from_parameters, to_row
from newcomer.items.serving.service import ItemService
from newcomer.server.configuration import ServeConfig
from newcomer.store.states import Change, Event

SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("genre", "item"),
        Field("minutes", "item", "numeric"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric"),
    ),
)
QUICK: dict[str, Any] = {
    "width": 4,
    "tower": [8],
    "pretrain_epochs": 1,
    "meta_epochs": 1,
    "episodes_per_step": 8,
    "device": "cpu",
}
FILMS = [f"film {n}" for n in range(8)]


def log(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """Events of eight films and twenty viewers."""
    chance = np.random.default_rng(seed)
    film, viewer = chance.integers(0, 8, rows), chance.integers(0, 20, rows)
    return pl.DataFrame(
        {
            "film": [FILMS[n] for n in film],
            "viewer": viewer,
            "genre": [["war", "love"][n % 2] for n in film],
            "minutes": [80.0 + n for n in film],
            "page": [["home", "list"][n] for n in chance.integers(0, 2, rows)],
            "price": chance.random(rows),
            "liked": (chance.random(rows) < np.where((film + viewer) % 2, 0.7, 0.2)).astype(int),
            "seen": np.arange(rows),
        }
    )


def trained(folder: Path, schema: Schema = SCHEMA, **settings: Any) -> Path:
    """The store of a model that has learned the log."""
    EmerG(schema, **QUICK | settings).learn(log()).save(folder)
    return folder


def features(*films: str) -> pl.DataFrame:
    return pl.DataFrame({"film": films, "genre": ["war"] * len(films), "minutes": [99.0] * len(films)})


def requests(*films: str, **columns: Any) -> pl.DataFrame:
    rows = {"film": films, "viewer": 3, "page": "home", "price": 0.5}
    return pl.DataFrame({**rows, **columns})


def events(film: str, count: int, start: int = 1000, **columns: Any) -> pl.DataFrame:
    """So many events of one film, liked by turns, each with an id."""
    number = pl.int_range(count, eager=True)
    rows = requests(*[film] * count).with_columns(
        liked=number % 2, seen=number + start, event_id=pl.format("e{}", number + start)
    )
    return rows.with_columns(
        **{name: pl.Series(values) if isinstance(values, list) else pl.lit(values) for name, values in columns.items()}
    )


def poison(live: ItemService, film: str, price: float | None = None) -> None:
    """What a library without bounds left in the database: a state that is no number, and the event that made it so."""
    row = live.states.get(live.model, [film])[film]
    own, state, *_ = from_parameters([row], torch.device("cpu"))
    state = {key: torch.full_like(value, torch.nan) for key, value in state.items()}
    event = Event("far out", 1, 1, [2, 2, price]) if price is not None else None
    made = to_row(film, row.version + 1, row.events + (event is not None), own, state, 0)
    assert live.states.commit(live.model, [Change(made, [event] if event else [])]) == set()


def alter(folder: Path, *statements: str) -> None:
    """Change the database by hand."""
    database = sqlite3.connect(folder / "items.db")
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def served(store: Path, folder: Path) -> ServeConfig:
    """A service of this model and its log (`log.csv` beside it), with its database and its own files in `folder`."""
    return ServeConfig(
        stores=(store,),
        states=f"sqlite:///{folder / 'items.db'}",
        folder=folder / "own",
        log=(str(store.with_name("log*.csv")),),
    )
