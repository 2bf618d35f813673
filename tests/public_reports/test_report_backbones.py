"""A backbone is more than its weights: its processor or tokenizer, its pooling, its length, the folder it lies in, its code."""

import json
import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from newcomer.backbones import sources
from newcomer.backbones.backbone import Backbone
from newcomer.backbones.reloading import PlainBackbone
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.click_log import Column
from newcomer.data.examples import Examples
from newcomer.data.vocabulary import VectorScaler
from newcomer.errors import DataError, SettingError, StoreError
from newcomer.items.encoding.text_encoder import TextEncoder
from newcomer.store.folder import Manifest, Store
from shell import Shell

Folder = Callable[[str], Path]


@pytest.fixture
def copied(tiny: Folder, tmp_path: Path) -> Callable[[str], Path]:
    """A folder of this kind that a test may change."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(tiny(kind), tmp_path / "models" / kind))

    return copy


def changed(file: Path, **values: object) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def sentence_folder(folder: Path, *, length: int | None = None, more: str = "", **pooling: Any) -> Path:
    """What sentence-transformers writes beside the weights."""
    kinds = ["Transformer", "Pooling", *([more] if more else []), "Normalize"]
    paths = ["", "1_Pooling", *([f"2_{more}"] if more else []), "3_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    changed(folder / "1_Pooling" / "config.json", **(pooling or {"pooling_mode_mean_tokens": True}))
    if length:
        changed(folder / "sentence_bert_config.json", max_seq_length=length, do_lower_case=False)
    return folder


def as_before(store: Path) -> None:
    """The manifest as it was when a fingerprint was of the weights alone."""
    opened = Store(store)
    manifest, entries = opened.manifest(), opened.entries()
    kept = ("name", "size", "fingerprint", "target_modules")
    backbone = {k: v for k, v in manifest.depends_on["backbone"].items() if k in kept} | {
        "pooling": None,
        "max_tokens": None,
    }
    assert all(dict(entry.state or {}) for entry in entries)  # read before it is gone
    shutil.rmtree(store)
    Store(store).write(Manifest(manifest.learner, manifest.settings, {"backbone": backbone}), entries)


@pytest.mark.parametrize("left", [[], ["tokenizer_config.json"]])
def test_a_text_model_without_its_tokenizer_is_refused(left: list[str], copied: Folder) -> None:
    """A folder with config.json and weights only learned, and answered by five tokens: every word unknown."""
    folder = copied("bert")
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors", *left):
            file.unlink()
    with pytest.raises(DataError, match=r"put its tokenizer's files beside its weights|cannot be loaded"):
        Backbone(str(folder))


@pytest.mark.parametrize(
    ("file", "value", "named"),
    [
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]}, "image_mean"),
        ("preprocessor_config.json", {"image_std": [0.1, 0.2, 0.3]}, "image_std"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "rescale_factor"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize"),
        ("preprocessor_config.json", {"resample": 0}, "resample"),
        ("preprocessor_config.json", {"size": {"height": 12, "width": 12}}, "size.height"),
    ],
)
def test_a_processor_that_was_edited_after_learning_is_named(
    file: str, value: dict[str, object], named: str, copied: Folder, tasks: list[Examples], tmp_path: Path
) -> None:
    """A preprocessor_config.json edited after learning: accuracy fell from .69 to .44 without a word."""
    folder = copied("vit")
    FrozenBackbone(str(folder)).learn(tasks[0]).save(tmp_path / "store")
    FrozenBackbone.load(tmp_path / "store")
    changed(folder / file, **value)
    with pytest.raises(StoreError, match=rf"has changed: backbone\.preprocessing\.{named} was .*, is "):
        FrozenBackbone.load(tmp_path / "store")


@pytest.mark.parametrize(
    ("kind", "value"),
    [("vit", {"hidden_act": "relu"}), ("vit", {"num_attention_heads": 4}), ("bert", {"layer_norm_eps": 0.1})],
)
def test_a_configuration_that_was_edited_after_learning_is_named(
    kind: str, value: dict[str, Any], copied: Folder, tasks: list[Examples], questions: list[Examples], tmp_path: Path
) -> None:
    """The same of config.json: the weights are the same, and compute something else."""
    folder = copied(kind)
    FrozenBackbone(str(folder)).learn((questions if kind == "bert" else tasks)[0]).save(tmp_path / "store")
    changed(folder / "config.json", **value)
    with pytest.raises(StoreError, match=rf"has changed: backbone\.architecture\.{next(iter(value))} was .*, is "):
        FrozenBackbone.load(tmp_path / "store")


def test_a_tokenizer_that_was_edited_after_learning_is_named(
    copied: Folder, questions: list[Examples], tmp_path: Path
) -> None:
    """The same of texts: two words change sources in the vocabulary."""
    folder = copied("bert")
    FrozenBackbone(str(folder)).learn(questions[0]).save(tmp_path / "store")
    table = json.loads((folder / "tokenizer.json").read_text())
    words = table["model"]["vocab"]
    words["lost"], words["euro"] = words["euro"], words["lost"]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(StoreError, match=r"has changed: backbone\.preprocessing\.tokenizer was"):
        FrozenBackbone.load(tmp_path / "store")


def test_files_written_anew_are_the_same_tokenizer(copied: Folder, questions: list[Examples], tmp_path: Path) -> None:
    """What a tokenizer does is compared, not its files' bytes, so that another version may write them otherwise."""
    folder = copied("bert")
    learner = FrozenBackbone(str(folder)).learn(questions[0])
    learner.save(tmp_path / "store")
    learner.backbone.encoder.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads((folder / "tokenizer.json").read_text()), indent=3))
    assert FrozenBackbone.load(tmp_path / "store").predict(["lost my card"]) == learner.predict(["lost my card"])


