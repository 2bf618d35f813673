"""What a source, a column or a runs' folder is called is not what its data are."""

from pathlib import Path

import pytest

from newcomer.data.fingerprint import fingerprint


def test_a_folder_that_is_called_like_a_source_or_a_column_is_not_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs kept in a folder called `digits` counted as the data of that name: run again, 'the files have changed'."""
    for name in ("digits", "text"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.jsonl").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert fingerprint({"name": "digits", "seed": 0}) is None
    assert fingerprint({"name": "text-table", "text": "text", "label": "digits"}) is None
