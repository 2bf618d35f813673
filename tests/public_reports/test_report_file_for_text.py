"""A file that a command is given is read or refused; its name is never classified."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from newcomer.data.io.text_files import text_queries
from shell import Shell

ROWS = [
    ("my card is lost", "lost"),
    ("where is my card", "lost"),
    ("the exchange rate", "rate"),
    ("rate of the euro", "rate"),
]


@pytest.fixture
def desk(shell: Shell, tiny: Callable[[str], Path]) -> Shell:
    """A model of texts called `desk`."""
    (shell.folder / "task.csv").write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in ROWS))
    words = ["--backbone", str(tiny("bert")), "--set", "epochs=1", "--set", "rank=1"]
    assert shell.call("learn", "desk", "task.csv", *words)[0] == 0
    return shell


def asked(shell: Shell, *words: str, code: int = 0) -> list[dict[str, Any]]:
    found, out, err = shell.call("predict", "desk", *words, "--json")
    assert found == code, err
    return [json.loads(line) for line in out.splitlines()]


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.parametrize(
    "content", [b"my card\nthe rate\n", b"\xef\xbb\xbfmy card\r\n\r\nthe rate", b"my card\rthe rate\r"]
)
def test_a_file_of_texts_has_a_text_a_line(content: bytes, desk: Shell) -> None:
    """A user asked about `questions.txt`: its name was classified."""
    (desk.folder / "questions.txt").write_bytes(content)
    found = asked(desk, "questions.txt")
    assert [one["input"] for one in found] == ["my card", "the rate"]
    assert [one["classes"] for one in found] == [one["classes"] for one in asked(desk, "my card", "the rate")]


def test_json_lines_have_a_text_each_and_what_has_none_is_left_out(desk: Shell) -> None:
    """A user asked about `questions.jsonl`."""
    lines = [
        '{"text": "my card", "id": 1}',
        "",
        '"the rate"',
        '{"txt": "x"}',
        '{"text": null}',
        "{bad",
        '{"text": 5}',
        '{"text": " "}',
    ]
    (desk.folder / "questions.jsonl").write_text("\n".join(lines))
    found = asked(desk, "questions.jsonl", code=3)
    assert [one["input"] for one in found] == [
        "my card",
        "the rate",
        *(f"questions.jsonl, line {n}" for n in (4, 5, 6, 7, 8)),
    ]
    assert ["error" in one for one in found] == [False, False, *[True] * 5]
    assert "no 'text'; did you mean 'txt'?" in found[2]["error"]
    assert [one["input"] for one in asked(desk, "questions.jsonl", "--text", "txt", code=3) if "classes" in one] == [
        "the rate",
        "x",
    ]


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_has_a_text_a_line(name: str, desk: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user piped texts into the command: `-` was classified, and so was `/dev/stdin`."""
    typed(monkeypatch, b"my card\nthe rate\n")
    assert [one["input"] for one in asked(desk, name)] == ["my card", "the rate"]
    for content, message in (
        (b"", "standard input: holds no text"),
        (b"a\xe9\n", "standard input: line 1 is not UTF-8"),
    ):
        typed(monkeypatch, content)
        assert message in desk.fails("predict", "desk", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "a folder, and this model reads texts"),
        ("birds", "a folder, and this model reads texts"),
        ("birds/train/wren/0.png", "a file, but not .txt"),
        ("birds.toml", "a file, but not .txt"),
        ("binary.txt", "line 1 is not UTF-8"),
        ("zeros.txt", "holds binary data, not texts"),
        ("empty.txt", "holds no text"),
        ("nowhere.txt", "no such file; to classify it as a text, use standard input: -"),
        ("nowhere.JSONL", "no such file"),
        ("nowhere.png", "no such file"),
        ("texts/*.txt", "no such file"),
        ("./nowhere", "no such file"),
        ("/tmp/no/where", "no such file"),
        ("~/nowhere", "no such file"),
        ("my questions.txt", "no such file; to classify it as a text, use standard input: -"),
        ("./my notes", "no such file"),
        ("/home/me/my notes", "no such file"),
        (r"C:\Users\me\q.csv", "no such file"),
        (r"C:\my texts\questions", "no such file"),
        (r"\\server\share", "no such file"),
        (r"..\notes", "no such file"),
        *(
            (f"nowhere{suffix}", "no such file")
            for suffix in (".rtf", ".eml", ".msg", ".odt", ".py", ".txt.gz", ".bak")
        ),
        ("", "an empty text"),
        ("  ", "an empty text"),
    ],
)
def test_what_is_no_text_is_refused(name: str, message: str, desk: Shell) -> None:
    """A user mistyped a file's name, or gave a folder or a picture to a model of texts."""
    for file, content in (("binary.txt", b"\x00\xff\x01"), ("zeros.txt", b"a\0b"), ("empty.txt", b"\n")):
        (desk.folder / file).write_bytes(content)
    assert message in desk.fails("predict", "desk", name)


@pytest.mark.parametrize(
    "text",
    [
        "please send me lost.csv",
        "node.js",
        "and/or",
        "24/7",
        "Is it questions.txt?",
        "/ is a slash",
        "Thanks.Bye",
        "asp.net",
        "C: is full",
        "www.example.com",
        "v1.2",
        "a.b",
        "http://x.y/z",
        "word " * 200,
    ],
)
def test_a_text_that_happens_to_look_like_a_name_is_a_text(text: str) -> None:
    """Sentences have dots and slashes, and some are longer than any file's name."""
    (one,) = text_queries([text])
    assert (one.name, one.input, one.problem) == (text, text, "")


def test_a_table_of_other_columns_is_read_or_named(tmp_path: Path) -> None:
    """Categories, numbers and gaps, as a warehouse writes them."""
    table = pl.DataFrame({"text": ["a", None, "b"]}).with_columns(pl.col("text").cast(pl.Categorical))
    table.write_parquet(tmp_path / "a.parquet")
    found = text_queries([str(tmp_path / "a.parquet")])
    assert [one.input for one in found] == ["a", "", "b"]
    assert found[1].problem == f"{tmp_path / 'a.parquet'}, row 2: missing text"
    pl.DataFrame({"text": [["a"], ["b"]]}).write_parquet(tmp_path / "b.parquet")
    (one,) = text_queries([str(tmp_path / "b.parquet")])
    assert "column 'text' holds List, not text" in one.problem


def test_a_model_of_pictures_reads_no_standard_input(shell: Shell) -> None:
    """A user piped a picture into the command."""
    assert shell.call("learn", "m", "birds", "--backbone", "micro-vit", "--set", "epochs=1")[0] == 0
    assert "-: images cannot be read from standard input; give files or folders" in shell.fails("predict", "m", "-")
    assert "no such file or folder" in shell.fails("predict", "m", "a long text " * 60)


def test_strict_ends_with_the_first_missing_text(desk: Shell) -> None:
    """Who wants all or nothing gets it."""
    (desk.folder / "q.csv").write_text('text\nmy card\n" "\nthe rate\n')
    assert "q.csv, row 2: missing text" in desk.fails("predict", "desk", "q.csv", "--strict")
    code, out, err = desk.call("predict", "desk", "q.csv")
    assert code == 3
    assert "my card" in out
    assert err == "newcomer: left out: q.csv, row 2: missing text\n"


def test_one_missing_file_does_not_end_the_others() -> None:
    """A user gave twenty files, one of which was moved meanwhile."""
    found = text_queries(["nowhere.txt", "a text"])
    assert [bool(one.problem) for one in found] == [True, False]
