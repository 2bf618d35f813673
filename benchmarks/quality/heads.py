"""Every head on the same weights: finished SD-LoRA runs, evaluated again after every stage.

    python benchmarks/quality/heads.py cifar100-vit-tiny        # makes the models that run.py has not left

The store of a run is loaded at each stage with each head; records go to benchmarks/quality/<recipe>-heads/. A head chosen at
loading uses the class statistics of the run, drift map included; the weights were trained with another head.
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

from measurement import one_line
from newcomer.classes.heads import HeadName
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
    by_head: dict[str, list[dict[str, Any]]] = {}
    for position, head in enumerate(get_args(HeadName)):
        resolved = start["recipe"] | {"row": head, "learner": start["recipe"]["learner"] | {"head": head}}
        by_head[head] = [{**start, "recipe": resolved, "position": position}]
    backbone = recipe.build_backbone()
    for number, (stage, finished) in enumerate(zip(recipe.build_stream(), stages, strict=True), 1):
        model = SDLoRA.load(run / STORE, stages=number, backbone=backbone)
        features = {name: (model.features(data.inputs), data.labels) for name, data in stage.eval_sets.items()}
        for head in get_args(HeadName):
            with_head = SDLoRA.load(run / STORE, stages=number, backbone=backbone, head=head)
            for name, (x, labels) in features.items():
                targets = torch.tensor([with_head.classes.index(label) for label in labels])
                accuracy = (with_head._logits(x).argmax(1) == targets).double().mean().item()
                values = {"accuracy": accuracy, "examples": float(len(labels))}
                by_head[head].append({"event": "score", "stage": stage.name, "eval_set": name, "values": values})
            by_head[head].append(dict(finished))
        print(f"{run} · {stage.name}", flush=True)
    yield from ((head, [*events, {"event": "end"}]) for head, events in by_head.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    out = HERE / f"{args.recipe}-heads"
    first = read_recipe(args.recipe)
    if first.learner["name"] != SDLoRA.name:
        raise RecipeError(
            f"recipe '{args.recipe}' begins with {first.learner['name']}; give one that begins with sd-lora"
        )
    runs = with_models(args.recipe, [first.row], args.seeds)[first.row]
    for seed, run in zip(args.seeds, runs, strict=True):
        recipe = first.with_seed(seed)
        for head, events in records(recipe, run.folder):
            path = out / head / f"seed-{seed}" / RECORD
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events), encoding="utf-8")
    for table in result_tables(next(iter(by_row(find_runs([out])).values()))):
        print(f"\n{table.title}\n\n{table.markdown()}\n\n{table.note}\n")


if __name__ == "__main__":
    with one_line():
        main()
