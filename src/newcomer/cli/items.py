"""Commands of a click model in service: add items, score requests, warm up items by events."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from newcomer.cli.input_tables import STDIN, read_input, stream_input
from newcomer.cli.program import app, finish, say, shorten, stoppable
from newcomer.data.io.row_files import frame_to_jsonl, require_rows_file, write_rows
from newcomer.errors import DataError, DataWarning, SettingError, StoreError
from newcomer.extras import optional_imports
from newcomer.items.encoding.unseen_values import Unseen
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.results import ForgottenUser, OnError
from newcomer.items.serving.scoring import merge_errors
from newcomer.items.serving.service import SCORE_COLUMNS, ItemService, Repaired, Warmed
from newcomer.printable import counted, printable_json
from newcomer.registry import find_learner
from newcomer.server.configuration import ServeConfig
from newcomer.settings import Json
from newcomer.store.folder import Store

Folder = Annotated[Path, typer.Argument(help="Folder of the click model.")]
States = Annotated[
    str | None,
    typer.Option(
        "--states", metavar="URL", help="URL of the state database; by default items.db in the model's folder."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail on the first invalid row and change nothing.")]
TABLES = "CSV, TSV, parquet, Arrow or JSON lines; - reads JSON lines from standard input."


@app.command()
def add(
    store: Folder,
    items: Annotated[str, typer.Argument(help=f"Items with their features: {TABLES}")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Items that are there with other features get these; their states are tuned anew."
        ),
    ] = False,
    states: States = None,
    strict: Strict = False,
    json_: AsJson = False,
) -> None:
    """Add new items by their features; they can be scored at once."""
    table = read_input(items, strict)
    _warn_of_service(store)
    with open_service(store, states) as service, table.explaining():
        added = service.add(table.frame, where=table.where, on_error=_on_error(strict), replace=replace)
    left_out = table.without_echo(added.left_out)
    _require_some([*added.new, *added.known, *added.replaced], left_out)
    if json_:
        result: dict[str, Json] = {"new": list(added.new), "known": list(added.known)}
        result |= {"replaced": list(added.replaced), "lost": dict(added.lost)} if replace else {}
        _print(result | {"left_out": left_out, "unseen": added.unseen.to_json()})
    else:
        text = f"{store}: {counted(len(added.new), 'item')} added"
        if added.known:
            text += f"; {len(added.known)} were there already with the same features: {shorten(', '.join(added.known), 200)}"
        if added.replaced:
            text += (
                f"; {len(added.replaced)} with others, which were replaced: {shorten(', '.join(added.replaced), 200)}"
            )
        for line in added.lost.values():
            say(line)
        say(text + _never_seen(added.unseen))
    finish(left_out)


@app.command()
def score(
    store: Folder,
    requests: Annotated[str, typer.Argument(help=f"Requests, one per row: {TABLES}")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Output file: .csv, .parquet or .jsonl; by default JSON lines on standard output."
        ),
    ] = None,
    states: States = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also the posterior std of each logit; several times slower.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Predict click probabilities of requests. Each result has the model, the item's phase and number of events, and the number of
    values in the request that are unseen. Phases: cold (no event yet), warm, sufficient (200 events or more). In the reports of
    recipes they are cold, warm-a, warm-b and warm-c: before any event, and after each of three batches of events."""
    require_rows_file(out, requests)
    streamed = out is None and not strict
    held_back, left_out, some = list[pl.DataFrame](), list[str](), streamed and requests == STDIN
    with open_service(store, states) as service:
        for answers in _answers(service, requests, strict, uncertainty, left_out):
            left_out += answers["error"].drop_nulls().to_list()
            some = some or bool(answers["score"].is_not_null().any())
            held_back.append(answers)
            if streamed and some:  # of a stream at once, of files as soon as one request has a score
                _print_answers(held_back)
                held_back.clear()
    _require_some([None] * some, left_out)
    if out is None:
        _print_answers(held_back)
    else:
        every = pl.concat(held_back) if held_back else pl.DataFrame(schema=SCORE_COLUMNS)
        write_rows(every, out)
        unseen = int(every["unseen"].sum())
        result = f"; {unseen:,} values of requests were never seen before" if unseen else ""
        say(f"{out}: {counted(len(every), 'answer')}{result}")
    finish(left_out)


