"""`newcomer serve`: click models and classifiers over HTTP."""

import errno
import os
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from newcomer.cli.program import app, say
from newcomer.errors import SettingError
from newcomer.extras import optional_imports
from newcomer.server.configuration import METRICS_FOLDER, Limits, ServeConfig

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "newcomer.server.app:app_from_environment"

LIMITS = [name for name in Limits.model_fields if name != "rate"]

DRAIN_SECONDS = 10
"""Time that requests have to finish when the service stops."""


@app.command()
def serve(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of models: one click model, any number of classifiers."),
    ],
    states: Annotated[
        str | None,
        typer.Option(
            "--states", metavar="URL", help="URL of the state database; by default items.db in the model's folder."
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log", metavar="PATTERN", help="Training log of the click model, to train it anew; may be repeated."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; others than this machine's need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Number of processes that answer.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of lines 'ROLE TOKEN'; ROLE is read, write or admin. NEWCOMER_TOKENS may hold such lines, too.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the service's own files; by default NAME.service beside the first model."
        ),
    ] = None,
    clicked: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Event type that is a click; may be repeated.")
    ] = None,
    impression_window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long an impression waits for a click before it counts as none: 90s, 30m, 2h, 1d."
        ),
    ] = None,
    calibrate_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How often the click model's calibration is fitted anew: 12h, 7d; by default never."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Requests per second of one client and worker.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help=f"Limit of a request: {', '.join(LIMITS)} (body in bytes), such as rows=1000; may be repeated.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", help="Where the classifiers' backbone has moved."),
    ] = None,
) -> None:
    """Serve models over HTTP: register, score and warm up items, classify inputs. Stops at Ctrl-C."""
    try:
        config = ServeConfig(
            stores=tuple(stores),
            folder=folder,
            states=states,
            log=tuple(log or []),
            host=host,
            port=port,
            workers=workers,
            token_file=token_file,
            clicked=tuple(clicked or ["click"]),
            impression_window=_seconds("--impression-window", impression_window),
            calibrate_every=_seconds("--calibrate-every", calibrate_every),
            backbone=backbone,
            limits=Limits(rate=rate, **_limits(limit or [])),
        )
    except ValidationError as error:
        raise SettingError(f"serve: {error.errors()[0]['loc'][-1]}: {error.errors()[0]['msg']}") from None
    _require_free(host, port)
    with optional_imports():
        from newcomer.server.logs import log_to_stderr
    log_to_stderr().info("loading %s", ", ".join(map(str, stores)))
    with tempfile.TemporaryDirectory(prefix="newcomer-metrics-") as metrics:
        if workers == 1:
            with optional_imports():
                from newcomer.server.app import app_of_process, check
            _run(config, check, lambda: app_of_process(config))
        else:
            os.environ |= {**config.to_environment(), METRICS_FOLDER: metrics}
            with optional_imports():
                from newcomer.server.workers import checked, fork_workers
            fork_workers()
            _run(config, checked, APPLICATION)


def _run(
    config: ServeConfig, check: Callable[[ServeConfig], Sequence[str]], application: "Callable[[], FastAPI] | str"
) -> None:
    with optional_imports():
        import uvicorn

        from newcomer.server.job_runner import runner_process
    names = check(config)
    say(f"serving {', '.join(names)} at http://{config.host}:{config.port}; routes at /openapi.json; Ctrl-C stops")
    options: dict[str, Any] = {
        "host": config.host,
        "port": config.port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    with runner_process(config):
        uvicorn.run(application, factory=True, workers=config.workers, **options)


def _require_free(host: str, port: int) -> None:
    """Raises SettingError for an address that cannot be listened on, before models are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # as the server does: connections of one before may still be closing
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingError(f"port {port} of {host} is in use; give another --port") from None
        raise SettingError(f"--host {host} --port {port}: {error.strerror or error}") from None


def _seconds(option: str, time: str | None) -> float | None:
    """Seconds of a time with its unit. Raises SettingError for anything else."""
    if time is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", time)
    if found is None or not float(found[1]):
        raise SettingError(f"serve: {option} {time}: give a time with its unit, such as 90s, 30m, 2h or 1d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _limits(given: Sequence[str]) -> dict[str, int]:
    """Limits by name, of the form name=number. Raises SettingError for others."""
    found = dict[str, int]()
    for text in given:
        name, _, number = text.partition("=")
        if name not in LIMITS or not re.fullmatch(r"[0-9]{1,15}", number) or name in found:
            raise SettingError(f"--limit {text}: give each of {', '.join(LIMITS)} once, such as rows=1000")
        found[name] = int(number)
    return found
