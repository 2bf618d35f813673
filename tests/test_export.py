"""Exports: other libraries load them and give the same logits."""

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

from covering import every_run
from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError, StoreError
from newcomer.export import FORMS, to_onnx, to_transformers
from newcomer.export.classifier import STOCK, classifier
from newcomer.export.modeling_pooled import PooledClassifier
from newcomer.nn.heads.kernel import arc_cosine
from newcomer.shapes import Tensor

Folder = Callable[[str], Path]
TEXTS = ["bert", "roberta", "distilbert", "modernbert"]
PICTURES = ["vit", "deit", "dinov2", "clip", "siglip"]
DECODERS = ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]


@pytest.fixture
def learned(tiny: Folder, tasks: list[Examples], questions: list[Examples]) -> Callable[..., SDLoRA]:
    """After two small tasks."""

    def learn(kind: str, place: dict[str, Any] | None = None, **settings: Any) -> SDLoRA:
        backbone = Backbone(str(tiny(kind)), **(place or {}))
        how = {"rank": 2, "epochs": 3, "batch_size": 8, "learning_rate": 0.05, "head": "linear", **settings}
        first, second, *_ = tasks if backbone.reads_images else questions
        return SDLoRA(backbone, **how).learn(first).learn(second)

    return learn


def asked(learner: ClassLearner, tasks: list[Examples], questions: list[Examples]) -> list[Any]:
    return list((tasks if learner.backbone.reads_images else questions)[1].inputs)


def near(learner: ClassLearner) -> float:
    """How far a logit may be off: kernels of features that lie close together lose digits in float32."""
    return 1e-4 if learner.support_points is None else 1e-3


def apart(found: Tensor, learner: ClassLearner, inputs: list[Any]) -> float:
    """The largest difference of a logit."""
    wanted = learner.logits(inputs)
    difference = (found - wanted).abs().max()
    print(f"{learner.backbone.name}: {difference:.1e} of {wanted.abs().max():.1e}")
    return float(difference)


def read(folder: Path, learner: ClassLearner, inputs: list[Any]) -> Any:
    """The inputs by the preprocessing in the folder."""
    if learner.backbone.reads_images:
        pictures = [picture.convert("RGB") for picture in inputs]
        return transformers.AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # or it asks about the model
    return tokenizer(inputs, padding=True, truncation=True, return_tensors="pt")


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((kind, {}, {}) for kind in [*PICTURES, *TEXTS]),
    ("vit", {"size": 16}, {"rank": [[1, 3], [2, 1]]}),
    ("clip", {"size": 16}, {"magnitude_sharing": "projection"}),
    ("dinov2", {"size": 12}, {"head": "lda"}),
    ("bert", {"pooling": "pooler"}, {}),
    ("bert", {"max_tokens": 4}, {}),
    ("bert", {}, {"head": "kernel"}),
    ("vit", {}, {"head": "kernel"}),
]


@pytest.mark.parametrize(("kind", "place", "settings"), CASES)
@pytest.mark.always
def test_transformers_gives_the_same_logits_and_answers(
    kind: str,
    place: dict[str, Any],
    settings: dict[str, Any],
    learned: Callable[..., SDLoRA],
    tasks: list[Examples],
    questions: list[Examples],
    tmp_path: Path,
) -> None:
    learner = learned(kind, place, **settings)
    inputs, folder = asked(learner, tasks, questions), tmp_path / "exported"
    FORMS["transformers"](learner, folder)
    own = (folder / "modeling_pooled.py").exists()
    stock = {*((k, "cls") for k in PICTURES[:3]), ("bert", "pooler")}
    assert own == ((kind, learner.backbone.pooling) not in stock or learner.support_points is not None)
    task, options = (
        ("ImageClassification", {})
        if learner.backbone.reads_images
        else ("SequenceClassification", {"truncation": True})
    )
    model = getattr(transformers, f"AutoModelFor{task}").from_pretrained(folder, trust_remote_code=own)
    with torch.inference_mode():
        assert apart(model.eval()(**read(folder, learner, inputs)).logits, learner, inputs) <= near(learner)
    name = "image-classification" if learner.backbone.reads_images else "text-classification"
    ask: Any = transformers.pipeline(  # type: ignore[call-overload]
        name, model=str(folder), trust_remote_code=own, **options
    )
    shown = [picture.convert("RGB") for picture in inputs] if learner.backbone.reads_images else inputs
    found = [answer[0] if isinstance(answer, list) else answer for answer in ask(shown)]
    assert [answer["label"] for answer in found] == learner.predict(inputs)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        pytest.param(
            kind, head, marks=() if (kind, head) in {("gpt2", "linear"), ("qwen3", "prototypes")} else pytest.mark.slow
        )
        for kind in DECODERS
        for head in ("linear", "prototypes")
    ],
)
def test_transformers_has_the_class_of_a_decoder_unless_it_lacks_a_bias(
    kind: str, head: str, learned: Callable[..., SDLoRA], questions: list[Examples], tmp_path: Path
) -> None:
    """GPT-2's last layer norm takes the bias up; the others' have none, so that only heads without one are theirs."""
    learner = learned(kind, head=head)
    inputs, folder = [*questions[1].inputs, *questions[0].inputs], tmp_path / "exported"
    FORMS["transformers"](learner, folder)
    own = (folder / "modeling_pooled.py").exists()
    assert own == (kind != "gpt2" and head == "linear")
    ask: Any = transformers.pipeline("text-classification", model=str(folder), trust_remote_code=own)
    assert type(ask.model).__name__ == ("PooledClassifier" if own else STOCK[kind, "last"])
    with torch.inference_mode():
        logits = ask.model.eval()(**read(folder, learner, inputs)).logits
    torch.testing.assert_close(logits.softmax(1), learner.logits(inputs).softmax(1), rtol=1e-4, atol=1e-5)
    found = ask(inputs, batch_size=3, truncation=True, top_k=None)
    for answers, row in zip(found, learner.predict_proba(inputs), strict=True):
        shown = {answer["label"]: answer["score"] for answer in answers}
        assert [shown[name] for name in learner.classes] == pytest.approx(row.tolist(), abs=1e-5)