@app.command()
def warm(
    store: Folder,
    events: Annotated[str | None, typer.Argument(help=f"Events, one per row: {TABLES}")] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with event ids; by default event_id, or a hash of the whole event."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First recompute items with a non-finite state, or with events far outside the training range.",
        ),
    ] = False,
    states: States = None,
    strict: Strict = False,
    json_: AsJson = False,
) -> None:
    """Adapt items to their events. Each event counts once, however often it is given."""
    if events is None and not repair:
        raise SettingError("warm: no events; give a table of them, or --repair to recompute non-finite states")
    table = None if events is None else read_input(events, strict)
    _warn_of_service(store)
    with stoppable("what was not done yet is done by the same command"), open_service(store, states) as service:
        repaired = service.repair() if repair else Repaired([])
        done = Warmed(0, 0, [])
        if table is not None:
            with table.explaining():
                done = service.warm(table.frame, event_id, where=table.where, on_error=_on_error(strict))
    lines = table.without_echo(done.left_out) if table is not None else []
    left_out = [*repaired.left_out, *lines]
    if not repaired.items:
        _require_some([None] * (done.new + done.known + done.corrected), lines)
    if json_:
        result = {"new": done.new, "known": done.known, "corrected": done.corrected, "items": list(done.items)}
        result |= {"left_out": left_out, "unseen": done.unseen.to_json()}
        _print(result | ({"repaired": list(repaired.items)} if repair else {}))
    else:
        for line in _summary(store, done if table is not None else None, repaired if repair else None):
            say(line)
    finish(left_out)


def forget_items(store: Path, items: Sequence[str], states: str | None) -> None:
    """Delete the states and events of these items; also in the versions and the event log of a service beside the store."""
    with open_service(store, states) as service, _own_files(store, states) as own:
        gone = service.forget(items) if own is None else own.delete_items(items)
    say(
        f"{store}: {shorten(', '.join(gone), 200)}: state and events are deleted, and do not come back. What was learned from "
        "them remains in the shared weights; and of an item of the training log so does its state in the store."
    )


def forget_users(store: Path, users: Sequence[str], states: str | None) -> None:
    """Forget these users for good, and say what remains of each; also in the files of a service beside the store."""
    left_out = list[str]()
    with stoppable("the same command does the rest"), _forgetting(store, states) as forget:
        for user in users:
            done, lines = forget(user)
            one = next(iter(done.values()))  # the live version
            say(
                f"{store}: user {user} is forgotten: {counted(one.events, 'event')} of {counted(len(one.items), 'item')} erased; "
                "later ones are refused. What training learned from the user remains in the store until a model is trained without"
            )
            for version, found in done.items():
                named = f"version '{version}': " if len(done) > 1 else ""
                for line in (*found.remains, *found.lost.values()):
                    say(f"{named}{line}")
                left_out += [f"{named}{line}" for line in found.left_out]
            if lines is None:
                say(
                    "if a service has its own files elsewhere (--folder), its event log has the user still: DELETE /users/ID there"
                )
            else:
                say(f"{counted(lines, 'line')} of the service's event log erased")
    finish(left_out)


@contextmanager
def _forgetting(
    store: Path, states: str | None
) -> Iterator[Callable[[str], tuple[Mapping[str, ForgottenUser], int | None]]]:
    """Forgets a user: what was done by version, and the number of lines of the service's event log; None without a service."""
    with open_service(store, states) as service, _own_files(store, states) as own:
        if own is None:
            yield lambda user: ({"v1": service.forget_user(user)}, None)
        else:
            yield own.forget_user


@dataclass(frozen=True)
class _OwnFiles:
    """The versions of a service whose own files lie beside the store, and how items and users are forgotten there."""

    delete_items: Callable[[Sequence[str]], list[str]]
    forget_user: Callable[[str], tuple[Mapping[str, ForgottenUser], int]]


