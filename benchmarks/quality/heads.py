"""The same weights read by every head: finished runs of SD-LoRA, looked at again stage by stage.

    python benchmarks/quality/heads.py cifar100-vit-tiny        # makes the models that run.py has not left

The runs' stores are opened at each stage with each head; records go to benchmarks/quality/<recipe>-heads/. A head chosen at
reading time reads the statistics that the run kept, drift map and all; the weights do not know of it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from run import with_models

from figure import one_line
from newcomer.classes.class_memory import HeadName
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.errors import RecipeError
from newcomer.experiments.recipe import Recipe, read_recipe
from newcomer.experiments.report.runs import RECORD, by_row, find_runs
from newcomer.experiments.report.table import result_tables
from newcomer.experiments.run import STORE
from newcomer.store.record import read_record

HERE = Path(__file__).parent


def records(recipe: Recipe, run: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The record that this run would have had with each head."""
    start, *rest = read_record(run / RECORD)
    stages = [event for event in rest if event["event"] == "stage"]
    found: dict[str, list[dict[str, Any]]] = {}
    for place, head in enumerate(get_args(HeadName)):
        filled = start["recipe"] | {"row": head, "learner": start["recipe"]["learner"] | {"head": head}}
        found[head] = [{**start, "recipe": filled, "place": place}]
    backbone = recipe.build_backbone()
    for number, (stage, finished) in enumerate(zip(recipe.build_stream(), stages, strict=True), 1):
        model = SDLoRA.load(run / STORE, stages=number, backbone=backbone)
        seen = {name: (model.features(exam.inputs), exam.labels) for name, exam in stage.exams.items()}
        for head in get_args(HeadName):
            reader = SDLoRA.load(run / STORE, stages=number, backbone=backbone, head=head)
            for name, (features, labels) in seen.items():
                wanted = torch.tensor([reader.classes.index(label) for label in labels])
                right = (reader._logits(features).argmax(1) == wanted).double().mean().item()
                values = {"accuracy": right, "examples": float(len(labels))}
                found[head].append({"event": "score", "stage": stage.name, "exam": name, "values": values})
            found[head].append(dict(finished))
        print(f"{run} · {stage.name}", flush=True)
    yield from ((head, [*events, {"event": "end"}]) for head, events in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    out = HERE / f"{given.recipe}-heads"
    first = read_recipe(given.recipe)
    if first.learner["name"] != SDLoRA.name:
        raise RecipeError(
            f"recipe '{given.recipe}' begins with {first.learner['name']}; give one that begins with sd-lora"
        )
    runs = with_models(given.recipe, [first.row], given.seeds)[first.row]
    for seed, run in zip(given.seeds, runs, strict=True):
        recipe = first.with_seed(seed)
        for head, events in records(recipe, run.folder):
            kept = out / head / f"seed-{seed}" / RECORD
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events), encoding="utf-8")
    for table in result_tables(next(iter(by_row(find_runs([out])).values()))):
        print(f"\n{table.title}\n\n{table.markdown()}\n\n{table.note}\n")


if __name__ == "__main__":
    with one_line():
        main()
