"""Whatever a caller hands over becomes plain lists of known types, in their order, or one line says what was expected."""

import io
import tempfile
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

import newcomer
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples, Input
from newcomer.data.inputs import is_single, load_input
from newcomer.errors import DataError, LearnerError, SettingError

TEXTS = ["my card is lost", "where is my card", "the exchange rate", "rate of the euro"]
LABELS = ["lost", "lost", "rate", "rate"]
SHUFFLED = [3, 1, 0, 2]

CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "generator": iter,
    "numpy": np.array,
    "numpy objects": lambda values: np.array(values, dtype=object),
    "pandas": lambda values: pd.Series(values, index=SHUFFLED),
    "pandas index": pd.Index,
    "pandas categories": lambda values: pd.Series(values, index=SHUFFLED, dtype="category"),
    "polars": pl.Series,
    "polars categories": lambda values: pl.Series(values).cast(pl.Categorical),
}


@pytest.fixture
def learner(tiny: Callable[[str], Path]) -> FrozenBackbone:
    return FrozenBackbone(str(tiny("bert"))).learn(Examples(TEXTS, LABELS))


@pytest.fixture
def seeing(tiny: Callable[[str], Path]) -> FrozenBackbone:
    images = [Image.effect_noise((8, 8), 40 + 40 * k) for k in range(4)]
    return FrozenBackbone(str(tiny("vit"))).learn(Examples(images, LABELS))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_texts_keep_their_own_labels_in_every_container(kind: str, learner: FrozenBackbone) -> None:
    """peft #1729, nolearn #7: a pandas Series whose index is not 0, 1, 2, … gives texts other rows' labels."""
    made = CONTAINERS[kind]
    examples = Examples(made(TEXTS), made(LABELS))
    assert list(examples.inputs) == TEXTS
    assert list(examples.labels) == LABELS
    assert all(type(label) is str for label in examples.labels)
    again = FrozenBackbone(learner.backbone).learn(examples)
    assert torch.equal(again.logits(made(TEXTS)), learner.logits(TEXTS))
    assert again.predict(made(TEXTS)) == learner.predict(TEXTS)