@pytest.mark.parametrize(
    "said", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_a_folder_s_own_pooling_and_length_are_the_default(
    said: dict[str, Any], copied: Folder, questions: list[Examples]
) -> None:
    """BGE, mxbai and arctic say CLS in 1_Pooling/config.json and were pooled by mean; max_seq_length was ignored."""
    folder = str(sentence_folder(copied("bert"), length=6, **said))
    backbone, texts = Backbone(folder), questions[0].inputs
    assert (backbone.pooling, backbone.max_tokens) == ("cls", 6)
    wanted = Backbone(folder, pooling="cls", max_tokens=6)
    assert torch.equal(backbone(backbone.encode(texts)), wanted(wanted.encode(texts)))
    assert Backbone(folder, pooling="mean", max_tokens=9).max_tokens == 9
    assert Backbone(folder, pooling="mean").pooling == "mean"


def test_minilm_stays_what_it_was() -> None:
    """Its folder says mean and 256; the recipes' 32 tokens are asked for and stay."""
    name = "sentence-transformers/all-MiniLM-L6-v2"
    backbone = Backbone(name)
    assert (backbone.pooling, backbone.max_tokens, backbone.fingerprint) == (
        "mean",
        256,
        PlainBackbone(name).fingerprint,
    )
    assert Backbone(name, max_tokens=32).max_tokens == 32


@pytest.mark.parametrize(
    ("said", "more", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "", "pooling by 'max'"),
        ({"pooling_mode": "lasttoken"}, "", "pooling by 'last'"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "", r"pooling by 'cls\+mean'"),
        ({"pooling_mode_mean_tokens": True}, "Dense", r"a Dense module \(2_Dense\)"),
    ],
)
def test_features_that_are_not_computed_here_are_refused_by_name(
    said: dict[str, Any], more: str, named: str, copied: Folder
) -> None:
    """A folder whose features are made otherwise is refused, with a setting that can be followed."""
    folder = str(sentence_folder(copied("bert"), more=more, **said))
    with pytest.raises(SettingError, match=rf"makes its features by {named}, .* give pooling = 'mean' or 'cls'"):
        Backbone(folder)
    assert Backbone(folder, pooling="mean").pooling == "mean"


