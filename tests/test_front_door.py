"""Examples of frames and datasets, the representation of objects, and progress callbacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

from newcomer import DataError, DataWarning, Examples, FrozenBackbone, IdTuning, ItemService, SDLoRA
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.training.learner import Step


class Dataset:
    """Rows with `features` and `column_names`, as Hugging Face `datasets` has them; counts the rows that are read."""

    def __init__(self, columns: Mapping[str, list[Any]], features: Mapping[str, Any]) -> None:
        self.columns, self.features, self.column_names, self.read = columns, features, list(columns), list[int]()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        self.read.append(key)
        return {name: values[key] for name, values in self.columns.items()}


class ClassLabel:
    names = ("cat", "dog")


class Value:
    dtype = "string"


ImageFeature = type("Image", (), {"dtype": "PIL.Image.Image"})


def image(value: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (value, value, value))


def test_both_kinds_of_frames_give_the_same_examples() -> None:
    columns = {"question": ["my card", "no money", "a card"], "intent": ["lost", "failed", "lost"], "n": [1, 2, 3]}
    for frame in (pl.DataFrame(columns), pl.DataFrame(columns).lazy(), pd.DataFrame(columns, index=[7, 8, 9])):
        examples = Examples.from_frame(frame, input="question", label="intent")
        assert list(examples.inputs) == columns["question"]
        assert examples.labels == columns["intent"]


@pytest.mark.filterwarnings("ignore:.*no new class has two examples")
def test_a_frame_may_hold_paths_and_images(tmp_path: Path) -> None:
    image(0).save(tmp_path / "black.png")
    path, white = tmp_path / "black.png", image(255)
    examples = Examples.from_frame(pd.DataFrame({"image": [path, white], "label": [0, 1]}), input="image")
    assert list(examples.inputs) == [path, white]
    learner = FrozenBackbone("micro-vit").learn(examples)
    assert learner.predict([white, path]) == ["1", "0"]


def test_errors_of_a_frame_are_named() -> None:
    frame = pl.DataFrame({"text": ["a", None], "label": ["x", "y"]})
    with pytest.raises(DataError, match=r"^frame: no column 'labels'; did you mean 'label'\?$"):
        Examples.from_frame(frame, label="labels")
    with pytest.raises(DataError, match="missing value"):
        Examples.from_frame(frame)
    with pytest.raises(DataError, match="frame: of type list, where a polars or pandas frame was expected"):
        Examples.from_frame([1])


def test_a_datasets_images_are_read_when_used_and_its_class_numbers_have_names() -> None:
    rows = Dataset(
        {"image": [image(0), image(250), image(5)], "caption": ["a", "b", "c"], "label": [1, 0, np.int64(1)]},
        {"image": ImageFeature(), "caption": Value(), "label": ClassLabel()},
    )
    examples = Examples.from_dataset(rows)
    assert examples.labels == ["dog", "cat", "dog"]
    assert not rows.read
    assert examples.inputs[-1] is rows.columns["image"][2]
    assert rows.read == [2]
    assert list(examples.select([1]).inputs[:5]) == [rows.columns["image"][1]]
    learner = FrozenBackbone("micro-vit").learn(examples)
    assert learner.predict(image(249)) == "cat"


def test_rows_are_mappings_and_an_encoded_image_is_its_bytes_or_its_path(tmp_path: Path) -> None:
    image(0).save(tmp_path / "black.png")
    content = (tmp_path / "black.png").read_bytes()
    rows = [
        {"img": {"bytes": content, "path": "elsewhere.png"}, "kind": "x"},
        {"img": {"bytes": None, "path": str(tmp_path / "black.png")}, "kind": "y"},
    ]
    examples = Examples.from_dataset(rows, label="kind")
    assert list(examples.inputs) == [content, tmp_path / "black.png"]
    assert examples.labels == ["x", "y"]
    texts = Examples.from_dataset([{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    assert (list(texts.inputs), texts.labels) == (["a", "b"], ["1", "0"])


def test_errors_of_a_dataset_are_named() -> None:
    two = Dataset(
        {"title": ["a"], "body": ["b"], "label": [-1]}, {"title": Value(), "body": Value(), "label": ClassLabel()}
    )
    with pytest.raises(DataError, match="rows: columns title, body could be the input; give input='title'"):
        Examples.from_dataset(two)
    with pytest.raises(DataError, match=r"rows\[0\]: label -1, where a number from 0 to 1 was expected"):
        Examples.from_dataset(two, input="body")
    with pytest.raises(DataError, match=r"rows: no column 'bodi'; did you mean 'body'\?"):
        Examples.from_dataset(two, input="bodi")
    with pytest.raises(
        DataError, match=r"a dict is not a sequence of rows; give one split, such as dataset\['train'\]"
    ):
        Examples.from_dataset({"train": two})
    with pytest.raises(DataError, match="a generator is not a sequence of rows"):
        Examples.from_dataset(row for row in [{"text": "a", "label": 0}])
    with pytest.raises(DataError, match="rows: no column of images or texts among n"):
        Examples.from_dataset([{"n": 3, "label": 0}])


def test_examples_and_learners_say_what_they_are(tasks: list[Examples]) -> None:
    assert repr(tasks[0]) == "Examples(12 inputs, 2 classes: '0', '1')"
    assert repr(Examples(["a"] * 5, range(5))) == "Examples(5 inputs, 5 classes: '0', '1', '2', '3', …)"
    assert repr(Examples([], [])) == "Examples(0 inputs, 0 classes)"
    assert repr(Examples(["a"], ["x\x1b"])) == r"Examples(1 input, 1 class: 'x\x1b')"
    learner = SDLoRA("micro-vit", rank=1, epochs=1)
    assert repr(learner) == "SDLoRA('micro-vit', no classes)"
    learner.learn(tasks[0]).learn(tasks[1])
    assert repr(learner) == "SDLoRA('micro-vit', 4 classes after 2 tasks: '0', '1', '2', '3')"
    assert repr(learner.forget("0")) == "SDLoRA('micro-vit', 3 classes after 2 tasks: '1', '2', '3')"


def test_progress_gets_every_step_of_a_class_learner(tasks: list[Examples]) -> None:
    steps: list[Step] = []
    SDLoRA("micro-vit", rank=1, epochs=2, batch_size=4).learn(tasks[0], progress=steps.append)
    trained = [step for step in steps if step.part == "task 0"]
    assert [(step.step, step.steps) for step in trained] == [(n, 6) for n in range(1, 7)]
    assert all("loss" in step.values for step in trained)


def test_an_error_in_the_callback_leaves_the_learner_as_it_was(tasks: list[Examples]) -> None:
    learner = FrozenBackbone("micro-vit").learn(tasks[0])

    def fails(step: Step) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        learner.learn(tasks[1], progress=fails)
    assert learner.classes == ["0", "1"]
    learner.learn(tasks[1])
    assert learner.classes == ["0", "1", "2", "3"]


def test_item_learner_and_service_say_what_they_are_and_report_progress(tmp_path: Path) -> None:
    log = simulate_click_log(old_items=20, old_events=20, new_items=2, users=50)
    steps: list[Step] = []
    learner = IdTuning(log.schema, meta_epochs=0)
    fields = len(log.schema.nodes)
    assert repr(learner) == f"IdTuning({fields} fields, not trained)"
    learner.learn(log, progress=steps.append)
    assert steps
    assert all(0 < step.step <= step.steps and step.part for step in steps)
    assert repr(learner) == f"IdTuning({fields} fields, {len(log.items)} items)"
    learner.save(tmp_path / "clicks")
    service = ItemService.open(tmp_path / "clicks", "sqlite://")
    assert repr(service) == f"ItemService({learner!r}, model='{service.model}')"
    service.close()


def test_examples_that_are_learned_twice_are_reported(tasks: list[Examples]) -> None:
    """In whatever order; not after one of their classes was forgotten."""
    model = FrozenBackbone("micro-vit").learn(tasks[0]).learn(tasks[1])
    backwards = Examples(list(tasks[0].inputs)[::-1], list(tasks[0].labels)[::-1])
    with pytest.warns(DataWarning, match="these are the examples of task 1, learned again: they count twice"):
        model.learn(backwards)
    with pytest.warns(DataWarning, match="these are the examples of task 3"):
        model.learn(Examples(list(tasks[0].inputs), tasks[0].labels))
    model.forget(tasks[0].classes[0]).learn(Examples(list(tasks[0].inputs), tasks[0].labels))