def test_a_frame_that_was_shuffled_is_learned(learner: FrozenBackbone) -> None:
    """peft #1729: a frame after `sample(frac=1)`."""
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS}).sample(frac=1, random_state=3)
    examples = Examples(frame["text"], frame.label)
    assert dict(zip(examples.inputs, examples.labels, strict=True)) == dict(zip(TEXTS, LABELS, strict=True))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 0, 1, 1]),
        np.array([0, 0, 1, 1], dtype=np.uint8),
        torch.tensor([0, 0, 1, 1]),
        [torch.tensor(0), np.int64(0), 1, 1.0],
        pd.Series([0, 0, 1, 1], dtype="Int64"),
        pl.Series([0, 0, 1, 1]),
        [Decimal(0), Decimal("0.00"), Decimal("1.0"), Decimal(1)],
    ],
)
def test_labels_that_are_numbers_can_be_saved(labels: Any, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """nolearn #7: labels of numpy, and hours of learning before `save` raises TypeError; of torch, KeyError."""
    learner = SDLoRA(str(tiny("bert")), rank=2, epochs=1).learn(Examples(TEXTS, labels))
    assert learner.classes == ["0", "1"]
    learner.save(tmp_path / "m")
    assert SDLoRA.load(tmp_path / "m").classes == ["0", "1"]
    assert learner.evaluate(Examples(TEXTS, labels))["examples"] == 4


MISSING = [None, float("nan"), np.nan, pd.NA, pd.NaT, "", "  ", np.ma.masked, Decimal("nan"), np.float32("nan")]


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_label_becomes_no_class(missing: Any) -> None:
    """A user's table had rows without a label: `None` and NaN became classes."""
    with pytest.raises(DataError, match=r"labels\[2\]: a label is missing; give every example a label"):
        Examples(TEXTS, ["a", "b", missing, "a"])


@pytest.mark.parametrize(
    "labels", [pd.Series(["a", None, "b", "b"]), pd.Series([1, None, 2, 2]), pl.Series([1, None, 2, 2])]
)
def test_a_missing_label_of_a_column_becomes_no_class(labels: Any) -> None:
    """The same in a column of pandas or polars."""
    with pytest.raises(DataError, match=r"labels\[1\]: a label is missing"):
        Examples(TEXTS, labels)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (TEXTS, LABELS[:3], "4 inputs, but 3 labels; give one label per input"),
        (TEXTS[:3], LABELS, "3 inputs, but 4 labels"),
        (TEXTS, "abcd", "labels: one str, where a list was expected"),
        ("abcd", LABELS, "inputs: one str, where a list was expected"),
        (TEXTS, {"a", "b", "c", "d"}, "labels: one set, where a list was expected"),
        (TEXTS, dict.fromkeys(TEXTS), "labels: one dict, where a list was expected"),
        (TEXTS, None, "labels: one NoneType, where a list was expected"),
        (TEXTS, 4, "labels: one int, where a list was expected"),
        (TEXTS, torch.eye(4), r"labels\[0\]: a label of type list"),
        (TEXTS, [b"a", b"b", b"a", b"b"], r"labels\[0\]: a label of type bytes"),
        (TEXTS, [0, float("inf"), 1, 1], r"labels\[1\]: inf is not a label"),
        (TEXTS, [0, 2.0**53, 1, 1], r"labels\[1\]: 9007199254740992.0 is a float that has lost digits"),
        (TEXTS, ["a", "\udce9", "b", "b"], r"labels\[1\]: '\\udce9' is not UTF-8"),
        (pd.DataFrame({"text": TEXTS}), LABELS, r"inputs: a table \(DataFrame\); give one of its columns"),
        (TEXTS, pl.DataFrame({"label": LABELS}), r"labels: a table \(DataFrame\)"),
        ([1, 2, 3, 4], LABELS, r"inputs\[0\]: neither a text nor an image, but of type int"),
        ([*TEXTS[:3], None], LABELS, r"inputs\[3\]: missing value"),
        ([*TEXTS[:3], " "], LABELS, r"inputs\[3\]: an empty text"),
        (torch.zeros(4, 3, 8, 8), LABELS, r"inputs\[0\]: neither a text nor an image, but of type list"),
    ],
)
def test_what_cannot_be_examples_is_one_line_before_anything_is_learned(inputs: Any, labels: Any, message: str) -> None:
    """nolearn #7: unequal lengths end in IndexError after the passes over the data."""
    with pytest.raises(DataError, match=message) as caught:
        Examples(inputs, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", [TEXTS, (TEXTS, LABELS), None, "my card", pd.DataFrame({"text": TEXTS})])
def test_a_task_that_is_no_examples_is_one_line(task: Any, learner: FrozenBackbone) -> None:
    """A user called `learn` with a list, as other libraries' `fit` allows."""
    for call in (learner.learn, learner.evaluate):
        with pytest.raises(DataError, match=r"where Examples\(inputs, labels\) were expected"):
            call(task)
    with pytest.raises(LearnerError, match="the evaluation set has no examples"):
        learner.evaluate(Examples([], []))


def test_one_text_has_one_answer(learner: FrozenBackbone) -> None:
    """A user asked `predict_topk("abc")` and got an answer for each of its letters."""
    (wanted,) = learner.predict_topk([TEXTS[0]])
    assert learner.predict_topk(TEXTS[0]) == learner.predict_topk(np.str_(TEXTS[0])) == wanted
    assert learner.predict(TEXTS[0]) == wanted.classes[0]
    assert learner.logits(TEXTS[0]).shape == (1, 2)
    assert learner.predict_proba(TEXTS[0]).shape == (2,)
    assert learner.predict_proba(TEXTS).shape == (4, 2)
    assert learner.predict_proba(TEXTS).sum(1) == pytest.approx(1)
    assert learner.predict_topk([]) == []
    assert learner.predict([]) == []


def test_one_image_has_one_answer_in_every_form(seeing: FrozenBackbone, tmp_path: Path) -> None:
    """A user asked `predict_topk(image)` and got a TypeError; others have a path as text, the bytes of a file, or an array."""
    image = Image.effect_noise((8, 8), 70).convert("RGB")
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    wanted = seeing.predict_topk([image])[0]
    given: list[Any] = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), pixels]
    for one in given:
        assert seeing.predict_topk(one) == seeing.predict_topk([one])[0] == wanted
        assert seeing.predict(one) == wanted.classes[0]
        assert torch.equal(seeing.features([one]), seeing.features([image]))
    assert [one.classes for one in seeing.predict_topk(np.stack([pixels] * 3))] == [wanted.classes] * 3
    grey = np.asarray(image.convert("L"))
    for one in (
        grey,
        grey[:, :, None],
        np.repeat(grey[:, :, None], 3, axis=2),
        np.dstack([*[grey] * 3, grey * 0 + 255]),
    ):
        assert torch.equal(seeing.logits([one]), seeing.logits([Image.fromarray(grey)]))


