"""Worker processes that start quickly: forked by a process that has imported what takes longest."""

import multiprocessing
from multiprocessing import forkserver

import uvicorn._subprocess

PRELOADED = ["torch", "fastapi", "sqlalchemy"]
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