def test_a_bias_that_no_layer_norm_takes_up_is_not_lost(tiny: Folder, questions: list[Examples]) -> None:
    """A single class has no other to be compared with, and more classes than features no exact solution."""
    one = questions[0].select([0, 1])
    learner = FrozenBackbone(str(tiny("gpt2")), head="lda").learn(one)
    assert isinstance(classifier(learner), PooledClassifier)
    texts = [text for task in questions for text in task.inputs] * 2
    many = Examples(texts, [f"class {n % 20}" for n in range(len(texts))])
    learner = FrozenBackbone(str(tiny("gpt2")), head="lda").learn(many)
    model, encoded = classifier(learner), learner.backbone.encode(many.inputs)
    assert isinstance(model, PooledClassifier)
    with torch.inference_mode():
        logits = model(**encoded).logits
    torch.testing.assert_close(logits.softmax(1), learner.logits(many.inputs).softmax(1), rtol=1e-3, atol=1e-4)


def test_texts_that_end_in_what_they_are_padded_by_are_read_by_the_mask(
    tiny: Folder, questions: list[Examples], tmp_path: Path
) -> None:
    """Qwen3-Embedding's tokenizer does so: the class of transformers would read the token before."""
    shutil.copytree(tiny("qwen3"), tmp_path / "qwen3")
    table = json.loads((tmp_path / "qwen3" / "tokenizer.json").read_text())
    end = {"SpecialToken": {"id": "[PAD]", "type_id": 0}}
    table["post_processor"]["single"].append(end)
    table["post_processor"]["special_tokens"]["[PAD]"] = {"id": "[PAD]", "ids": [0], "tokens": ["[PAD]"]}
    (tmp_path / "qwen3" / "tokenizer.json").write_text(json.dumps(table))
    learner = FrozenBackbone(str(tmp_path / "qwen3"), head="prototypes").learn(questions[0])
    encoded = learner.backbone.encode(questions[0].inputs)
    assert (encoded["input_ids"][:, -1] == 0).all()
    model = classifier(learner)
    assert isinstance(model, PooledClassifier)
    with torch.inference_mode():
        assert apart(model(**encoded).logits, learner, list(questions[0].inputs)) <= 1e-4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft still asks for it
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in [*PICTURES, *TEXTS]),
        *(pytest.param(*kind.values, {}, marks=kind.marks) for kind in every_run(DECODERS, DECODERS[1:])),
        ("vit", {"rank": [[1, 3], [2, 1]], "magnitude_sharing": "projection", "head": "lda"}),
        ("bert", {"head": "kernel"}),
    ],
)
def test_peft_gives_the_same_logits(
    kind: str,
    settings: dict[str, Any],
    tiny: Folder,
    learned: Callable[..., SDLoRA],
    tasks: list[Examples],
    questions: list[Examples],
    tmp_path: Path,
) -> None:
    peft = pytest.importorskip("peft")
    learner = learned(kind, **settings)
    inputs, folder = asked(learner, tasks, questions), tmp_path / "exported"
    FORMS["peft"](learner, folder)
    info, head = json.loads((folder / "head.json").read_text()), load_file(folder / "head.safetensors")
    base = getattr(transformers, info["base"]["class"]).from_pretrained(tiny(kind))
    encoder = peft.PeftModel.from_pretrained(base, folder).eval()
    encoded = learner.backbone.encode(inputs)
    with torch.inference_mode():
        output = encoder(**encoded)
        states = output.last_hidden_state
        if info["pooling"] == "mean":
            mask = encoded["attention_mask"][:, :, None]
            pooled = (states * mask).sum(1) / mask.sum(1)
        elif info["pooling"] == "last":
            pooled = states[torch.arange(len(states)), encoded["attention_mask"].sum(1) - 1]
        else:
            pooled = states[:, 0] if info["pooling"] == "cls" else output.pooler_output
    terms = arc_cosine(pooled, head["points"]) if "points" in head else pooled
    assert apart(F.linear(terms, head["weight"], head["bias"]), learner, inputs) <= near(learner)
    assert info["classes"] == learner.classes


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_one_lora_trained_on_is_exported_as_well(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    learner = SequentialLoRA(str(tiny("vit")), rank=2, epochs=2, batch_size=8, learning_rate=1e-2)
    learner.learn(tasks[0]).learn(tasks[1])
    for form in ("peft", "transformers"):
        FORMS[form](learner, tmp_path / form)
    base = transformers.ViTModel.from_pretrained(tiny("vit"))
    encoded, head = learner.backbone.encode(tasks[0].inputs), load_file(tmp_path / "peft" / "head.safetensors")
    with torch.inference_mode():
        states = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()(**encoded).last_hidden_state
        model: Any = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "transformers")
        logits = model(**encoded).logits
    assert apart(F.linear(states[:, 0], head["weight"], head["bias"]), learner, list(tasks[0].inputs)) <= 1e-4
    assert apart(logits, learner, list(tasks[0].inputs)) <= 1e-4


