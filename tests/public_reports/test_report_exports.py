"""Exports where people load them: in half precision, with a single class, by peft and by readers of ONNX folders."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional as F

from covering import combinations
from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.export import FORMS

Folder = Callable[[str], Path]


def piped(learner: ClassLearner, folder: Path, inputs: list[Any], **options: Any) -> list[tuple[str, float]]:
    """The likeliest class of each input with its probability, by transformers' pipeline."""
    task = "image-classification" if learner.backbone.reads_images else "text-classification"
    ask: Any = transformers.pipeline(task, model=str(folder), trust_remote_code=True, **options)  # type: ignore[call-overload]
    shown = [picture.convert("RGB") for picture in inputs] if learner.backbone.reads_images else inputs
    best = [answer[0] if isinstance(answer, list) else answer for answer in ask(shown)]
    return [(answer["label"], answer["score"]) for answer in best]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", ["lda", "kernel"])
@pytest.mark.parametrize(
    ("kind", "place"), [("bert", {}), ("vit", {}), ("vit", {"size": 12}), ("dinov2", {"pooling": "mean"})]
)
def test_a_pipeline_in_half_precision_predicts_the_same(
    kind: str,
    place: dict[str, Any],
    head: Any,
    dtype: torch.dtype,
    tiny: Folder,
    tasks: list[Examples],
    questions: list[Examples],
    tmp_path: Path,
) -> None:
    """transformers #33997: mat1 and mat2 must have the same dtype, where a part of a model is built in its saved type."""
    backbone = Backbone(str(tiny(kind)), **place)
    task = (tasks if backbone.reads_images else questions)[0]
    learner = FrozenBackbone(backbone, head=head).learn(task)
    FORMS["transformers"](learner, tmp_path / "exported")
    wanted, inputs = learner.predict_topk(task.inputs, top=1), list(task.inputs)
    for options, near in (({}, 1e-3), ({"dtype": dtype}, 0.05)):
        found = piped(learner, tmp_path / "exported", inputs, **options)
        sure = [one.probabilities[0] for one in wanted]
        assert all(abs(share - known) < near for (_, share), known in zip(found, sure, strict=True))
        assert [label for label, _ in found] == [one.classes[0] for one in wanted]


@pytest.mark.parametrize(("kind", "head"), combinations(["vit", "bert"], ["lda", "kernel"]))
def test_a_model_of_one_class_is_loaded_and_certain(
    kind: str, head: Any, tiny: Folder, tasks: list[Examples], questions: list[Examples], tmp_path: Path
) -> None:
    """transformers #45479: a first task of one class exported what could not be loaded."""
    learner = FrozenBackbone(str(tiny(kind)), head=head)
    task = (tasks if learner.backbone.reads_images else questions)[0]
    only = task.select([i for i, label in enumerate(task.labels) if label == task.labels[0]])
    learner.learn(only)
    FORMS["transformers"](learner, tmp_path / "exported")
    assert piped(learner, tmp_path / "exported", list(task.inputs)) == [(task.labels[0], 1.0)] * len(task)
    FORMS["onnx"](learner, tmp_path / "onnx")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "onnx").id2label == {0: task.labels[0]}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft still asks for it
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_what_a_peft_card_says_works_elsewhere(
    kind: str,
    tiny: Folder,
    tasks: list[Examples],
    questions: list[Examples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The card told people to load `micro-vit` or a relative path, which nobody else has."""
    shutil.copytree(tiny(kind), tmp_path / "models" / kind)
    (tmp_path / "models" / kind / "notes.bin").write_bytes(b"pickled")
    monkeypatch.chdir(tmp_path)
    learner = SDLoRA(f"models/{kind}", rank=2, epochs=2, learning_rate=0.05, head="lda")
    task = (tasks if learner.backbone.reads_images else questions)[0]
    learner.learn(task)
    FORMS["peft"](learner, tmp_path / "this-folder")
    shutil.rmtree(tmp_path / "models")
    card = (tmp_path / "this-folder" / "README.md").read_text()
    assert "models/" not in card
    assert not list((tmp_path / "this-folder").rglob("*.bin"))
    names: dict[str, Any] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], names)
    head = load_file(tmp_path / "this-folder" / "head.safetensors")
    encoded = learner.backbone.encode(task.inputs)
    with torch.inference_mode():
        states = names["encoder"].eval()(**encoded).last_hidden_state
        pooled = states[:, 0]
        if "attention_mask" in encoded:
            mask = encoded["attention_mask"][:, :, None]
            pooled = (states * mask).sum(1) / mask.sum(1)
    logits = F.linear(pooled, head["weight"], head["bias"])
    torch.testing.assert_close(logits, learner.logits(task.inputs), atol=1e-3, rtol=1e-3)


def test_a_peft_card_names_a_model_of_the_hub(questions: list[Examples], tmp_path: Path) -> None:
    """What is on the hub by its name is named, and does not come along."""
    name = "sentence-transformers/all-MiniLM-L6-v2"
    learner = SDLoRA(name, rank=2, epochs=1).learn(questions[0])
    FORMS["peft"](learner, tmp_path / "out")
    assert f'from_pretrained("{name}")' in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == name
    assert not (tmp_path / "out" / "base").exists()


@pytest.mark.parametrize(
    ("kind", "head"),
    [("vit", "lda"), pytest.param("bert", "lda", marks=pytest.mark.slow), ("bert", "kernel"), ("clip", "lda")],
)
def test_an_onnx_folder_says_what_it_is(
    kind: str, head: Any, tiny: Folder, tasks: list[Examples], questions: list[Examples], tmp_path: Path
) -> None:
    """Without config.json and its id2label, optimum and transformers.js could not read the folder."""
    learner = FrozenBackbone(str(tiny(kind)), head=head)
    task = (tasks if learner.backbone.reads_images else questions)[0]
    learner.learn(task)
    FORMS["onnx"](learner, tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert config.id2label == dict(enumerate(learner.classes))
    assert config.label2id == {name: i for i, name in enumerate(learner.classes)}
    model: Any = learner.backbone.model
    assert config.model_type == model.config.model_type
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_card_says_what_is_done_to_pictures(
    tiny: Folder, tasks: list[Examples], questions: list[Examples], tmp_path: Path
) -> None:
    """A phone's or a transparent picture is read otherwise elsewhere: who loads an export has to know."""
    for kind, task in (("vit", tasks[0]), ("bert", questions[0])):
        FORMS["transformers"](FrozenBackbone(str(tiny(kind))).learn(task), tmp_path / kind)
        card = (tmp_path / kind / "README.md").read_text()
        assert ("EXIF" in card and "transparent on white" in card) == (kind == "vit")