def test_images_may_be_learned_from_paths_and_arrays(seeing: FrozenBackbone, tmp_path: Path) -> None:
    """A user's list of file names is what he has of his images."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3)).astype(np.uint8)
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for path, one in zip(paths, pixels, strict=True):
        Image.fromarray(one).save(path)
    tasks = [pixels, paths, [str(path) for path in paths], [Image.fromarray(one) for one in pixels]]
    found = [FrozenBackbone(seeing.backbone).learn(Examples(task, [0, 0, 1, 1])).logits(pixels) for task in tasks]
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no-such.png", "no-such.png: no such file; this model reads images"),
        ("a text " * 100, "no such file; this model reads images"),
        (None, "inputs: one NoneType"),
        (7, "inputs: one int"),
        ({"image": 1}, "inputs: one dict"),
        ([None], r"inputs\[0\]: missing value"),
        ([b"no image"], r"inputs\[0\]: not a readable image"),
        (
            np.zeros((8, 8, 3)),
            r"inputs\[0\]: an array of float64 of shape \(8, 8, 3\); give uint8 of height × width × 3",
        ),
        ([np.zeros((3, 8, 8), np.uint8)], r"an array of uint8 of shape \(3, 8, 8\); give uint8 of height × width × 3"),
        ([torch.zeros(3, 8, 8)], r"inputs\[0\]: neither a text nor an image, but of type Tensor"),
    ],
)
def test_what_is_no_image_is_one_line(given: Any, message: str, seeing: FrozenBackbone) -> None:
    """A user's list of images has other things in it."""
    for ask in (seeing.predict, seeing.predict_topk, seeing.predict_proba, seeing.logits, seeing.features):
        with pytest.raises(DataError, match=message):
            ask(given)


@pytest.mark.parametrize("given", [Path("a.png"), Image.new("RGB", (8, 8)), ["my card", Image.new("RGB", (8, 8))]])
def test_a_model_of_texts_reads_no_images(given: Any, learner: FrozenBackbone) -> None:
    """A user's image went to the wrong one of two models."""
    with pytest.raises(LearnerError, match="reads texts, but was given a"):
        learner.predict_topk(given)


@pytest.mark.parametrize("top", [0, -1, 1.5, True, "2", None, float("nan")])
def test_a_number_of_classes_that_is_none_is_named(top: Any, learner: FrozenBackbone) -> None:
    """A user asked for `top=0`."""
    with pytest.raises(SettingError, match=r"predict_topk: top = .*; give a whole number from 1 on"):
        learner.predict_topk(TEXTS, top=top)


@pytest.mark.parametrize("reject", [1.5, -0.1, True, "0.1", float("nan")])
def test_a_share_that_is_none_is_named(reject: Any, learner: FrozenBackbone) -> None:
    """A user asked for `reject=1.5` and got torch's own error about quantiles."""
    with pytest.raises(SettingError, match=r"predict_topk: reject = .*; give a share of known examples from 0 to 1"):
        learner.predict_topk(TEXTS, reject=reject)
    numbers: dict[str, Any] = {"top": np.int64(1), "reject": np.float32(0.5)}
    assert len(learner.predict_topk(TEXTS, **numbers)[0].classes) == 1


