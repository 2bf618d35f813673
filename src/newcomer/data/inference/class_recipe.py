"""A recipe for a user's own pictures or texts: tasks, method, head and epochs by what there is of them."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from newcomer.data.examples import Examples
from newcomer.errors import DataError

MOST_TASKS = 5
BATCH = 32
STEPS = 100
"""Gradient steps that a task should have; a pass over large data has more."""
FEWEST_EPOCHS, MOST_EPOCHS = 2, 20
FEW = 3
"""Examples of the smallest class below which a class's own covariance says nothing: the nearest mean by angle is safest."""


@dataclass(frozen=True)
class ClassProposal:
    """Recipe for examples of classes, with reasons."""

    path: str
    """Of the folder or table, as given."""
    reads_images: bool
    columns: tuple[str, str]
    """Text and label, of a table."""
    has_test: bool
    """Whether the folder has a test part of its own."""
    counts: dict[str, int]
    """Training examples of each class."""
    smallest: int
    """Training examples of the smallest class, in the domain where it has the fewest."""
    domains: Sequence[str] = ()
    """The domains of a folder that has some; each is a task."""
    is_complete: bool = True
    """Whether every domain has every class."""

    @property
    def tasks(self) -> int:
        """The domains, or at most five of two classes or more."""
        return len(self.domains) or max(1, min(MOST_TASKS, len(self.counts) // 2))

    @property
    def epochs(self) -> int:
        """As many as give each task `STEPS` steps, within bounds."""
        steps = max(1, sum(self.counts.values()) // self.tasks // BATCH)
        return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(STEPS / steps)))

    @property
    def head(self) -> str:
        """Among heads none can be chosen by the examples of a class that has hardly any to hold out."""
        return "prototypes" if self.smallest < FEW else "auto"

    def lines(self) -> Iterator[str]:
        """The recipe in TOML."""
        what = "domain-folder" if self.domains else "image-folder" if self.reads_images else "text-table"
        yield f"title = {_toml(f'{Path(self.path).name}, {len(self.counts)} classes in {_tasks(self.tasks)}')}"
        yield "seeds = 3"
        yield ""
        yield "[data]"
        yield f'name = "{what}"'
        if self.reads_images:
            yield f"path = {_toml(self.path)}"
        else:
            yield f"train = {_toml(self.path)}"
            yield f"text = {_toml(self.columns[0])}"
            yield f"label = {_toml(self.columns[1])}"
        if not self.has_test:
            yield "test_share = 0.2  # of each class, drawn from `seed`: there is no test part"
        yield ""
        yield "[stream]"
        if self.domains:
            yield 'name = "domain-incremental"  # the same classes, in one domain after the other'
            yield f"domains = {_toml(list(self.domains))}  # in this order; without this line in one drawn from the seed"
            if not self.is_complete:
                yield "complete = false  # some domains lack a class; the first must have them all"
        else:
            yield f'tasks = {self.tasks}  # or the classes of each by name or pattern: [["a*"], ["b", "c"]]'
        yield ""
        yield "[backbone]"
        model = "google/vit-base-patch16-224" if self.reads_images else "sentence-transformers/all-MiniLM-L6-v2"
        yield f'name = "{model}"  # or another, by its name on the hub or its folder'
        yield ""
        yield "[learner]"
        yield 'name = "sd-lora"'
        yield f'head = "{self.head}"  # the smallest class has {self.smallest} examples'
        yield 'adapt = "auto"  # trains the backbone only where that helps examples held out of the first task'
        yield f"epochs = {self.epochs}"
        yield f"batch_size = {BATCH}"
        if self.reads_images:
            yield '# augment = "crop" mirrors half of the pictures, "crop-only" none: handwriting, printed text'
        yield ""
        yield "# what sd-lora has to be better than, run by --baselines"
        yield "[baselines.frozen.learner]"
        yield 'name = "frozen"'
        yield f'head = "{self.head}"'
        yield ""
        yield "[baselines.simple-cil.learner]"
        yield 'name = "frozen"'
        yield 'head = "prototypes"'


def propose_classes(
    path: Path, examples: Examples, *, reads_images: bool, columns: tuple[str, str], has_test: bool
) -> ClassProposal:
    """A recipe for these training examples; of examples with domains, which have the same classes, for one domain after the other.

    Raises DataError for a single class or domain.
    """
    counts = dict(sorted(Counter(examples.labels).items()))
    if len(counts) < 2:
        raise DataError(f"{path}: has one class, '{next(iter(counts))}'; a stream needs two or more")
    by_domain = Counter(zip(examples.domains or [""] * len(examples), examples.labels, strict=True))
    classes = Counter(domain for domain, _ in by_domain)
    domains = sorted(classes, key=lambda name: (-classes[name], name)) if examples.domains else []
    if len(domains) == 1:
        raise DataError(f"{path}: has one domain, '{domains[0]}'; give its folder, {path}/{domains[0]}")
    is_complete = len(set(classes.values())) == 1
    smallest = min(by_domain.values())
    return ClassProposal(str(path), reads_images, columns, has_test, counts, smallest, domains, is_complete)


def write_class_recipe(proposal: ClassProposal, path: Path) -> None:
    """Write the recipe; `newcomer run` accepts it as it is.

    Raises DataError if the file cannot be written.
    """
    try:
        path.write_text("\n".join(proposal.lines()) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _toml(text: str | list[str]) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
