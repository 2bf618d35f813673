"""Class-incremental streams: tasks are disjoint and cover all classes; no evaluation example is trained on."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.examples import Examples, Subset
from newcomer.errors import StreamError
from newcomer.streams.class_incremental import ClassIncremental


def texts(classes: int, each: int, split: str) -> Examples:
    """`each` texts of every class, no text twice; the order mixes the classes."""
    names = [f"class {n}" for n in range(classes)]
    return Examples([f"{split} {name} {i}" for i in range(each) for name in names], names * each)


def made(count: int = 7, each: int = 8, asked: int = 3, **settings: Any) -> ClassIncremental:
    return ClassIncremental(texts(count, each, "train"), texts(count, asked, "test"), **settings)


@given(
    classes=st.integers(1, 12),
    tasks=st.integers(1, 12),
    part=st.integers(1, 12),
    seed=st.integers(0, 99),
    eval_split=st.sampled_from(["test", "validation"]),
)
@settings(max_examples=60, deadline=None)
def test_tasks_are_disjoint_and_cover_all_classes(
    classes: int, tasks: int, part: int, seed: int, eval_split: str
) -> None:
    part, tasks = min(part, classes), min(tasks, min(part, classes))
    stream = made(classes, tasks=tasks, classes=part, seed=seed, eval_split=eval_split)
    names = [name for task in stream.tasks for name in task]
    assert len(names) == len(set(names)) == part
    assert len(stream) == len(list(stream)) == tasks
    sizes = [len(task) for task in stream.tasks]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)  # the first take the remainder
    for t, stage in enumerate(stream):
        assert stage.name == f"task {t}"
        assert set(stage.train.labels) == set(stream.tasks[t])
        assert list(stage.eval_sets) == [f"task {k}" for k in range(t + 1)]
        for k in range(t + 1):
            assert set(stage.eval_sets[f"task {k}"].labels) == set(stream.tasks[k])


@given(
    limits=st.tuples(*[st.none() | st.integers(1, 7)] * 2),
    eval_split=st.sampled_from(["test", "validation"]),
    joint=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_training_and_evaluation_examples_are_disjoint(
    limits: tuple[int | None, int | None], eval_split: str, joint: bool, seed: int
) -> None:
    stream = made(
        tasks=3, eval_split=eval_split, joint=joint, seed=seed, train_per_class=limits[0], eval_per_class=limits[1]
    )
    stages = list(stream)
    trained = [x for stage in stages for x in stage.train.inputs]
    asked = [x for examples in stages[-1].eval_sets.values() for x in examples.inputs]
    assert len(set(trained)) == len(trained)
    assert not set(trained) & set(asked)
    assert all(str(x).startswith("train" if eval_split == "validation" else "test") for x in asked)
    assert stream.info() == {"tasks": stream.tasks, "train_examples": len(trained), "eval_examples": len(asked)}
    for limit, chosen in zip(limits, (stages[-1].train, stages[-1].eval_sets["task 0"]), strict=True):
        assert limit is None or max(Counter(chosen.labels).values()) <= limit


def contents(stream: ClassIncremental) -> list[Any]:
    return [(s.name, list(s.train.inputs), {n: list(e.inputs) for n, e in s.eval_sets.items()}) for s in stream]


def test_the_same_seed_gives_the_same_stages_and_another_gives_others() -> None:
    first = made(tasks=3, seed=1)
    torch.rand(2)
    assert contents(first) == contents(first) == contents(made(tasks=3, seed=1))
    assert made(tasks=3, seed=2).tasks != first.tasks
    assert (
        made(tasks=2, seed=1).tasks[0][:3] == [*first.tasks[0], *first.tasks[1]][:3]
    )  # the order, not the parts, is drawn


def test_fewer_examples_are_the_first_of_those_drawn() -> None:
    many, few = (next(iter(made(tasks=7, train_per_class=n))).train.inputs for n in (6, 2))
    assert list(few) == list(many)[:2]


def test_joint_training_is_one_stage_evaluated_on_all_tasks() -> None:
    stream, apart = made(tasks=3, joint=True), made(tasks=3)
    (stage,) = stream
    assert len(stream) == 1
    assert Counter(stage.train.inputs) == Counter(x for s in apart for x in s.train.inputs)
    assert {n: list(e.inputs) for n, e in stage.eval_sets.items()} == contents(apart)[-1][2]


def test_tasks_may_be_named() -> None:
    named = [["class 2"], ["class 0", "class 1"]]
    stream = ClassIncremental(texts(3, 2, "train"), texts(3, 1, "test"), tasks=named)
    assert stream.tasks == named
    assert [set(stage.train.labels) for stage in stream] == [{"class 2"}, {"class 0", "class 1"}]


def test_training_classes_without_evaluation_examples_may_be_left_out() -> None:
    test = texts(2, 1, "test")
    assert ClassIncremental(texts(3, 2, "train"), test, tasks=[["class 0"], ["class 1"]]).tasks == [
        ["class 0"],
        ["class 1"],
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 0}, "0 tasks of 3 classes would leave a task empty; give at most 3 tasks"),
        ({"tasks": 4}, "4 tasks of 3 classes would leave a task empty"),
        ({"tasks": -1}, "-1 tasks"),
        ({"classes": 4}, r"stream.classes = 4, but there are 3 classes; give a number from 1 to 3"),
        ({"classes": 0}, "stream.classes = 0"),
        ({"train_per_class": 0}, r"stream.train_per_class = 0; give a number from 1 on"),
        ({"eval_per_class": -2}, r"stream.eval_per_class = -2; give a number from 1 on"),
        ({"tasks": []}, "stream.tasks is empty"),
        ({"tasks": [["class 0", "class 1"], [], ["class 2"]]}, "task 2 is empty"),
        ({"tasks": [["class 0", "class 1"], ["class 2", "class 0"]]}, "class 'class 0' occurs 2 times in stream.tasks"),
        ({"tasks": [["class 0", "class 0"], ["class 1", "class 2"]]}, "class 'class 0' occurs 2 times"),
        ({"tasks": [["class 0"], ["class 1", "class 9"]]}, "names class 'class 9', which has no training examples"),
        ({"tasks": [["class 0"], ["class 1"]]}, "test class 'class 2' is in no task"),
        ({"tasks": 1, "eval_split": "validation", "train_per_class": 4}, "has no validation examples"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        made(3, 4, **{"tasks": 3} | settings)
    assert "\n" not in str(caught.value)


def zoo(split: str) -> Examples:
    names = ["bird jay", "bird tit", "cat", "fish eel", "fish *"]
    return Examples(
        [f"{split} {name} {i}" for name in names for i in range(3)], [name for name in names for _ in range(3)]
    )


def test_tasks_and_classes_are_named_by_patterns() -> None:
    """Of a folder with more classes than take part; a class that is itself called like a pattern is that class."""
    stream = ClassIncremental(
        zoo("train"), zoo("test"), tasks=[["bird*"], ["fish *", "cat"]], classes=["bird*", "cat", "fish *"]
    )
    assert stream.tasks == [["bird jay", "bird tit"], ["fish *", "cat"]]
    stream = ClassIncremental(zoo("train"), zoo("test"), tasks=[["fish eel"], ["*"]])
    assert stream.tasks == [["fish eel"], ["bird jay", "bird tit", "cat", "fish *"]]
    of_birds = ClassIncremental(zoo("train"), zoo("test"), tasks=2, classes=["bird*"])
    assert sorted(map(tuple, of_birds.tasks)) == [("bird jay",), ("bird tit",)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": [["bird*"], ["*tit"]], "classes": ["bird*"]}, "class 'bird tit' occurs 2 times"),
        ({"tasks": [["dog*"]]}, r"names class 'dog\*', which has no training examples"),
        ({"tasks": [["bird*"]]}, "test class 'cat' is in no task; .* name those that take part in stream.classes"),
        ({"tasks": 1, "classes": ["dog*"]}, r"stream.classes: no class with training examples is or matches 'dog\*'"),
        ({"tasks": 1, "classes": []}, "stream.classes is empty"),
        ({"tasks": 3, "classes": ["bird*"]}, "3 tasks of 2 classes would leave a task empty"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        ClassIncremental(zoo("train"), zoo("test"), **settings)


def test_a_test_class_that_is_never_trained_is_refused() -> None:
    with pytest.raises(StreamError, match="test class 'class 2' has no training examples"):
        ClassIncremental(texts(2, 2, "train"), texts(3, 1, "test"), tasks=2)


def test_a_class_without_evaluation_examples_is_refused() -> None:
    with pytest.raises(StreamError, match="class 'class 2' has no test examples; add some or leave the class out"):
        ClassIncremental(texts(3, 2, "train"), texts(2, 1, "test"), tasks=3)


def test_a_class_that_validation_would_empty_is_refused() -> None:
    with pytest.raises(StreamError, match="has no training examples"):
        made(3, 1, tasks=3, eval_split="validation")


def test_inputs_are_not_touched_before_they_are_asked_for() -> None:
    class Untouchable(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError(f"input {index} was read")

    train = Examples(Untouchable(["a", "b", "c", "d"]), ["x", "y", "x", "y"])
    stages = list(ClassIncremental(train, train, tasks=2))
    with pytest.raises(AssertionError, match="was read"):
        stages[0].train.inputs[0]


def test_a_slice_of_a_subset_is_a_subset() -> None:
    chosen = Subset(["a", "b", "c", "d"], [3, 1, 0])
    assert list(chosen) == ["d", "b", "a"]
    assert list(chosen[1:]) == ["b", "a"]
    assert (chosen[0], chosen[-1], len(chosen)) == ("d", "a", 3)
