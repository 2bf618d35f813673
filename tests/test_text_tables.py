"""Tables of texts: every text and label as it is in the file."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.class_names import class_name
from newcomer.data.io.text_tables import banking77, class_table, text_table
from newcomer.errors import DataError
from newcomer.streams.domain_incremental import DomainIncremental

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1).filter(lambda x: x.strip() != "")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_texts_and_labels_are_those_of_the_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    table = pl.DataFrame({"label": ["b", "a", "b"], "text": ['say "no",\nthen', "größer", "NA"], "other": [1, 2, 3]})
    getattr(table, f"write_{form}")(path)
    examples = class_table(path, "text", "label")
    assert list(examples.inputs) == ['say "no",\nthen', "größer", "NA"]
    assert examples.labels == ["b", "a", "b"]


@given(rows=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_a_csv_and_any_label_in_its_one_spelling(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.csv"
    pl.DataFrame({"text": [t for t, _ in rows], "label": [n for _, n in rows]}).write_csv(path)
    examples = class_table(path, "text", "label")
    assert [*zip(examples.inputs, examples.labels, strict=True)] == [(t, class_name(n)) for t, n in rows]


@pytest.mark.parametrize("label", ["01", "1.50", "true", "2024-01-31", "null", "1e3", "0x1F", "nan"])
def test_labels_that_look_like_something_else_stay_what_they_are(label: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n007,{label}\n3.10,{label}\n")
    examples = class_table(path, "text", "label")
    assert examples.labels == [label, label]
    assert list(examples.inputs) == ["007", "3.10"]


def test_a_number_in_every_early_row_does_not_settle_what_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "12,3\n" * 2000 + "twelve,three\n")
    assert class_table(path, "text", "label").labels[-1] == "three"


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\na,b\n")
    assert list(class_table(path, "text", "label").inputs) == ["a"]


@pytest.mark.parametrize("kind", [pl.Int8, pl.Int64, pl.UInt32, pl.Categorical, pl.Enum(["3", "4"])])
def test_labels_of_a_parquet_file_may_be_whole_numbers_or_categories(kind: pl.DataType, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pl.DataFrame({"text": ["a", "b"], "label": ["3", "4"]})
    table.with_columns(pl.col("label").cast(kind)).write_parquet(path)
    assert class_table(path, "text", "label").labels == ["3", "4"]


def test_labels_that_are_no_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": ["a", "b"], "label": [0.5, 1.5]}).write_parquet(path)
    with pytest.raises(DataError, match=r"a\.parquet: column 'label' holds Float64, not text"):
        class_table(path, "text", "label")


def test_semicolons_and_tabs_are_separators_where_the_header_says_so(tmp_path: Path) -> None:
    for name, separator in (("a.csv", ";"), ("b.csv", "\t"), ("c.tsv", "\t")):
        (tmp_path / name).write_text(f"text{separator}label\na, b{separator}c\n")
        found = class_table(tmp_path / name, "text", "label")
        assert (list(found.inputs), found.labels) == (["a, b"], ["c"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.csv: is empty"),
        (b"text,label\n", r"a\.csv: has no rows"),
        (b"text,lable\na,b\n", r"a\.csv: no column 'label'; did you mean 'lable'\?"),
        (b"text,label\na,b\nb\xe9,c\n", r"a\.csv: line 3 is not UTF-8; save the file as UTF-8"),
        (b"te\xe9xt,label\na,b\n", r"a\.csv: line 1 is not UTF-8"),
        (b"text,label\na,b\n,c\n", r"a\.csv: row 2 is empty in column 'text'; fill it or remove the row"),
        (b"text,label\na,b\nc,  \n", r"a\.csv: row 2 is empty in column 'label'"),
        (b'text,label\n"",b\n', r"a\.csv: row 1 is empty in column 'text'"),
        (b"text,label\na\n", r"a\.csv: row 1 is empty in column 'label'"),
        (b"text,label\na,b,c\n", r"a\.csv: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_where(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        class_table(tmp_path / "a.csv", "text", "label")
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_one_line(tmp_path: Path) -> None:
    for name, message in (
        ("a.parquet", "cannot be read"),
        ("a.xlsx", r"neither \.csv nor \.parquet"),
        ("b.csv", "no such file"),
    ):
        if name != "b.csv":
            (tmp_path / name).write_bytes(b"x" * 20)
        with pytest.raises(DataError, match=message) as caught:
            class_table(tmp_path / name, "text", "label")
        assert "\n" not in str(caught.value)


def test_two_tables_and_the_names_of_their_columns(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"question,intent\n{split} me,help\n")
    train, test = text_table(str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), text="question", label="intent")
    assert (list(train.inputs), list(test.inputs)) == (["train me"], ["test me"])
    with pytest.raises(DataError, match=r"a table of texts not found at nothing\.csv, .*; give a CSV or parquet file"):
        text_table("nothing.csv", "nothing.csv")


def test_banking77_that_is_missing_says_where_to_get_it_and_where_to_put_it() -> None:
    with pytest.raises(DataError, match=r"Banking77 not found .*download .*https://.* into data/banking77/"):
        banking77("no-such-banking")


def test_banking77_is_complete(real_data: Callable[[str], Path]) -> None:
    train, test = banking77(str(real_data("banking77")))
    assert (len(train), len(test)) == (10_003, 3_080)
    assert len(train.classes) == 77
    assert train.classes == test.classes


def test_a_column_may_name_domains(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "text": [f"text {n}" for n in range(8)],
            "label": ["pay", "pay", "lose", "lose"] * 2,
            "language": [1.0] * 4 + [2.0] * 4,
        }
    )
    table.write_csv(tmp_path / "a.csv")
    train, test = text_table(str(tmp_path / "a.csv"), domain="language", test_share=0.5)
    assert sorted(zip(test.domains, test.labels, strict=True)) == [
        ("1", "lose"),
        ("1", "pay"),
        ("2", "lose"),
        ("2", "pay"),
    ]
    assert [stage.name for stage in DomainIncremental(train, test, domains=["2", "1"])] == ["2", "1"]
    assert not text_table(str(tmp_path / "a.csv"))[0].domains
    table.with_columns(language=pl.lit(None)).write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match="row 1 is empty in column 'language'; fill it or remove the row"):
        text_table(str(tmp_path / "b.csv"), domain="language")
    with pytest.raises(DataError, match="column 'place'"):
        text_table(str(tmp_path / "a.csv"), domain="place")
