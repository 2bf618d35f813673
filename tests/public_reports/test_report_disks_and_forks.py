"""Disks that are full or cannot be written, and processes that were forked: one line, and nothing of before is lost."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from films import FILMS, events, log, requests, trained
from newcomer.data.io.row_files import write_rows
from newcomer.errors import DataError, StoreError
from newcomer.items.serving.service import ItemService
from shell import Shell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = trained(tmp_path_factory.mktemp("films") / "store")
    live = ItemService.open(store)
    live.warm(events("film 1", 5))
    live.close()
    return store


def limited(shell: Shell, *words: str, file_size: int) -> tuple[int, str]:
    """The command with files of so many bytes at most, as a disk that is full; its exit code and what it said."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, before[1]))  # Python ignores the signal that comes with it
    try:
        code, _, err = shell.call(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return code, err


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_answers_on_a_full_disk_leave_the_older_file(suffix: str, store: Path, shell: Shell) -> None:
    """`score --out` on a full disk: the older answers were destroyed, and with parquet the command ended in a trace."""
    out = shell.folder / f"answers.{suffix}"
    requests(*FILMS).write_ndjson(shell.folder / "r.jsonl")
    states = ["--states", f"sqlite:///{store / 'items.db'}"]
    assert shell.call("score", str(store), "r.jsonl", "--out", out.name, *states)[0] == 0
    before = shell.files()
    many = requests(*FILMS * 2000, price=np.random.default_rng(0).random(16_000))
    many.write_ndjson(shell.folder / "r.jsonl")
    before["r.jsonl"] = (shell.folder / "r.jsonl").read_bytes()
    code, err = limited(shell, "score", str(store), "r.jsonl", "--out", out.name, *states, file_size=60_000)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{out.name}: cannot be written (" in err
    assert shell.files() == before


def test_a_training_on_a_full_disk_ends_in_one_line(shell: Shell) -> None:
    """`train` on a full disk ended in a trace."""
    log().write_csv(shell.folder / "old.csv")
    settings = [
        word for one in ("width=4", "tower=[8]", "pretrain_epochs=1", "meta_epochs=0") for word in ("--set", one)
    ]
    code, err = limited(shell, "train", "shop", "old.csv", *settings, file_size=2000)
    assert code == 2, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "newcomer: shop: could not be written (File too large); nothing was changed"


def test_a_link_in_the_place_of_the_answers_is_followed_and_none_is_written_through(tmp_path: Path) -> None:
    """A file of answers that is a link to another place."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.csv").symlink_to(tmp_path / "elsewhere" / "b.csv")
    write_rows(pl.DataFrame({"a": [1]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "elsewhere" / "b.csv").read_text() == "a\n1\n"
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["b.csv"]
    with pytest.raises(DataError, match=r"nowhere.*cannot be written"):
        write_rows(pl.DataFrame({"a": [1]}), tmp_path / "nowhere" / "a.csv")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """As on a mount that is read-only: nothing there can be written. (The tests may run as root, whom no permission stops.)"""

    def make(folder: Path) -> None:
        access = os.access
        monkeypatch.setattr(
            os,
            "access",
            lambda path, mode: (
                not (mode == os.W_OK and folder in (Path(path), *Path(path).parents)) and access(path, mode)
            ),
        )
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)

    return make


def test_a_store_on_a_mount_that_is_read_only_is_served(
    store: Path, shell: Shell, read_only: Callable[[Path], None]
) -> None:
    """A model in a container whose volume is read-only: `predict` worked there, `score` did not."""
    requests(*FILMS[:2]).write_ndjson(shell.folder / "r.jsonl")
    usual = shell.call("score", str(store), "r.jsonl")
    assert usual[0] == 0
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    read_only(store)
    assert shell.call("score", str(store), "r.jsonl") == usual
    assert shell.call("inspect", str(store))[0] == 0
    for words in (
        ["warm", str(store), "e.csv"],
        ["forget", str(store), "--item", "film 1"],
        ["warm", str(store), "--repair"],
    ):
        events("film 1", 2).write_csv(shell.folder / "e.csv")
        assert "cannot be written, and was read as it is" in shell.fails(*words)
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before
    store.chmod(0o755)
    for file in store.iterdir():
        file.chmod(0o644)


def test_a_store_that_was_never_served_is_served_read_only_too(
    tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    """The same where there is no database yet."""
    trained(tmp_path / "store")
    read_only(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    assert live.score(requests(*FILMS))["score"].is_finite().all()
    assert not (tmp_path / "store" / "items.db").exists()
    live.close()
    (tmp_path / "store").chmod(0o755)


def test_a_database_that_was_not_closed_is_not_read_half(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    """The same where a part of it lies in its log still."""
    trained(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    live.headers()
    read_only(tmp_path / "store")
    with pytest.raises(StoreError, match=r"items.db: was not closed, .*open it once where it can be"):
        ItemService.open(tmp_path / "store").headers()
    live.close()
    (tmp_path / "store").chmod(0o755)


FORKED = """
import os, sys
import films
from newcomer.errors import StoreError
from newcomer.items.methods.emerg import EmerG
from newcomer.items.serving.service import ItemService

live = ItemService.open(sys.argv[1])
ask, events = films.requests("film 1"), films.events("film 1", 1)
live.score(ask) if sys.argv[2] == "used" else None
def asked(what):
    child = os.fork()
    if not child:
        try:
            what()
        except StoreError as error:
            os._exit(7 if "was forked from process" in str(error) and "open the model in each worker" in str(error) else 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(asked(lambda: live.score(ask)), asked(lambda: live.warm(events)), asked(lambda: ItemService.open(sys.argv[1])))
print(asked(lambda: live.learner.score(ask)) if sys.argv[2] == "used" else "")
"""


@pytest.mark.parametrize(("used", "codes"), [("used", "7 7 7 7"), ("opened", "7 7 0")])
def test_a_forked_process_is_refused_with_a_sentence(used: str, codes: str, store: Path) -> None:
    """gunicorn #2478, polars #19149: with --preload every worker hung at its first request, for ever."""
    here = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(store), used],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == codes.split(), done.stderr


CLASSES_AFTER_FORK = """
import os, sys, numpy, torch
torch.set_num_threads(2)
from newcomer import Examples, FrozenBackbone
images = [numpy.full((8, 8, 3), 5 * n, numpy.uint8) for n in range(40)]
model = FrozenBackbone("micro-vit").learn(Examples(images, ["dark"] * 20 + ["light"] * 20))
model.predict(images[0])
if os.fork() == 0:
    try:
        model.predict(images[0])
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_forked_classifier_is_an_error() -> None:
    """gunicorn #2478: a model that had answered before the fork waited for ever in the workers."""
    done = subprocess.run([sys.executable, "-c", CLASSES_AFTER_FORK], capture_output=True, text=True, timeout=120)
    assert "StoreError" in done.stdout
    assert "was forked from process" in done.stdout
