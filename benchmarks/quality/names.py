"""Accuracy on classes of which the names are known and few examples, beside classes with examples: what a name is worth.

    python benchmarks/quality/names.py [--seeds 10 11 12 13 14]

Banking77 by a frozen MiniLM: 57 intents with 30 examples each are learned, the other 20 by their names, by their first examples,
or by both. Accuracy among all 77 intents, on up to 40 test texts of each. Skipped where the data are not found.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.data.examples import Examples
from newcomer.data.io.text_tables import banking77
from newcomer.experiments.run import commit, machine

COMMAND = "python benchmarks/quality/names.py"
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
NAMED, EACH, TESTED = 20, 30, 40
EXAMPLES = (0, 1, 2, 3, 5, 10, 20)


def first(data: Examples, names: Sequence[str], each: int) -> Examples:
    """The first examples of these classes."""
    seen, rows = dict.fromkeys(names, 0), list[int]()
    for row, label in enumerate(data.labels):
        if seen.get(label, each) < each:
            seen[label] += 1
            rows.append(row)
    return data.select(rows)


def accuracies(
    seed: int, train: Examples, test: Examples, backbone: FrozenBackbone
) -> dict[tuple[str, int, str], float]:
    """By what is learned, the number of examples, and the classes asked for, in percent."""
    classes = sorted(train.classes)
    named = random.Random(seed).sample(classes, NAMED)
    known = [name for name in classes if name not in named]
    asked = {"all": classes, "others": known, "named": named}
    evaluated = {of: first(test, names, TESTED) for of, names in asked.items()}
    found = {}
    for how in ("examples", "names and examples"):
        for count in EXAMPLES:
            learner = FrozenBackbone(backbone.backbone).learn(first(train, known, EACH))
            if how == "names and examples":
                learner.learn_names(named)
            if count:
                learner.learn(first(train, named, count))
            elif how == "examples":
                found[how, count, "others"] = 100 * learner.evaluate(evaluated["others"])["accuracy"]
                continue
            for of, data in evaluated.items():
                found[how, count, of] = 100 * learner.evaluate(data)["accuracy"]
    return found


def measurements(seeds: Sequence[int]) -> Iterator[Measurement]:
    train, test = banking77()
    backbone = FrozenBackbone(BACKBONE)
    by_seed = [accuracies(seed, train, test, backbone) for seed in seeds]
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
