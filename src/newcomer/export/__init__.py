"""Learned class models for other libraries: each form is a folder that is loaded without newcomer.

| form | holds | loaded by |
|---|---|---|
| `transformers` | the updates merged into the weights, classifier, preprocessing | `pipeline`, the Auto classes |
| `peft` | the updates as one LoRA, classifier | `PeftModel.from_pretrained` |
| `onnx` | one graph from pixels or tokens to logits, preprocessing | onnxruntime and its like |
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from newcomer.classes.learner import ClassLearner
from newcomer.export import to_onnx, to_peft, to_transformers

FORMS: Mapping[str, Callable[[ClassLearner, Path], None]] = {
    "transformers": to_transformers.export,
    "peft": to_peft.export,
    "onnx": to_onnx.export,
}
"""What writes each form: `FORMS[form](learner, folder)`."""
