"""A model that transformers loads, with the updates merged into its weights."""

import shutil
from pathlib import Path

from newcomer.backbones.loading import quiet
from newcomer.classes.learner import ClassLearner
from newcomer.export import modeling_pooled
from newcomer.export.card import card
from newcomer.export.classifier import classifier, write_preprocessing
from newcomer.export.folder import appearing
from newcomer.export.modeling_pooled import PooledClassifier

CODE = Path(modeling_pooled.__file__)


def export(learner: ClassLearner, folder: Path) -> None:
    """Write what `pipeline` and the Auto classes read: weights and configuration, with the preprocessing.

    Where no class of transformers pools as the backbone does, the class comes along as a file and is loaded with
    `trust_remote_code=True`.
    Raises LearnerError before anything was learned and for timm's encoders; StoreError: see `appearing`.
    """
    model, backbone = classifier(learner), learner.backbone
    auto, task, asked, options = (
        ("AutoModelForImageClassification", "image-classification", "picture.png", "")
        if backbone.pictures
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
    with appearing(folder) as part, quiet():
        model.save_pretrained(part)
        write_preprocessing(backbone, part)
        if isinstance(model, PooledClassifier):
            shutil.copyfile(CODE, part / CODE.name)
        text = card(learner, "A model for transformers, all its updates merged into the weights.", load, *remarks)
        (part / "README.md").write_text(text, encoding="utf-8")
