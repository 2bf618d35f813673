"""What takes part in a stream of classes: classes by name or drawn, and examples of each, drawn from the seed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from newcomer.data.class_names import class_names, matching
from newcomer.data.examples import Examples
from newcomer.errors import StreamError, nearest
from newcomer.seeds import shuffled

Key = tuple[str, ...]
"""What examples are drawn of: (class,), or (domain, class)."""
EvalSplit = Literal["test", "validation"]


class Drawn:
    """At most `limit` examples of each key, in the order drawn."""

    def __init__(self, examples: Examples, by_key: Mapping[Key, Sequence[int]], limit: int | None) -> None:
        self.examples = examples
        self.by_key = {key: indices[:limit] for key, indices in by_key.items()}

    def count(self, key: Key) -> int:
        return len(self.by_key.get(key, ()))

    def of(self, keys: Iterable[Key]) -> Examples:
        """The examples of these keys; those of which there are none are passed over."""
        return self.examples.select([i for key in keys for i in self.by_key.get(key, ())])


def draw_parts(
    train: Examples,
    test: Examples,
    keys: Callable[[Examples], Iterable[Key]],
    *,
    train_per_class: int | None,
    eval_per_class: int | None,
    eval_split: EvalSplit,
    seed: int,
) -> tuple[Drawn, Drawn]:
    """What is trained on, and what is evaluated on: at most so many examples of each key, in an order drawn from the seed.

    Validation examples are training examples that are left out of training: those after the first `train_per_class`, else a
    quarter. Raises StreamError for a limit below 1.
    """
    for limit, value in (("train_per_class", train_per_class), ("eval_per_class", eval_per_class)):
        if value is not None and value < 1:
            raise StreamError(f"stream.{limit} = {value}; give a number from 1 on, or leave it out for all")
    drawn = _by_key(keys(train), seed, "train")
    if eval_split == "test":
        return Drawn(train, drawn, train_per_class), Drawn(test, _by_key(keys(test), seed, "test"), eval_per_class)
    pools = {key: drawn[key][train_per_class:] if train_per_class else drawn[key][::4] for key in drawn}
    asked = {key: set(pool) for key, pool in pools.items()}
    remaining = {key: [i for i in drawn[key] if i not in asked[key]] for key in drawn}
    return Drawn(train, remaining, train_per_class), Drawn(train, pools, eval_per_class)


def require_trained(train: Iterable[str], test: Iterable[str], what: str = "class") -> None:
    """Raises StreamError for a class (or `what` else) of the test examples that no training example has."""
    if never := sorted(set(test) - set(train)):
        raise StreamError(f"test {what} '{never[0]}' has no training examples; add some or remove it from the test set")


def named_classes(patterns: list[str], known: Sequence[str]) -> list[str]:
    """The known classes of these names and patterns, in their order.

    Raises StreamError for what matches none.
    """
    found = set[str]()
    for pattern in class_names(patterns, "stream.classes"):
        matched = matching(pattern, known)
        if not matched:
            raise StreamError(
                f"stream.classes: no class with training examples is or matches '{pattern}'; {nearest(pattern, known)}"
            )
        found |= set(matched)
    if not found:
        raise StreamError("stream.classes is empty; name the classes that take part, or leave it out for all")
    return [name for name in known if name in found]


def drawn_classes(count: int | None, known: Sequence[str], seed: int) -> list[str]:
    """The first so many of the known classes, all by default, in an order drawn from the seed.

    Raises StreamError for more than there are, and for none.
    """
    count = len(known) if count is None else count
    if not 0 < count <= len(known):
        raise StreamError(
            f"stream.classes = {count}, but there are {len(known)} classes; give a number from 1 to {len(known)}"
        )
    return [known[i] for i in shuffled(len(known), seed, "stream", "class order")][:count]


def _by_key(keys: Iterable[Key], seed: int, split: str) -> dict[Key, list[int]]:
    """The examples of each key in an order that depends on seed, split and key alone."""
    members: dict[Key, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    return {key: [members[key][i] for i in shuffled(len(members[key]), seed, "stream", split, *key)] for key in members}
