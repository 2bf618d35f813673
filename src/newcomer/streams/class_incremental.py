"""Class-incremental stream: classes arrive task by task."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from newcomer.data.class_names import class_names, matching
from newcomer.data.examples import Examples
from newcomer.errors import StreamError
from newcomer.settings import Json
from newcomer.streams.draws import EvalSplit, Key, draw_parts, drawn_classes, named_classes, require_trained
from newcomer.streams.stage import Stage


class ClassIncremental:
    """Stage t trains on the classes of task t and evaluates on the tasks so far.

    - `tasks`: a number, for equal parts of the classes in an order drawn from the seed (the first tasks take the remainder),
      or the classes of each task by name or pattern, such as 'n01*' for all that begin so and are not named in any task.
    - `classes`: how many classes take part, the first in that order, or which, by name or pattern; all by default.
    - `train_per_class`, `eval_per_class`: at most so many examples of each class, drawn from the seed; all by default.
    - `eval_split`: 'test' or 'validation'; the latter is held out from the training examples, for model selection.
    - `joint`: one stage that trains on all classes and evaluates on all tasks: the joint-training upper bound.

    Raises StreamError for a label in two tasks, an empty task, a test class that is never trained on, and too few examples.
    """

    def __init__(
        self,
        train: Examples,
        test: Examples,
        *,
        tasks: int | list[list[str]] = 5,
        classes: int | list[str] | None = None,
        train_per_class: int | None = None,
        eval_per_class: int | None = None,
        eval_split: EvalSplit = "test",
        joint: bool = False,
        seed: int = 0,
    ) -> None:
        require_trained(train.labels, test.labels)
        known = train.classes
        if isinstance(classes, list):
            known, classes = named_classes(classes, known), None
        self.tasks = _named(tasks, known) if isinstance(tasks, list) else _drawn(tasks, classes, known, seed)
        left_out = set(known) - {name for task in self.tasks for name in task}
        if isinstance(tasks, list) and (never := sorted(left_out & set(test.labels))):
            raise StreamError(
                f"test class '{never[0]}' is in no task; add it to stream.tasks, or name those that take part in stream.classes"
            )
        self.joint = joint
        self._train, self._eval = draw_parts(
            train,
            test,
            lambda examples: ((label,) for label in examples.labels),
            train_per_class=train_per_class,
            eval_per_class=eval_per_class,
            eval_split=eval_split,
            seed=seed,
        )
        for name in (name for task in self.tasks for name in task):
            for drawn_from, kind in ((self._train, "training"), (self._eval, eval_split)):
                if not drawn_from.count((name,)):
                    raise StreamError(f"class '{name}' has no {kind} examples; add some or leave the class out")

    def __len__(self) -> int:
        return 1 if self.joint else len(self.tasks)

    def __iter__(self) -> Iterator[Stage[Examples, Examples]]:
        eval_sets = {f"task {t}": self._eval.of(_keys(task)) for t, task in enumerate(self.tasks)}
        if self.joint:
            yield Stage("all tasks", self._train.of(_keys(name for task in self.tasks for name in task)), eval_sets)
            return
        for t, task in enumerate(self.tasks):
            train = self._train.of(_keys(task))
            yield Stage(f"task {t}", train, {f"task {k}": eval_sets[f"task {k}"] for k in range(t + 1)})

    def info(self) -> dict[str, Json]:
        """The classes of every task, and how many examples they are trained and evaluated on."""
        names = _keys(name for task in self.tasks for name in task)
        return {
            "tasks": self.tasks,
            "train_examples": len(self._train.of(names)),
            "eval_examples": len(self._eval.of(names)),
        }


def _keys(classes: Iterable[str]) -> list[Key]:
    return [(name,) for name in classes]


def _named(tasks: list[list[str]], known: Sequence[str]) -> list[list[str]]:
    given = [class_names(task, "stream.tasks") for task in tasks]
    named = {name for task in given for name in task if name in known}
    # what matches nothing stays, and is refused below as a name that is not known
    tasks = [[one for name in task for one in matching(name, known, named) or [name]] for task in given]
    counts = Counter(name for task in tasks for name in task)
    for name, count in counts.items():
        if name not in known:
            raise StreamError(f"stream.tasks names class '{name}', which has no training examples")
        if count > 1:
            raise StreamError(f"class '{name}' occurs {count} times in stream.tasks; every class belongs to one task")
    for index, task in enumerate(tasks):
        if not task:
            raise StreamError(f"stream.tasks: task {index + 1} is empty; give it classes or remove it")
    if not tasks:
        raise StreamError("stream.tasks is empty; give a number or the classes of each task")
    return [list(task) for task in tasks]


def _drawn(tasks: int, classes: int | None, known: Sequence[str], seed: int) -> list[list[str]]:
    order = drawn_classes(classes, known, seed)
    count = len(order)
    if not 0 < tasks <= count:
        raise StreamError(f"{tasks} tasks of {count} classes would leave a task empty; give at most {count} tasks")
    sizes = [count // tasks + (t < count % tasks) for t in range(tasks)]
    starts = [sum(sizes[:t]) for t in range(tasks)]
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True)]
