"""A model of three tasks, exported in every form and read by the other library: the largest difference between logits.

    python benchmarks/quality/exports.py

On real pictures and a real encoder where they are found (CIFAR-100, ViT-Tiny), else left out.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from figure import Figure, emit, one_line
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.run import commit, machine
from newcomer.export import FORMS

COMMAND = "python benchmarks/quality/exports.py"
RECIPE = "cifar100-vit-tiny"
CHANGES = ["stream.tasks=3", "stream.classes=15", "stream.train_per_class=20", "stream.exam_per_class=7"]


def from_transformers(folder: Path, read: dict[str, Tensor], model: SDLoRA) -> Tensor:
    from transformers import AutoModelForImageClassification

    loaded: Any = AutoModelForImageClassification.from_pretrained(folder)
    return loaded(**read).logits  # type: ignore[no-any-return]


def from_peft(folder: Path, read: dict[str, Tensor], model: SDLoRA) -> Tensor:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel

    base: Any = model.backbone.model.config
    encoder: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(base.name_or_path, dtype=torch.float32), folder)
    head = load_file(folder / "head.safetensors")
    states = encoder(**read, interpolate_pos_encoding=model.backbone.resized).last_hidden_state
    return F.linear(states[:, 0], head["weight"], head["bias"])


def from_onnx(folder: Path, read: dict[str, Tensor], model: SDLoRA) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {key: np.asarray(tensor) for key, tensor in read.items()})
    return torch.from_numpy(logits)


READ: dict[str, Callable[[Path, dict[str, Tensor], SDLoRA], Tensor]] = {
    "transformers": from_transformers,
    "peft": from_peft,
    "onnx": from_onnx,
}


@torch.no_grad()
def figures(folder: Path) -> list[Figure]:
    recipe = read_recipe(RECIPE, CHANGES)
    stream, found = recipe.build_stream(), []
    model = recipe.build_learner(stream)
    assert isinstance(model, SDLoRA)
    for stage in stream:
        with torch.enable_grad():
            model.learn(stage.lesson)
    asked = [x for exam in stage.exams.values() for x in exam.inputs]
    wanted, read = model.logits(asked), dict(model.backbone.encode(asked))
    for form, export in FORMS.items():
        export(model, folder / form)
        logits = READ[form](folder / form, read, model)
        apart = (logits - wanted).abs().max().item()
        same = (logits.argmax(1) == wanted.argmax(1)).double().mean().item()
        print(
            f"{form}: largest difference {apart:.1e} of logits up to {wanted.abs().max():.0f}; the same answer to {same:.1%}"
        )
        found.append(
            Figure(
                f"export {form} largest difference of logits",
                float(f"{apart:.2e}"),
                "1",
                COMMAND,
                [0],
                machine(),
                commit(),
                1e-4,
            )
        )
    return found


if __name__ == "__main__":
    with one_line(), tempfile.TemporaryDirectory() as name:
        emit(figures(Path(name)))