@pytest.mark.parametrize(
    ("kind", "place", "settings"),
    [
        ("vit", {}, {}),
        pytest.param("bert", {}, {}, marks=pytest.mark.slow),
        ("clip", {"size": 16}, {}),
        ("bert", {}, {"head": "kernel"}),
        *(pytest.param(kind, {}, {}, marks=pytest.mark.slow) for kind in ("llama", "qwen3", "gemma3_text")),
        pytest.param("gpt2", {}, {"head": "prototypes"}, marks=pytest.mark.slow),
    ],
)
def test_onnxruntime_gives_the_same_logits_for_any_batch(
    kind: str,
    place: dict[str, Any],
    settings: dict[str, Any],
    learned: Callable[..., SDLoRA],
    tasks: list[Examples],
    questions: list[Examples],
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    learner = learned(kind, place, **settings)
    folder = tmp_path / "exported"
    FORMS["onnx"](learner, folder)
    session = runtime.InferenceSession(folder / "model.onnx")
    for count in (1, 3, 7):
        inputs = asked(learner, tasks, questions)[:count]
        encoded = {name: tensor.numpy() for name, tensor in read(folder, learner, inputs).items()}
        (logits,) = session.run(None, encoded)
        assert apart(torch.tensor(logits), learner, inputs) <= near(learner)
    assert json.loads((folder / "labels.json").read_text()) == learner.classes


def test_weights_of_more_than_one_file_of_onnx_lie_beside_it(
    learned: Callable[..., SDLoRA], tasks: list[Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(to_onnx, "ONE_FILE", 1000)
    learner, folder = learned("vit", {}), tmp_path / "exported"
    FORMS["onnx"](learner, folder)
    assert (folder / "model.onnx.data").stat().st_size > 1000
    session = runtime.InferenceSession(folder / "model.onnx")
    (logits,) = session.run(None, {k: t.numpy() for k, t in read(folder, learner, list(tasks[0].inputs)).items()})
    assert apart(torch.tensor(logits), learner, list(tasks[0].inputs)) <= near(learner)


def test_weights_of_many_files_have_an_index(
    learned: Callable[..., SDLoRA], tasks: list[Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_transformers, "SHARD", "10KB")
    learner, folder = learned("vit", {}), tmp_path / "exported"
    FORMS["transformers"](learner, folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert (folder / "model.safetensors.index.json").exists()
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    with torch.inference_mode():
        logits = model.eval()(**read(folder, learner, list(tasks[0].inputs))).logits
    assert apart(logits, learner, list(tasks[0].inputs)) <= near(learner)


def test_what_cannot_be_exported_leaves_nothing(tiny: Folder, tasks: list[Examples], tmp_path: Path) -> None:
    learner = FrozenBackbone(str(tiny("vit")))
    for export in FORMS.values():
        with pytest.raises(LearnerError, match="has learned no class"):
            export(learner, tmp_path / "new")
    learner.learn(tasks[0])
    with pytest.raises(LearnerError, match="no LoRA"):
        FORMS["peft"](learner, tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(StoreError, match="not an empty folder"):
        FORMS["transformers"](learner, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
