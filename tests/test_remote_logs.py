"""Logs of object stores and web servers are the logs of their files; what fails is one line, and nothing waits for ever."""

import errno
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from newcomer.data.fingerprint import fingerprint
from newcomer.data.inference.schema import propose
from newcomer.data.io import remote
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_files import matching_files
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import Schema
from newcomer.errors import DataError, MissingExtraError
from shell import Shell

SCHEMA = Schema("item", "user", "click", "time")


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item": [f"i{n % 7}" for n in range(90)],
            "user": [f"u{n % 11}" for n in range(90)],
            "click": [int(n % 3 == 0) for n in range(90)],
            "time": range(90),
            "page": ["cart"] * 40 + ["home"] * 50,
        }
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    stand_in = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    stand_in.start()
    host, port = stand_in.get_host_and_port()
    yield f"http://{host}:{port}"
    stand_in.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a bucket `clicks` with a log as a warehouse writes it."""
    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=server)
    client.create_bucket(Bucket="clicks")
    for page in ("cart", "home"):
        part = tmp_path / "local" / f"page={page}" / "part-0.parquet"
        part.parent.mkdir(parents=True)
        table().filter(pl.col("page") == page).drop("page").write_parquet(part)
        client.upload_file(str(part), "clicks", f"2024/page={page}/part-0.parquet")
    client.put_object(Bucket="clicks", Key="2024/_SUCCESS", Body=b"")
    client.put_object(Bucket="clicks", Key="2023/log.csv", Body=table().write_csv().encode())
    client.put_object(Bucket="clicks", Key="2023/log.csv.bak", Body=b"not this")
    yield client
    for entry in client.list_objects_v2(Bucket="clicks").get("Contents", []):
        client.delete_object(Bucket="clicks", Key=entry["Key"])
    client.delete_bucket(Bucket="clicks")


@pytest.mark.parametrize(
    "url",
    [
        "s3://clicks/2024",
        "s3://clicks/2024/",
        "s3://clicks/**/*.parquet",
        "s3://clicks/2024/page=*/part-?.parquet",
        "s3://clicks/2023/log.csv",
        Path("s3://clicks/2023/log.csv"),
    ],
)
def test_a_bucket_is_read_as_a_folder(bucket: Any, tmp_path: Path, url: str | Path) -> None:
    schema = propose(tmp_path / "local").schema
    whole = read_log(tmp_path / "local", schema)
    log, files = read_log(url, schema), ChunkedLog(url, schema, rows=7)
    chunked = files.read(*files.chunks)
    for found in (log, chunked):
        assert (found.items.ids, found.users.ids) == (whole.items.ids, whole.users.ids)
        assert found.item.tobytes() == whole.item.tobytes()
        assert found.time.tobytes() == whole.time.tobytes()
    assert propose(url).rows == 90


def test_a_digest_is_that_of_the_contents_wherever_they_are(bucket: Any, tmp_path: Path) -> None:
    here, there = fingerprint({"path": str(tmp_path / "local")}), fingerprint({"path": "s3://clicks/2024"})
    assert here is not None
    assert there is not None
    assert (here["sha256"], here["files"]) == (there["sha256"], there["files"])
    assert fingerprint({"path": "s3://clicks/2024"}, {**there, "sha256": "known"}) == {**there, "sha256": "known"}
    bucket.put_object(Bucket="clicks", Key="2024/page=cart/part-0.parquet", Body=b"another")
    changed = fingerprint({"path": "s3://clicks/2024"})
    assert changed is not None
    assert changed["stamp"] != there["stamp"]
    assert changed["sha256"] != there["sha256"]


def test_a_file_that_changes_after_it_was_listed_is_noticed(bucket: Any) -> None:
    bucket.put_object(Bucket="clicks", Key="new/log.csv", Body=table().write_csv().encode())
    (file,) = matching_files("s3://clicks/new/log.csv")
    bucket.put_object(Bucket="clicks", Key="new/log.csv", Body=table().reverse().write_csv().encode())
    with pytest.raises(DataError, match=r"s3://clicks/new/log\.csv: has changed since it was listed"):
        remote.local(file)


def test_an_error_names_the_file_in_its_bucket_and_the_row(bucket: Any) -> None:
    rows = table().with_columns(
        time=pl.when(pl.col("time") == 4).then(pl.lit("soon")).otherwise(pl.col("time").cast(pl.String))
    )
    bucket.put_object(Bucket="clicks", Key="wrong/log.csv", Body=rows.write_csv().encode())
    with pytest.raises(DataError, match=r"^s3://clicks/wrong/log\.csv: row 5, time 'time' is 'soon'"):
        read_log("s3://clicks/wrong/log.csv", SCHEMA)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/log.csv", "s3://no-such-bucket/log.csv: cannot be read (NoSuchBucket)"),
        ("s3://clicks/no/such.csv", "s3://clicks/no/such.csv: no such file"),
        ("s3://clicks/2023/*.parquet", "s3://clicks/2023/*.parquet: no such file"),
        ("s3://clicks/2023", "holds s3://clicks/2023/log.csv.bak, which is of no format that is read"),
    ],
)
def test_what_is_not_there_is_one_line(bucket: Any, shell: Shell, url: str, message: str) -> None:
    assert message in shell.fails("inspect", url)
    assert message in shell.fails("train", "shop", url)


def test_a_log_in_a_bucket_is_inspected(bucket: Any, shell: Shell) -> None:
    code, out, err = shell.call("inspect", "s3://clicks/2024", "--json")
    assert code == 0
    assert err.startswith("newcomer: s3://clicks/2024: no field has the role item")
    assert len(err.splitlines()) == 1
    assert '"rows": 90' in out


def test_without_credentials_one_line_says_which(bucket: Any, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # no machine of a cloud
    line = shell.fails("inspect", "s3://clicks/2024")
    assert line.startswith("newcomer: s3://clicks/2024: cannot be read (")
    assert "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in line


def test_an_endpoint_where_nothing_listens_is_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DataError, match=r"^s3://clicks/2024: cannot be read \(.*\); set AWS_ACCESS_KEY_ID"):
        read_log("s3://clicks/2024", SCHEMA)


def test_a_disk_that_is_full_is_said_to_be_and_not_the_credentials(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (listed,) = remote.remote_files("s3://clicks/2023/log.csv")
    monkeypatch.setitem(remote._FETCHERS, "s3", full)
    with pytest.raises(
        DataError, match=r"cannot be copied to .* \(No space left on device\); make room, or set TMPDIR"
    ):
        remote.local(replace(listed, version="not copied yet"))


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"obstore is not installed; run: pip install 'newcomer\[remote\]'"):
        read_log("s3://clicks/2024", SCHEMA)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on a folder. `/short.csv` ends too early."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path != "/short.csv":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"item,user,click,time\n")
            return None

    folder = tmp_path / "web"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_of_a_web_server_is_read_and_its_signature_not_shown(web: tuple[str, Path]) -> None:
    url, folder = web
    table().write_parquet(folder / "log.parquet")
    table().with_columns(time=pl.lit("soon")).write_csv(folder / "wrong.csv")
    assert len(read_log(f"{url}/log.parquet?signature=secret", SCHEMA)) == 90
    with pytest.raises(DataError, match=r"wrong\.csv: row 1") as error:
        read_log(f"{url}/wrong.csv?signature=secret", SCHEMA)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "none.csv?signature=secret",
            r"none\.csv: cannot be read \(HTTP Error 404: File not found\); check the address",
        ),
        ("short.csv", r"short\.csv: cannot be read \(21 of 1000 bytes arrived\)"),
    ],
)
def test_what_a_web_server_does_not_give_is_one_line(web: tuple[str, Path], name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_log(f"{web[0]}/{name}", SCHEMA)
    assert "secret" not in str(error.value)


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(DataError, match="has credentials in the address; give them by the environment only") as error:
        read_log("https://me:secret@127.0.0.1/log.csv", SCHEMA)
    assert "secret" not in str(error.value)


def test_files_of_the_hub_are_those_of_its_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().write_csv(tmp_path / "log.csv")

    class Hub:
        def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
            assert (path, detail) == ("datasets/me/clicks", True)
            return {
                "datasets/me/clicks/log.csv": {"size": (tmp_path / "log.csv").stat().st_size, "blob_id": "1"},
                "datasets/me/clicks/.gitattributes": {"size": 1, "blob_id": "2"},
            }

        def get_file(self, path: str, target: str) -> None:
            assert path == "datasets/me/clicks/log.csv"
            Path(target).write_bytes((tmp_path / "log.csv").read_bytes())

    monkeypatch.setattr("huggingface_hub.HfFileSystem", Hub)
    for url in ("hf://datasets/me/clicks", "hf://datasets/me/clicks/*.csv"):
        assert len(read_log(url, SCHEMA)) == 90
