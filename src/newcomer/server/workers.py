"""Processes of the service that start quickly: forked by a process that has imported what takes longest."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

import uvicorn._subprocess

from newcomer.errors import DataWarning, NewcomerError
from newcomer.server.configuration import ServeConfig

PRELOADED = ["torch", "fastapi", "sqlalchemy", "alembic.command", "jinja2", "prometheus_client", "PIL.Image"]
"""Imported before the fork. Polars is not: it starts threads when it is imported, which would not come along."""


def fork_workers() -> None:
    """Let uvicorn fork its workers from a process that begins to import `PRELOADED` now, while this one goes on.

    A worker that starts, or takes the place of another, then needs half the time. Its environment is that of now. Where processes
    cannot be forked, workers are spawned.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
        uvicorn._subprocess.spawn = context  # type: ignore[assignment]


def end_with_parent() -> None:
    """End this process, as it is ended by SIGTERM, when the one that started it has ended, even by SIGKILL.

    A worker that outlived it would hold the port, with nobody to run its jobs, start it again or stop it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)


def checked(config: ServeConfig) -> list[str]:
    """`app.check` in a process that is started as workers are: this one then need not import what takes longest.

    Raises what the check raises.
    """
    context: BaseContext = uvicorn._subprocess.spawn
    with ProcessPoolExecutor(1, context, _ignore_interrupts) as pool:
        try:
            names, warned, error = pool.submit(_check, config).result()
        except BrokenProcessPool:
            raise NewcomerError(
                "the process that opened the models was killed; see that there is enough memory"
            ) from None
    for warning in warned:
        warnings.warn(warning, stacklevel=2)
    if error is not None:
        raise NewcomerError(error)
    return names


def _check(config: ServeConfig) -> tuple[list[str], list[Warning | str], str | None]:
    """Names, warnings, and the error if there is one: errors of all kinds need not be picklable."""
    from newcomer.server.app import check

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            names, error = check(config), None
        except NewcomerError as wrong:
            names, error = [], str(wrong)
    return names, [one.message for one in caught], error


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
