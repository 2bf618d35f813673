"""`newcomer simulate`: traffic of a simulated world against a service."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TextIO

import typer

from newcomer.cli.program import app, bar, say
from newcomer.client import Client
from newcomer.errors import SettingError
from newcomer.printable import printable_json
from newcomer.server.bodies import Explore
from newcomer.simulation.run import Simulation
from newcomer.simulation.sent_log import SentLog
from newcomer.simulation.summary import Summary
from newcomer.simulation.visits import Traffic
from newcomer.simulation.world import World

DEFAULT = Traffic()


@app.command()
def simulate(
    against: Annotated[
        str, typer.Option("--against", metavar="URL", help="The service: `newcomer serve FOLDER`.")
    ] = "http://127.0.0.1:8000",
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="FOLDER", help="Train the click model to serve, and stop."),
    ] = None,
    visits: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of visits; by default until Ctrl-C.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Duration in seconds.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", min=0.001, help="Visits per second; by default as many as are answered."),
    ] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Requests at a time.")] = 1,
    candidates: Annotated[
        int, typer.Option(metavar="N", min=1, help="Candidates that are scored for a visit.")
    ] = DEFAULT.candidates,
    shown: Annotated[
        int, typer.Option(metavar="N", min=1, help="Candidates that are shown: the highest scores.")
    ] = DEFAULT.shown,
    exploration: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share of visits that are shown random candidates.")
    ] = DEFAULT.exploration,
    explore: Annotated[
        Explore | None,
        typer.Option(
            metavar="POLICY",
            help="How the service orders the candidates of the other visits: none, thompson or ucb; by default by score.",
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(metavar="X", min=0.0, max=1e6, help="Factor on the std in --explore.")
    ] = DEFAULT.strength,
    click_delay: Annotated[
        int, typer.Option(metavar="N", min=0, help="Mean delay of a click, in visits.")
    ] = DEFAULT.click_delay,
    new_item_every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Visits from one new item to the next.")
    ] = DEFAULT.new_item_every,
    new_item_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.001, help="Seconds from one new item to the next, in place of visits."),
    ] = None,
    repeated: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share of events that are sent twice.")
    ] = DEFAULT.repeated,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="The world and its visits; the same as for --train.")
    ] = 0,
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", envvar="NEWCOMER_TOKEN", help="Token with the role write.", show_envvar=True),
    ] = None,
    interval: Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds from one line to the next.")] = 10.0,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Write what was sent and answered as JSON lines.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")] = False,
) -> None:
    """Send the traffic of a simulated world to a service. Users are shown the candidates with the highest scores, click with known
    probabilities, and their events arrive later; new items appear. Prints what the service did, and how good its scores were."""
    world = World(seed)
    if train is not None:
        with bar(train.name) as progress:
            world.train(train, progress.follow)
        say(
            f"{train}: {world.old_items} items learned; `newcomer serve {train}`, then `newcomer simulate --seed {seed}`"
        )
        return
    if strength != DEFAULT.strength and explore is None:
        raise SettingError(f"--strength {strength:g} says nothing without --explore; give that too, or leave it out")
    if shown > candidates:
        raise SettingError(f"--shown {shown}: there are only {candidates} candidates; lower it, or raise --candidates")
    traffic = Traffic(
        candidates=candidates,
        shown=shown,
        exploration=exploration,
        explore=explore,
        strength=strength,
        click_delay=click_delay,
        new_item_every=new_item_every,
        new_item_seconds=new_item_seconds or 0.0,
        repeated=repeated,
    )
    with Client(against, token) as client, _opened(log) as stream:
        simulation = Simulation(client, world, traffic, SentLog(stream))
        before = 0
        with suppress(KeyboardInterrupt):
            for summary in simulation.run(visits, seconds, rate, concurrency, interval):
                if not json_:
                    say(summary.line(before))
                before = len(summary.latencies)
        _show(simulation.summary, json_)


@contextmanager
def _opened(log: Path | None) -> Iterator[TextIO | None]:
    if log is None:
        yield None
        return
    try:
        stream = log.open("x", encoding="utf-8")
    except FileExistsError:
        raise SettingError(f"--log {log}: is there already; name another file, or delete this one") from None
    with stream:
        yield stream


def _show(summary: Summary, as_json: bool) -> None:
    info = summary.info()
    if as_json:
        print(printable_json(info, allow_nan=False))
        return
    for line in summary.lines():
        say(line)