def test_answers_go_on_after_what_cannot_be_read(
    learner: FrozenBackbone, seeing: FrozenBackbone, tmp_path: Path
) -> None:
    """A user's service read one damaged upload among others, and nobody got an answer."""
    (tmp_path / "a.png").write_bytes(b"no image")
    image = Image.effect_noise((8, 8), 70)
    cases: list[tuple[ClassLearner, list[Any]]] = [
        (learner, [TEXTS[0], "", None, TEXTS[1]]),
        (seeing, [image, tmp_path / "a.png", tmp_path / "none.png", image]),
    ]
    for model, given in cases:
        found = list(model.iter_predictions(given))
        assert [isinstance(one, DataError) for one in found] == [False, True, True, False]
        right = model.predict_topk([given[0], given[3]])
        assert [one.classes for one in right] == [
            one.classes for one in (found[0], found[3]) if not isinstance(one, Exception)
        ]


def test_sequences_that_read_from_disk_stay_lazy() -> None:
    """A data set too large for memory, handed over as a sequence of its own."""

    class Lazy(list[Input]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError(f"{index} was read")

        def __iter__(self) -> Any:
            raise AssertionError("all was read")

    assert len(Examples(Lazy(["a", "b"]), ["x", "y"]).select([1])) == 1


def test_examples_come_from_a_folder_or_a_table(tmp_path: Path) -> None:
    """Users look for the way from their own folder to a task."""
    for name in ("wren", "tit"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "birds" / name / "1.png")
    assert newcomer.Examples.from_folder(str(tmp_path / "birds")).labels == ["tit", "wren"]
    pl.DataFrame({"question": TEXTS, "intent": LABELS}).write_csv(tmp_path / "a.csv")
    found = Examples.from_table(tmp_path / "a.csv", text="question", label="intent")
    assert (list(found.inputs), found.labels) == (TEXTS, LABELS)


def test_columns_are_not_read_by_their_index() -> None:
    """nolearn #7: `column[i]` of a pandas Series asks its index."""

    def values(given: Iterable[Any]) -> list[Any]:
        return list(Examples(given, LABELS).inputs)

    series = pd.Series(TEXTS, index=[1, 0, 3, 2])
    assert values(series) == values(series.to_numpy()) == TEXTS
    assert series[0] == TEXTS[1]


def test_an_open_file_is_the_image_that_it_holds(tmp_path: Path) -> None:
    """A web framework hands over open files: each line of one was taken for an image."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    with (tmp_path / "red.png").open("rb") as file:
        assert is_single(file)
        assert load_input(file, True, "upload").getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(DataError, match="upload: an open file that cannot be read"):
        load_input(file, True, "upload")
    with (tmp_path / "red.png").open(encoding="latin-1") as text, pytest.raises(DataError, match="open it with 'rb'"):
        load_input(text, True, "upload")


def test_open_files_are_read_from_their_beginning_whatever_their_type(seeing: FrozenBackbone, tmp_path: Path) -> None:
    """A file that was read before, and what only reads like a file."""
    Image.effect_noise((8, 8), 70).convert("RGB").save(tmp_path / "a.png")
    wanted = seeing.predict_topk([tmp_path / "a.png"])[0]
    with (tmp_path / "a.png").open("rb") as opened, tempfile.SpooledTemporaryFile() as spooled:
        opened.read(5)
        spooled.write((tmp_path / "a.png").read_bytes())
        reader: Any = Reader(opened)
        assert seeing.predict(opened) == seeing.predict(reader) == wanted.classes[0]
        both: list[Any] = [opened, spooled, io.BytesIO((tmp_path / "a.png").read_bytes())]
        assert seeing.predict_topk(both) == seeing.predict_topk([tmp_path / "a.png"] * 3)
        for one in (opened, reader):
            with pytest.raises(DataError, match="inputs: one open file, where a list was expected"):
                Examples(one, ["a"])


class Reader:
    """Not an `io.IOBase`."""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.seekable = file.read, file.seek, file.seekable


def test_bytes_are_no_text(learner: FrozenBackbone) -> None:
    """A model that reads texts was given an open file: an error of its tokenizer."""
    for given in (b"a card", io.BytesIO(b"a card")):
        with pytest.raises(DataError, match=r"inputs\[0\]: bytes, but this model reads texts; decode them"):
            learner.predict_topk(given)
