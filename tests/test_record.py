"""Records: JSON lines, complete up to the last finished stage."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.errors import StoreError
from newcomer.store.record import RecordWriter, read_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def stage(name: str) -> dict[str, Any]:
    return {"event": "stage", "stage": name}


@given(events=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5))
@settings(max_examples=60, deadline=None)
def test_written_events_are_read_back(tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("record") / "record.jsonl"
    record = RecordWriter(path)
    written = [event | {"event": "step"} for event in events]
    for event in written:
        record.write(event)
    record.commit()
    assert list(read_record(path)) == written


def test_events_appear_on_commit(tmp_path: Path) -> None:
    record = RecordWriter(tmp_path / "new" / "record.jsonl")
    record.write(stage("task 0"))
    assert list(read_record(record.path)) == []
    record.commit()
    record.commit()
    assert list(read_record(record.path)) == [stage("task 0")]


def test_an_unterminated_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text('{"event": "start"}\n{"event": "sta')
    assert list(read_record(path)) == [{"event": "start"}]
    path.write_text('{"event": "start"}\n{"event": "stage"}')  # complete but unterminated
    assert list(read_record(path)) == [{"event": "start"}]


@pytest.mark.parametrize("line", ["{", "", "3", "[]", "{}", "null"])
def test_an_invalid_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text('{"event": "start"}\n' + line + '\n{"event": "end"}\n')
    with pytest.raises(StoreError, match="line 2 is not a valid event; remove the run and start it again"):
        list(read_record(path))


def test_unreadable_records_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("binary", "missing"):
        with pytest.raises(StoreError, match="cannot be read as the record of a run"):
            list(read_record(tmp_path / name))


def test_keep_truncates_after_that_many_stages(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record = RecordWriter(path)
    events = [{"event": "start"}, {"event": "step"}, stage("a"), {"event": "step"}, stage("b"), {"event": "step"}]
    for event in events:
        record.write(event)
    record.commit()
    RecordWriter(path, keep=2)
    assert list(read_record(path)) == events[:5]
    again = RecordWriter(path, keep=1)
    again.write(stage("c"))
    again.commit()
    assert list(read_record(path)) == [*events[:3], stage("c")]
    RecordWriter(path)
    assert list(read_record(path)) == []


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RecordWriter(tmp_path / "record.jsonl")
    record.write(stage("a"))
    record.commit()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    record.write(stage("b"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"could not be written \(No space left on device\)"):
        record.commit()
    assert list(read_record(record.path)) == [stage("a")]
    monkeypatch.undo()
    record.commit()  # pending events are not lost
    assert list(read_record(record.path)) == [stage("a"), stage("b")]
