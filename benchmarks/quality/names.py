"""Accuracy on classes of which the names are known and few examples, beside classes with examples: what a name is worth.

    python benchmarks/quality/names.py [--seeds 10 11 12 13 14]

Banking77 by a frozen MiniLM: 57 intents with 20 examples each are learned, the other 20 by their names, by their first examples,
or by both. Accuracy among all 77 intents, on 20 test texts of each. Skipped where the data are not found.
"""

import argparse
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.backbones.backbone import Backbone
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.data.io.text_tables import banking77
from newcomer.experiments.run import commit, machine

COMMAND = "python benchmarks/quality/names.py"
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
NAMED, EACH, TESTED = 20, 20, 20
EXAMPLES = (0, 1, 2, 5, 10, 20)


def first(data: Examples, names: Sequence[str], each: int) -> Examples:
    """The first examples of these classes."""
    seen, rows = dict.fromkeys(names, 0), list[int]()
    for row, label in enumerate(data.labels):
        if seen.get(label, each) < each:
            seen[label] += 1
            rows.append(row)
    return data.select(rows)


def accuracies(
    seed: int, train: Examples, test: Examples, backbone: Backbone, folder: Path
) -> dict[tuple[str, int, str], float]:
    """By what is learned, the number of examples, and the classes asked for, in percent."""
    classes = sorted(train.classes)
    named = random.Random(seed).sample(classes, NAMED)
    known = [name for name in classes if name not in named]
    right = first(test, classes, TESTED)
    is_named = np.isin(right.labels, named)
    FrozenBackbone(backbone).learn(first(train, known, EACH)).save(folder)
    found: dict[tuple[str, int, str], float] = {}
    for by_name, count in itertools.product((False, True), EXAMPLES):
        learner = FrozenBackbone.load(folder, backbone=backbone)
        if by_name:
            learner.learn_names(named)
        if count:
            learner.learn(first(train, named, count))
        is_right = np.array(learner.predict(right.inputs)) == np.array(right.labels)
        how = "names and examples" if by_name else "examples"
        for of, rows in (("all", slice(None)), ("the others", ~is_named), ("them", is_named)):
            found[how, count, of] = 100 * float(is_right[rows].mean())
    return found


def measurements(seeds: Sequence[int]) -> Iterator[Measurement]:
    train, test = banking77()
    backbone = Backbone(BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        by_seed = [accuracies(seed, train, test, backbone, Path(folder) / str(seed)) for seed in seeds]
    for how, count, of in by_seed[0]:
        values = [found[how, count, of] for found in by_seed]
        name = f"{NAMED} intents by {how}, {count} examples each, accuracy on {of}"
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        mean = round(float(np.mean(values)), 2)
        yield Measurement(name, mean, "%", COMMAND, seeds, machine(), commit(), std=std, better="higher")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    with one_line():
        emit(measurements(parser.parse_args().seeds))
