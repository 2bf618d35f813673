"""What titles bring to new films of MovieLens latest-small: none, their words, or the features of a frozen text encoder.

    python benchmarks/quality/titles.py --encoder FOLDER [--path ml-latest-small] [--seeds 5]      # such as all-MiniLM-L6-v2

EmerG with the settings that the recipe's comparison chose; each row's share of events without their title is chosen on validation
items of two other draws. Differences of the encoder from both are paired by seed.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))
from measurement import Measurement, emit, one_line
from newcomer.data.click_log import ClickLog, Column
from newcomer.data.datasets.movielens import movielens_latest
from newcomer.data.paths import locate
from newcomer.data.schema import Field
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.run import commit, machine
from newcomer.items.methods.emerg import EmerG
from newcomer.metrics.paired import paired_test
from newcomer.streams.cold_start import ColdStart

COMMAND = "python benchmarks/quality/titles.py --encoder FOLDER"
RECIPE = read_recipe("ml-latest-small").with_chosen()
DROPOUT = (0.0, 0.5, 0.9)
VALIDATION_SEEDS = (100, 101)
PHASES = ("cold", "warm-a", "warm-b", "warm-c")


def rows(path: str, encoder: str) -> dict[str, ClickLog]:
    """The log with each row's titles."""
    words = movielens_latest(path)
    others = tuple(field for field in words.schema.fields if field.name != "title")
    movies = pl.read_csv(locate(path, "MovieLens latest", "unpack it") / "movies.csv", infer_schema=False)
    title = {item: re.sub(r"\s*\(\d{4}\)\s*$", "", text) for item, text, _ in movies.iter_rows()}
    columns = {**words.items.columns, "title": Column.of_names([title[item] for item in words.items.ids])}
    encoded = replace(words.schema, fields=(*others, Field("title", "item", "text", encoder=encoder)))
    return {
        "words": words,
        "encoder": replace(words, schema=encoded, items=replace(words.items, columns=columns)),
        "none": replace(words, schema=replace(words.schema, fields=others)),
    }


def aucs(log: ClickLog, seed: int, dropout: float, eval_split: str) -> list[float]:
    """AUC after each phase."""
    stream = ColdStart(log, **{**RECIPE.stream, "eval_split": eval_split}, seed=seed)
    settings: dict[str, Any] = {key: value for key, value in RECIPE.learner.items() if key != "name"}
    settings["field_dropout"] = {"title": dropout} if dropout else {}
    learner = EmerG(log.schema, **settings, seed=seed)
    found = []
    for stage in stream:
        for _ in learner.fit_stage(stage):
            pass
        found += [learner.evaluate(data)["auc"] for data in stage.eval_sets.values()]
    return found


def measurements(logs: Mapping[str, ClickLog], seeds: Sequence[int]) -> Iterator[Measurement]:
    found = dict[str, np.ndarray]()
    for name, log in logs.items():
        trials = {
            dropout: np.mean([aucs(log, seed, dropout, "validation") for seed in VALIDATION_SEEDS])
            for dropout in (DROPOUT if name != "none" else DROPOUT[:1])
        }
        chosen = max(trials, key=lambda dropout: trials[dropout])
        print(f"{name}: {trials}, {chosen} is chosen", file=sys.stderr, flush=True)
        found[name] = np.array([aucs(log, seed, chosen, "test") for seed in seeds])
        print(f"{name}: {found[name].mean(axis=0).round(4)}", file=sys.stderr, flush=True)
    for name in logs:
        for phase, values in zip(PHASES, found[name].T, strict=True):
            title = f"ml-latest-small, titles: {name}, {phase}, AUC"
            info = (COMMAND, list(seeds), machine(), commit())
            std = round(float(values.std(ddof=1)), 5)
            yield Measurement(title, round(float(values.mean()), 5), "1", *info, std=std, better="higher")
            for other in logs if name == "encoder" else ():
                if other != name:
                    test = paired_test(values - found[other][:, PHASES.index(phase)])
                    difference = f"{test.mean:+.4f} ({test.low:+.4f} to {test.high:+.4f}), p {test.p:.3g}"
                    print(f"{title} − {other}: {difference}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--path", default="ml-latest-small")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    emit(measurements(rows(args.path, args.encoder), range(args.seeds)))


if __name__ == "__main__":
    with one_line():
        main()
