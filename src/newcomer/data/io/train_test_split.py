"""Split of examples that come in one part."""

from typing import Annotated

from pydantic import Field

from newcomer.data.examples import Examples
from newcomer.errors import DataError
from newcomer.seeds import shuffled

Part = Annotated[float, Field(gt=0, lt=1)]
"""Share above 0 and below 1."""

TEST_SHARE = 0.2
"""Share of each class's examples that is tested on, where none is given."""


def stratified(examples: Examples, share: float | None, seed: int, where: str) -> tuple[Examples, Examples]:
    """Training and test examples: `share` of each class, drawn from the seed, is for testing; one at least, and never all.

    A class of a single example is trained on alone. Of examples with domains it is the share of each class in each domain.
    `where` begins the error message.

    >>> train, test = stratified(Examples(list("abcdefg"), [*"xxxxx", "y", "z"]), None, 0, "letters")
    >>> sorted(train.labels), test.labels
    (['x', 'x', 'x', 'x', 'y', 'z'], ['x'])

    Raises DataError if no class has a second example.
    """
    kinds = zip(examples.domains, examples.labels, strict=True) if examples.domains else zip(examples.labels)
    members: dict[tuple[str, ...], list[int]] = {}
    for index, kind in enumerate(kinds):
        members.setdefault(kind, []).append(index)
    test: list[int] = []
    for kind, rows in members.items():
        count = min(len(rows) - 1, max(1, round((TEST_SHARE if share is None else share) * len(rows))))
        test += [rows[i] for i in shuffled(len(rows), seed, "test part", *kind)[:count]]
    if not test:
        raise DataError(f"{where}: no class has two examples, so none can be tested on; add some, or give a test part")
    held = set(test)
    return examples.select([i for i in range(len(examples)) if i not in held]), examples.select(sorted(held))


def require_no_share(share: float | None, where: str) -> None:
    """Raises DataError if a share is given where there is a test part."""
    if share is not None:
        raise DataError(f"{where}: has a test part of its own, but test_share = {share:g}; leave one of them out")
