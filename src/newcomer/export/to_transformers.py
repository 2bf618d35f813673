"""Export to transformers: a model with the updates merged into its weights."""

import shutil
from pathlib import Path

from newcomer.backbones.loading import silence_libraries
from newcomer.classes.learner import ClassLearner
from newcomer.export import modeling_pooled
from newcomer.export.card import card
from newcomer.export.classifier import classifier, write_preprocessing
from newcomer.export.folder import atomic_folder
from newcomer.export.modeling_pooled import PooledClassifier

CODE = Path(modeling_pooled.__file__)
SHARD = "4GB"
"""Weights beyond that are divided into files with an index, as the hub has them."""


def export(learner: ClassLearner, folder: Path) -> None:
    """Write weights, configuration and preprocessing as read by `pipeline` and the Auto classes.

    If no class of transformers pools as the backbone does, the model class is written as a file, too, and loaded with
    `trust_remote_code=True`.
    Raises LearnerError if nothing was learned yet, and for timm encoders; StoreError: see `atomic_folder`.
    """
    model, backbone = classifier(learner), learner.backbone
    auto, task, asked, options = (
        ("AutoModelForImageClassification", "image-classification", "image.png", "")
        if backbone.reads_images
        else ("AutoModelForSequenceClassification", "text-classification", "a text", ", truncation=True")
    )
    remarks = []
    if isinstance(model, PooledClassifier):
        options += ", trust_remote_code=True"
        remarks.append(
            f"No class of transformers reads what is pooled here ('{backbone.pooling}') as this head does, so the folder brings"
            f" its own, `{CODE.name}`: read it, then trust it."
        )
        model.config.auto_map = {"AutoConfig": f"{CODE.stem}.PooledConfig", auto: f"{CODE.stem}.PooledClassifier"}
    load = f'from transformers import pipeline\nask = pipeline("{task}", model="this-folder"{options})\nask("{asked}")'
    with atomic_folder(folder) as part, silence_libraries():
        model.save_pretrained(part, max_shard_size=SHARD)
        write_preprocessing(backbone, part)
        if isinstance(model, PooledClassifier):
            shutil.copyfile(CODE, part / CODE.name)
        text = card(learner, "A model for transformers, all its updates merged into the weights.", load, *remarks)
        (part / "README.md").write_text(text, encoding="utf-8")