def test_a_store_reads_as_it_learned_whatever_a_folder_says_later(
    copied: Folder, questions: list[Examples], tmp_path: Path
) -> None:
    """Pooling and length are in the store: a folder that states others later moves no answer."""
    folder = sentence_folder(copied("bert"), length=8)
    learner = FrozenBackbone(str(folder)).learn(questions[0])
    learner.save(tmp_path / "store")
    sentence_folder(folder, length=5, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    texts = questions[1].inputs
    assert torch.equal(FrozenBackbone.load(tmp_path / "store").logits(texts), learner.logits(texts))
    with pytest.raises(StoreError, match=r"backbone\.(pooling|max_tokens) was"):
        FrozenBackbone.load(tmp_path / "store", backbone=Backbone(str(folder)))


@pytest.mark.parametrize("said", [{"pooling_mode_cls_token": True}, {"pooling_mode_max_tokens": True}])
def test_a_store_of_before_is_read_as_before(
    said: dict[str, Any], copied: Folder, questions: list[Examples], tmp_path: Path
) -> None:
    """What was trained when folders were not asked keeps the mean over all tokens, and says so from its next task on."""
    folder = sentence_folder(copied("bert"), length=5, pooling_mode_mean_tokens=False, **said)
    learner = FrozenBackbone(PlainBackbone(str(folder))).learn(questions[0])
    assert (learner.backbone.pooling, learner.backbone.max_tokens) == ("mean", 24)
    learner.save(tmp_path / "store")
    as_before(tmp_path / "store")
    found = FrozenBackbone.load(tmp_path / "store")
    texts = questions[1].inputs
    assert torch.equal(found.logits(texts), learner.logits(texts))
    found.learn(questions[1]).save(tmp_path / "store")
    backbone = Store(tmp_path / "store").manifest().depends_on["backbone"]
    assert (backbone["pooling"], backbone["max_tokens"]) == ("mean", 24)
    assert "tokenizer" in backbone["preprocessing"]
    assert torch.equal(FrozenBackbone.load(tmp_path / "store").logits(texts), found.logits(texts))


def test_a_relative_backbone_is_found_from_another_folder(
    shell: Shell, copied: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """darts #1022, setfit #94: a model made with a relative path opened only from the folder that it was made in."""
    copied("vit")
    monkeypatch.chdir(tmp_path)
    assert shell.call("learn", "m", str(shell.folder / "birds" / "train"), "--backbone", "models/vit")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    picture = str(shell.folder / "birds" / "test" / "wren" / "0.png")
    assert shell.call("predict", "../m", picture)[0] == 0
    (tmp_path / "models").rename(tmp_path / "kept")
    error = shell.fails("predict", "../m", picture)
    assert "no longer at" in error
    assert "--backbone" in error
    for command in (
        ["predict", "../m", picture],
        ["export", "../m", "out", "--to", "transformers"],
        ["analyse", "../m", "--out", "found"],
        ["learn", "../m", str(shell.folder / "birds" / "train")],
        ["forget", "../m", "--class", "wren"],
    ):
        assert shell.call(*command, "--backbone", "../kept/vit")[0] == 0, command
    assert shell.call("predict", "../m", picture)[0] == 0  # the last task has told the store where it is


def test_a_project_that_was_moved_as_a_whole_opens(
    copied: Folder, tasks: list[Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store and the models beside it, copied to another machine: the backbone is found beside the store."""
    copied("vit")
    monkeypatch.chdir(tmp_path)
    learner = FrozenBackbone("models/vit").learn(tasks[0])
    learner.save("stores/m")
    (tmp_path / "moved").mkdir()
    for part in ("models", "stores"):
        (tmp_path / part).rename(tmp_path / "moved" / part)
    found = FrozenBackbone.load(tmp_path / "moved" / "stores" / "m")
    assert torch.equal(found.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))


def test_another_model_of_the_same_name_is_passed_over(
    copied: Folder, tiny: Folder, tasks: list[Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a folder of the same relative name holds another model, the one that was learned with is looked for further."""
    copied("vit")
    monkeypatch.chdir(tmp_path)
    learner = FrozenBackbone("models/vit").learn(tasks[0])
    learner.save("m")
    shutil.copytree(tiny("deit"), tmp_path / "other" / "models" / "vit")
    monkeypatch.chdir(tmp_path / "other")
    found = FrozenBackbone.load(tmp_path / "m")
    assert torch.equal(found.logits(tasks[0].inputs), learner.logits(tasks[0].inputs))
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(StoreError, match=r"backbone\.\w+ was"):
        FrozenBackbone.load(tmp_path / "m")


def test_a_damaged_model_of_the_same_name_is_passed_over(
    copied: Folder, tasks: list[Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another folder of the same relative name cannot be loaded at all, the search goes on; a path may be a `Path`."""
    folder = copied("vit")
    monkeypatch.chdir(tmp_path)
    FrozenBackbone(Path("models/vit")).learn(tasks[0]).save("m")  # type: ignore[arg-type]
    broken = tmp_path / "other" / "models" / "vit"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    monkeypatch.chdir(tmp_path / "other")
    assert FrozenBackbone.load(tmp_path / "m").classes == ["0", "1"]
    folder.rename(tmp_path / "kept")
    with pytest.raises(DataError, match="or say where it is with --backbone"):
        FrozenBackbone.load(tmp_path / "m")
    assert FrozenBackbone.load(tmp_path / "m", backbone=tmp_path / "kept").classes == ["0", "1"]


def test_the_hub_is_asked_only_for_what_can_be_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Six requests for a path that was no repository; without a network every name is one line, at once."""
    monkeypatch.setattr(sources, "hub_is_reachable", lambda: pytest.fail("the hub was asked"))
    for name in ("models/vit/base", "./vit", "/nowhere/vit", "..", "~/vit", ""):
        with pytest.raises(DataError, match="cannot be loaded") as caught:
            Backbone(name)
        assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    copied: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with `auto_map` asked on standard input whether to run its code, and `y` ran it."""
    folder = copied("bert")
    changed(
        folder / "config.json", model_type="own-kind", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    answers = StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(DataError, match="needs code of its own, by `auto_map` in its configuration, which is not run"):
        Backbone(str(folder))
    assert answers.tell() == 0
    assert not (tmp_path / "ran").exists()


def test_the_encoder_of_a_click_model_s_texts_is_told_apart_likewise(copied: Folder) -> None:
    """What a click model reads texts with is compared as a classifier's backbone is; a store of before is read as before."""
    folder = sentence_folder(copied("bert"), length=5, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    column = Column.of_names(["where is my card please", "top up failed", "refund"])
    fitted = TextEncoder.fit("about", column, str(folder))
    assert fitted.identity
    assert fitted.identity["pooling"] == "cls"
    again = TextEncoder.from_json(json.loads(json.dumps(fitted.to_json())))
    assert (again.encode(column) == fitted.encode(column)).all()
    table: dict[str, Any] = {k: v for k, v in fitted.to_json().items() if k != "identity"}
    before = TextEncoder.from_json(table)
    plain = PlainBackbone(str(folder))
    with torch.inference_mode():
        features = plain(plain.encode(column.texts())).numpy()
    wanted = VectorScaler(table["field"], tuple(table["mean"]), table["deviation"]).encode(Column.of_vectors(features))
    assert abs(before.encode(column) - wanted).max() < 1e-5


def test_sd_lora_reads_by_cls_where_the_folder_says_so(
    copied: Folder, questions: list[Examples], tmp_path: Path
) -> None:
    """The whole life of one: learned, saved and loaded with the folder's own pooling."""
    folder = sentence_folder(copied("bert"), length=9, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    learner = SDLoRA(str(folder), rank=2, epochs=1).learn(questions[0])
    learner.save(tmp_path / "store")
    found = SDLoRA.load(tmp_path / "store")
    assert found.backbone.pooling == "cls"
    assert torch.equal(found.logits(questions[1].inputs), learner.logits(questions[1].inputs))
