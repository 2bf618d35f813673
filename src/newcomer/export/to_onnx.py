"""Export to ONNX: one graph from pixels or tokens to logits."""

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import torch
from PIL.Image import new
from torch import nn
from transformers import PreTrainedModel

from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.data.examples import Input
from newcomer.errors import LearnerError
from newcomer.export.card import card
from newcomer.export.classifier import classifier, plain_config, write_preprocessing
from newcomer.export.folder import atomic_folder
from newcomer.shapes import Float, Tensor

NEEDED = ("onnx", "onnxscript")
ONE_FILE = 2**31 - 2**24
"""Bytes of weights that one file of protocol buffers can hold, with room for the graph."""


def export(learner: ClassLearner, folder: Path) -> None:
    """Write `model.onnx` with dynamic batch size and text length, `labels.json`, the configuration and the preprocessing.

    Weights of 2 GiB and more lie beside it, in `model.onnx.data`.

    Raises LearnerError if nothing was learned yet, for timm encoders, and without onnx; StoreError: see `atomic_folder`.
    """
    for library in NEEDED:
        if importlib.util.find_spec(library) is None:
            raise LearnerError(f"export to onnx needs {library}; run: pip install 'newcomer[onnx]'")
    backbone = learner.backbone
    model = classifier(learner)
    inputs = _example(backbone)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", min=2, max=backbone.max_tokens)
    free = {0: batch} if backbone.reads_images else {0: batch, 1: tokens}
    load = 'import onnxruntime\nsession = onnxruntime.InferenceSession("model.onnx")\n(logits,) = session.run(None, inputs)'
    remarks = [f"`inputs` are arrays of these names, from the preprocessing beside the graph: {', '.join(inputs)}."]
    remarks.append("The logits are in the order of the names in `labels.json`.")
    reader = "ORTModelForImageClassification" if backbone.reads_images else "ORTModelForSequenceClassification"
    remarks.append(
        f"`config.json` names the classes for libraries that read such folders: optimum's `{reader}.from_pretrained`, and"
        " transformers.js, which looks for the graph as `onnx/model.onnx`: move it there."
    )
    with atomic_folder(folder) as part:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch's exporter deprecates of itself, and the names of equal axes
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not installed
            torch.onnx.export(
                _Logits(model, list(inputs)).eval(),
                tuple(inputs.values()),
                part / "model.onnx",
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes=(tuple(free for _ in inputs),),
                dynamo=True,
                external_data=sum(p.numel() * p.element_size() for p in model.state_dict().values()) > ONE_FILE,
                verbose=False,
            )
        plain_config(learner, model).save_pretrained(part)
        write_preprocessing(backbone, part)
        (part / "labels.json").write_text(json.dumps(learner.classes, indent=1, ensure_ascii=False), encoding="utf-8")
        text = card(learner, "An ONNX graph, all updates merged into its weights.", load, *remarks)
        (part / "README.md").write_text(text, encoding="utf-8")


class _Logits(nn.Module):
    """The model as a function of positional tensors: the exporter takes only names of the signature."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Float[Tensor, "batch class"]:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def _example(backbone: Backbone) -> dict[str, Tensor]:
    """Two preprocessed inputs on the CPU; one text is shorter, so that the traced graph handles padding."""
    examples: list[Input] = [new("RGB", (8, 8))] * 2 if backbone.reads_images else ["one or two", "words"]
    return {name: tensor.cpu() for name, tensor in backbone.encode(examples).items()}