@contextmanager
def _own_files(store: Path, states: str | None) -> Iterator[_OwnFiles | None]:
    """None without a service's own files."""
    config = ServeConfig(stores=(store,), states=states)
    if not config.own_folder.is_dir():
        yield None
        return
    with optional_imports():
        from newcomer.server.click_versions import ClickVersions
        from newcomer.server.event_log import FOLDER, EventLog
        from newcomer.server.item_deletion import delete_items
        from newcomer.server.models import ModelsFile
        from newcomer.server.user_erasure import forget_user
    log = EventLog(config.own_folder / FOLDER)
    with closing(log), closing(ClickVersions(config, store, ModelsFile(config.own_folder))) as versions:
        yield _OwnFiles(partial(delete_items, versions, log), partial(forget_user, versions))


def _warn_of_service(store: Path) -> None:
    """DataWarning if the model is served from files of its own: what is written past the service is lost with the next version."""
    own = ServeConfig(stores=(store,)).own_folder
    if own.is_dir():
        warnings.warn(
            f"{store} was served, with the files in {own}: what is given here reaches neither their event log nor the versions "
            "that are trained from it; send it to the service (POST /items, POST /events)",
            DataWarning,
            stacklevel=2,
        )


@contextmanager
def open_service(store: Path, states: str | None) -> Iterator[ItemService]:
    """The click model in this folder as an open `ItemService`.

    Raises StoreError for a classifier's store, naming the commands to use.
    """
    name = Store(store).manifest().learner
    kind = find_learner(name)
    if not issubclass(kind, ItemLearner):
        raise StoreError(
            f"{store}: holds a model of '{name}', a classifier; use `newcomer learn`, `predict` and `forget --class`"
        )
    with closing(ItemService.open(store, states)) as service:
        yield service


def _answers(
    service: ItemService, source: str, strict: bool, uncertainty: bool, left_out: list[str]
) -> Iterator[pl.DataFrame]:
    """Scores, streamed; a line that is not an object gets an error row, and so does every line of a stream that does not fit. A
    file that does not fit is added to `left_out`."""
    for part in stream_input(source, strict, left_out):
        begin = 0
        if part.broken and not len(part.frame):
            yield merge_errors(
                pl.DataFrame(schema=SCORE_COLUMNS), np.arange(0), len(part.broken), part.broken, service.model
            )
        try:
            with part.explaining():
                batches = service.score_batches(part.frame, part.where, _on_error(strict), uncertainty=uncertainty)
                for answers in batches:
                    broken = {n - begin: line for n, line in part.broken.items() if 0 <= n - begin < len(answers)}
                    begin += len(answers)
                    rows = np.setdiff1d(np.arange(len(answers)), list(broken))
                    yield merge_errors(answers[rows], rows, len(answers), broken, service.model) if broken else answers
        except DataError as error:
            if strict:
                raise
            if source != STDIN:
                left_out.append(str(error))
                continue
            lines = dict.fromkeys(range(len(part.frame) - begin), str(error))
            yield merge_errors(pl.DataFrame(schema=SCORE_COLUMNS), np.arange(0), len(lines), lines, service.model)


def _print_answers(parts: Sequence[pl.DataFrame]) -> None:
    for part in parts:
        for line in frame_to_jsonl(part):
            print(line)
    sys.stdout.flush()


def _summary(store: Path, done: Warmed | None, repaired: Repaired | None) -> Iterator[str]:
    """Summary lines."""
    if repaired is not None:
        yield f"{store}: {counted(len(repaired.items), 'item')} recomputed" + (
            f": {shorten(', '.join(repaired.items), 200)}" if repaired.items else ""
        )
    if done is not None:
        text = f"{store}: {counted(done.new, 'new event')} of {counted(len(done.items), 'item')}, {done.known} known already"
        if done.corrected:
            text += f", {counted(done.corrected, 'click')} on what had counted as no click"
        yield text + _never_seen(done.unseen)


def _never_seen(unseen: Unseen) -> str:
    return f"; never seen before: {unseen}" if str(unseen) else ""


def _on_error(strict: bool) -> OnError:
    return "raise" if strict else "report"


def _require_some(done: Sized, left_out: Sequence[str]) -> None:
    """Raises DataError if every row was left out."""
    if left_out and not len(done):
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DataError(left_out[0] + more)


def _print(content: Mapping[str, Json]) -> None:
    print(printable_json(dict(content), allow_nan=False))
