"""Largest difference of logits between a model of three tasks and its exports, loaded by the other library.

    python benchmarks/quality/exports.py

Uses CIFAR-100 and ViT-Tiny; skipped where they are not found.
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
from measurement import Measurement, emit, one_line
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.run import commit, machine
from newcomer.export import FORMS

COMMAND = "python benchmarks/quality/exports.py"
RECIPE = "cifar100-vit-tiny"
CHANGES = ["stream.tasks=3", "stream.classes=15", "stream.train_per_class=20", "stream.eval_per_class=7"]


def from_transformers(folder: Path, inputs: dict[str, Tensor], model: SDLoRA) -> Tensor:
    from transformers import AutoModelForImageClassification

    loaded: Any = AutoModelForImageClassification.from_pretrained(folder)
    return loaded(**inputs).logits  # type: ignore[no-any-return]


def from_peft(folder: Path, inputs: dict[str, Tensor], model: SDLoRA) -> Tensor:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel

    base: Any = model.backbone.model.config
    encoder: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(base.name_or_path, dtype=torch.float32), folder)
    head = load_file(folder / "head.safetensors")
    states = encoder(**inputs, interpolate_pos_encoding=model.backbone.resized).last_hidden_state
    return F.linear(states[:, 0], head["weight"], head["bias"])


def from_onnx(folder: Path, inputs: dict[str, Tensor], model: SDLoRA) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {key: np.asarray(tensor) for key, tensor in inputs.items()})
    return torch.from_numpy(logits)


LOADED_LOGITS: dict[str, Callable[[Path, dict[str, Tensor], SDLoRA], Tensor]] = {
    "transformers": from_transformers,
    "peft": from_peft,
    "onnx": from_onnx,
}


@torch.no_grad()
def measurements(folder: Path) -> list[Measurement]:
    recipe = read_recipe(RECIPE, CHANGES)
    stream, results = recipe.build_stream(), []
    model = recipe.build_learner(stream)
    assert isinstance(model, SDLoRA)
    for stage in stream:
        with torch.enable_grad():
            model.learn(stage.train)
    inputs = [x for data in stage.eval_sets.values() for x in data.inputs]
    expected, encoded = model.logits(inputs), dict(model.backbone.encode(inputs))
    for form, export in FORMS.items():
        export(model, folder / form)
        logits = LOADED_LOGITS[form](folder / form, encoded, model)
        difference = (logits - expected).abs().max().item()
        same = (logits.argmax(1) == expected.argmax(1)).double().mean().item()
        print(
            f"{form}: logits differ by {difference:.1e}, up to {expected.abs().max():.0f}; same prediction: {same:.1%}"
        )
        results.append(
            Measurement(
                f"export {form} largest difference of logits",
                float(f"{difference:.2e}"),
                "1",
                COMMAND,
                [0],
                machine(),
                commit(),
                1e-4,
            )
        )
    return results


if __name__ == "__main__":
    with one_line(), tempfile.TemporaryDirectory() as name:
        emit(measurements(Path(name)))
