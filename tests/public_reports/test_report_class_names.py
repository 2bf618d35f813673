"""A class that is spelled in several ways is one class."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.class_names import class_name, class_names, known_names
from newcomer.data.examples import Examples
from newcomer.data.io.image_folders import class_folder
from newcomer.data.io.text_tables import class_table
from newcomer.errors import DataError, LearnerError
from newcomer.store.entry import Entry
from newcomer.streams.class_incremental import ClassIncremental

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("spelling", ["card ", " card", "card\t", "\u00a0card", "card\r"])
def test_whitespace_around_a_label_makes_no_class(spelling: str) -> None:
    """tfx #819: what is the same to a reader is another category to the program; 'card ' and 'card' were two classes."""
    assert Examples(["a", "b"], ["card", spelling]).classes == ["card"]


def test_the_unicode_form_of_a_label_makes_no_class(tmp_path: Path) -> None:
    """tfx #819: a file from a Mac spells é as two characters."""
    assert COMPOSED != DECOMPOSED
    assert Examples(["a", "b"], [COMPOSED, DECOMPOSED]).classes == [COMPOSED]
    (tmp_path / "a.csv").write_text(f"text,label\na,{COMPOSED}\nb,{DECOMPOSED} \n", encoding="utf-8")
    assert class_table(tmp_path / "a.csv", "text", "label").classes == [COMPOSED]
    for part, name in enumerate((COMPOSED, DECOMPOSED)):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "d" / name / f"{part}.png")
    assert class_folder(tmp_path / "d").labels == [COMPOSED] * 2


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([3.0, 4.0], ["3", "4"]),
        ([True, False], ["true", "false"]),
        ([10**15, 2], ["1000000000000000", "2"]),
    ],
)
def test_labels_of_a_parquet_file_are_spelled_as_those_of_a_csv(
    labels: list[Any], wanted: list[str], tmp_path: Path
) -> None:
    """tfx #819: a column of pandas with a gap holds floats, and 3 became 3.0, another class."""
    pl.DataFrame({"text": ["a", "b"], "label": labels}).write_parquet(tmp_path / "a.parquet")
    assert class_table(tmp_path / "a.parquet", "text", "label").labels == wanted


def test_a_gap_in_a_column_of_numbers_is_named_and_no_class(tmp_path: Path) -> None:
    """The gap itself: a row without a label."""
    pl.DataFrame({"text": ["a", "b", "c"], "label": [3.0, None, float("nan")]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row 2 is empty in column 'label'"):
        class_table(tmp_path / "a.parquet", "text", "label")
    left_out: list[str] = []
    assert class_table(tmp_path / "a.parquet", "text", "label", left_out).labels == ["3"]
    assert left_out == [f"{tmp_path / 'a.parquet'}: column 'label' is empty in rows 2-3"]


def test_a_float_of_32_bits_is_the_class_that_was_written() -> None:
    """A column of float32 holds .1 as .10000000149, another class than the .1 of a CSV."""
    labels = np.array([0.1, 2.0, 0.25], np.float32)
    tensor = torch.tensor(labels)
    for given in (labels, list(labels), tensor, list(tensor), pl.Series(labels), pd.Series(labels)):
        assert class_names(given) == ["0.1", "2", "0.25"]
    assert class_name(np.float16(0.1)) == "0.1"
    for wrong in (np.float32("nan"), np.float32("inf")):
        with pytest.raises(DataError, match=r"labels\[0\]: "):
            class_names([wrong])


def test_leading_zeros_and_case_are_kept() -> None:
    """What a reader tells apart stays apart."""
    labels = ["01", "1", "Card", "card", "a  b", "a b", "1.5", "true", "NA", "null"]
    assert [class_name(label) for label in labels] == labels


def test_a_class_is_forgotten_and_evaluated_by_any_spelling(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """A user learned `3` and later asks for 3.0."""
    learner = FrozenBackbone(str(tiny("bert"))).learn(Examples(["my card", "lost", "the rate", "euro"], [3, 3, 4, 4]))
    assert learner.evaluate(Examples(["my card"], [3.0]))["examples"] == 1
    assert learner.forget(" 3 ").classes == ["4"]
    with pytest.raises(LearnerError, match="class '3' is not known"):
        learner.forget("3")


def test_a_store_of_other_spellings_is_read_in_the_one_spelling() -> None:
    """A model of yesterday knows 'card ': more examples of 'card' belong to it."""
    assert known_names(["card ", DECOMPOSED]) == ["card", COMPOSED]
    assert known_names(["card ", "card"]) == ["card ", "card"]  # two classes there stay two


@pytest.mark.filterwarnings("ignore:.*no new class has two examples")
def test_a_class_of_an_old_store_is_updated_in_its_new_spelling(tiny: Callable[[str], Path]) -> None:
    """The same, with a learner: the entry is what its store holds."""
    learner = FrozenBackbone(str(tiny("bert"))).learn(Examples(["my card", "the rate"], ["card", "rate"]))
    entry = learner.entries[0]
    old = FrozenBackbone(learner.backbone)
    old._apply_entries(
        [Entry(entry.name, entry.tensors, {**entry.info, "new classes": ["card ", "rate"]}, entry.state)]
    )
    assert old.learn(Examples(["lost", "euro"], ["card", "rate "])).classes == ["card", "rate"]


def test_the_classes_of_a_task_are_named_in_any_spelling() -> None:
    """A recipe names the tasks of a stream by hand."""
    examples = Examples(list("abcd"), [1, 1, "x ", "x"])
    assert ClassIncremental(examples, examples, tasks=[["1 "], [" x"]]).tasks == [["1"], ["x"]]


def test_a_folder_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    """An archive from another system left a folder whose name is not UTF-8: its class could never be written as JSON."""
    try:
        (tmp_path / os.fsdecode(b"\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system keeps no such name")
    with pytest.raises(DataError, match=r"is not UTF-8; write the class name as text"):
        class_folder(tmp_path)


def test_a_column_of_floats_written_as_text_is_of_whole_numbers() -> None:
    """Three files of one store: labels 5, then 5.0 from a spreadsheet's column with a gap: twice as many classes."""
    assert class_names(["5", "5.0", "10.00", "-3.0"]) == ["5", "5", "10", "-3"]
    assert class_names(["05.0", "1.0.0", "5.05"]) == ["05.0", "1.0.0", "5.05"]
