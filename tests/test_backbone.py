"""Backbones from a folder: their features, the projections that are adapted, and what they refuse."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from covering import every_run
from newcomer.backbones.backbone import Backbone
from newcomer.backbones.families import FAMILIES
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataError, LearnerError, SettingError
from newcomer.training.fit import evaluating

Folder = Callable[[str], Path]
QUERY_VALUE = {
    "vit": ("q_proj", "v_proj"),
    "deit": ("q_proj", "v_proj"),
    "dinov2": ("q_proj", "v_proj"),
    "dinov2_with_registers": ("q_proj", "v_proj"),
    "dinov3_vit": ("q_proj", "v_proj"),
    "clip": ("q_proj", "v_proj"),
    "clip_vision_model": ("q_proj", "v_proj"),
    "siglip": ("q_proj", "v_proj"),
    "siglip_vision_model": ("q_proj", "v_proj"),
    "timm_wrapper": ("qkv.query", "qkv.value"),
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "xlm-roberta": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "electra": ("query", "value"),
    "mpnet": ("q", "v"),
    "deberta-v2": ("query_proj", "value_proj"),
    "modernbert": ("Wqkv.query", "Wqkv.value"),
    "gpt2": ("c_attn.query", "c_attn.value"),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "gemma": ("q_proj", "v_proj"),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
}
KINDS = list(QUERY_VALUE)
PICTURES, TEXTS = KINDS[: KINDS.index("bert")], KINDS[KINDS.index("bert") :]


@pytest.mark.parametrize("kind", every_run(PICTURES + TEXTS))
def test_query_and_value_of_every_layer_are_found(kind: str, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)))
    layers = [backbone.model.get_submodule(name) for name in backbone.projections]
    assert len(layers) == 4  # two in each of two layers
    assert all(isinstance(layer, torch.nn.Linear) for layer in layers)
    query, value = QUERY_VALUE[kind]
    for layer in (0, 1):
        first, second = sorted(name for name in backbone.projections if f".{layer}." in name)
        assert first.endswith(f".{query}")
        assert second.endswith(f".{value}")


def test_every_family_of_the_table_is_tested() -> None:
    assert set(QUERY_VALUE) == set(FAMILIES)


@pytest.mark.parametrize("kind", every_run(PICTURES + TEXTS))
def test_features_are_one_vector_an_input_and_need_no_gradient(
    kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    backbone = Backbone(str(tiny(kind)))
    assert backbone.reads_images == (kind in PICTURES)
    inputs = (tasks if backbone.reads_images else questions)[0].inputs[:3]
    features = backbone(backbone.encode(inputs))
    assert features.shape == (3, backbone.width) == (3, 16)
    assert not features.requires_grad
    assert not any(part.training for part in backbone.model.modules())


@pytest.mark.learning
@pytest.mark.parametrize("kind", every_run(PICTURES + TEXTS))
def test_sd_lora_learns_two_tasks_on_it(
    kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    used_tasks = tasks[:2] if kind in PICTURES else questions
    learner = SDLoRA(str(tiny(kind)), rank=2, epochs=15, batch_size=8, learning_rate=1e-2)
    learner.learn(used_tasks[0])
    assert learner.evaluate(used_tasks[0])["accuracy"] > 0.5
    learner.learn(used_tasks[1])
    assert learner.logits(used_tasks[1].inputs).shape == (len(used_tasks[1].labels), 4)
    assert learner.lora.ranks == [2, 2]
    assert all(up.abs().sum() > 0 for task in range(2) for up, _ in learner.lora.direction(task))


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("size", [8, 12, 16])
def test_pictures_of_another_size_get_interpolated_positions(
    kind: str, size: int, tiny: Folder, tasks: list[Examples]
) -> None:
    backbone = Backbone(str(tiny(kind)), size=size)
    encoded = backbone.encode(tasks[0].inputs[:2])
    assert encoded["pixel_values"].shape == (2, 3, size, size)
    assert backbone(encoded).shape == (2, 16)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("size", [None, 12])
def test_pictures_are_read_as_bytes_and_ready_as_the_processor_would_have_them(
    kind: str, size: int | None, tiny: Folder, tasks: list[Examples]
) -> None:
    backbone = Backbone(str(tiny(kind)), size=size)
    noise = Image.frombytes("RGB", (31, 22), torch.randint(256, (31 * 22 * 3,), dtype=torch.uint8).numpy().tobytes())
    pictures = [noise, tasks[0].inputs[0].convert("RGB")]  # type: ignore[union-attr]
    read = backbone.preprocess(pictures)
    assert {key: (tensor.dtype, tensor.shape[1:]) for key, tensor in read.items()} == {
        "pixels": (torch.uint8, (3, size or 8, size or 8))
    }
    square = {"height": size, "width": size}
    own = backbone.encoder(pictures, return_tensors="pt", **({"size": square, "crop_size": square} if size else {}))
    for ready in (backbone.to_device(read), backbone.encode(pictures)):
        assert list(ready) == ["pixel_values"]
        torch.testing.assert_close(ready["pixel_values"], own["pixel_values"], rtol=0, atol=1e-6)


def test_a_processor_that_only_resizes_is_respected(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    path = tmp_path / "vit" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_rescale": False, "do_normalize": False}))
    white = Image.new("RGB", (8, 8), "white")
    assert Backbone(str(tmp_path / "vit")).encode([white])["pixel_values"].eq(255).all()


class LateResize:
    """A processor that resizes what it has scaled, so that its bytes are not enough."""

    do_rescale, rescale_factor, do_normalize = True, 1 / 255, False

    def __call__(self, pictures: list[Image.Image], do_rescale: bool = True, **_: object) -> dict[str, torch.Tensor]:
        pixels = torch.stack([pil_to_tensor(picture) for picture in pictures])
        resized = torch.nn.functional.interpolate(
            pixels / 255 if do_rescale else pixels.float(), (8, 8), mode="bicubic"
        )
        return {"pixel_values": resized if do_rescale else resized.clamp(0, 255).round().to(torch.uint8)}


def pil_to_tensor(picture: Image.Image) -> torch.Tensor:
    width, height = picture.size
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def test_a_processor_that_resizes_after_scaling_finishes_its_work(
    tiny: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", lambda *_, **__: LateResize())
    backbone = Backbone(str(tiny("vit")))
    pictures = [Image.new("RGB", (20, 16), "red")]
    read, own = backbone.preprocess(pictures), LateResize()(pictures)
    assert list(read) == ["pixel_values"]
    assert torch.equal(read["pixel_values"], own["pixel_values"])
    assert torch.equal(backbone.encode(pictures)["pixel_values"], own["pixel_values"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_what_was_read_is_made_ready_on_the_gpu(
    kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    backbone = Backbone(str(tiny(kind)))
    read = backbone.preprocess((tasks if backbone.reads_images else questions)[0].inputs)
    before = backbone(backbone.to_device(read))
    after = backbone.cuda()(backbone.to_device(read))
    assert after.is_cuda
    torch.testing.assert_close(after.cpu(), before, rtol=1e-3, atol=1e-4)
    assert not any(tensor.is_cuda for tensor in read.values())


def test_a_size_of_its_own_changes_nothing(tiny: Folder, tasks: list[Examples]) -> None:
    plain, sized = Backbone(str(tiny("vit"))), Backbone(str(tiny("vit")), size=8)
    inputs = tasks[0].inputs[:2]
    assert torch.equal(plain(plain.encode(inputs)), sized(sized.encode(inputs)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_a_picture_of_any_mode_is_seen_in_colour(mode: str, tiny: Folder) -> None:
    backbone = Backbone(str(tiny("vit")))
    picture = Image.new("RGB", (5, 9), (0, 0, 255)).convert(mode)
    assert torch.equal(
        backbone.encode([picture])["pixel_values"], backbone.encode([picture.convert("RGB")])["pixel_values"]
    )


def test_pooling_takes_the_first_token_or_the_mean_without_padding(tiny: Folder, questions: list[Examples]) -> None:
    inputs = ["my card is lost", "lost"]
    first, mean = (Backbone(str(tiny("bert")), pooling=pooling) for pooling in ("cls", "mean"))
    encoded = mean.encode(inputs)
    states = mean.model(**encoded).last_hidden_state
    assert encoded["attention_mask"].sum(1).tolist() == [6, 3]
    torch.testing.assert_close(first(encoded), states[:, 0])
    torch.testing.assert_close(mean(encoded)[1], states[1, :3].mean(0))
    assert (Backbone(str(tiny("bert"))).pooling, Backbone(str(tiny("vit"))).pooling) == ("mean", "cls")
    pictures = Backbone(str(tiny("vit")), pooling="mean")
    seen = pictures.encode([Image.new("RGB", (8, 8))])
    torch.testing.assert_close(pictures(seen), pictures.model(**seen).last_hidden_state.mean(1))


@pytest.mark.parametrize(
    ("kind", "places"),
    [("bert", 24), ("roberta", 22), ("xlm-roberta", 22), ("distilbert", 24), ("electra", 24), ("mpnet", 22)],
)
def test_a_text_longer_than_the_model_is_cut(kind: str, places: int, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)))
    encoded = backbone.encode(["card " * 100])
    assert encoded["input_ids"].shape == (1, places)
    assert backbone(encoded).isfinite().all()
    assert Backbone(str(tiny(kind)), max_tokens=5).encode(["card " * 100])["input_ids"].shape == (1, 5)
    with pytest.raises(SettingError, match=f"max_tokens = 100, but the backbone has positions for {places}"):
        Backbone(str(tiny(kind)), max_tokens=100)


def test_the_wrong_kind_of_input_is_named(tiny: Folder) -> None:
    with pytest.raises(LearnerError, match="reads images, but was given a str"):
        Backbone(str(tiny("vit"))).encode(["a text"])
    with pytest.raises(LearnerError, match="reads texts, but was given a Image"):
        Backbone(str(tiny("bert"))).encode([Image.new("RGB", (8, 8))])
    learner = SDLoRA(str(tiny("bert")), rank=2, epochs=1)
    with pytest.raises(LearnerError, match="reads texts, but was given a Image"):
        learner.learn(Examples(["lost", Image.new("RGB", (8, 8))], ["text", "picture"]))


def test_texts_of_like_length_follow_each_other_and_pictures_stay_as_they_are(tiny: Folder) -> None:
    texts = ["my card is lost", "lost", "where is my card", "rate"]
    assert Backbone(str(tiny("bert"))).sort_by_length(texts, [2, 0, 3, 1]) == [3, 1, 0, 2]
    pictures = [Image.new("RGB", (side, side)) for side in (9, 8, 10)]
    assert Backbone(str(tiny("vit"))).sort_by_length(pictures, [2, 0]) == [2, 0]


@pytest.mark.parametrize(
    "setting", [{"size": 0}, {"max_tokens": -1}, {"pooling": "max"}, {"sise": 12}, {"target_modules": []}]
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, object], tiny: Folder) -> None:
    with pytest.raises(SettingError):
        Backbone(str(tiny("vit")), **setting)  # type: ignore[arg-type]


def test_a_name_that_leads_nowhere_is_one_line() -> None:
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        Backbone("nobody/no-such-model")
    assert "\n" not in str(caught.value)
    assert "'nobody/no-such-model'" in str(caught.value)


def test_a_mistyped_name_of_an_embedded_backbone_is_answered_by_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newcomer.backbones.loading.hub_is_reachable", lambda: False)
    with pytest.raises(DataError, match=r"; did you mean 'micro-vit'\? or give a model folder"):
        Backbone("micro-vitt")


def test_a_folder_with_a_damaged_config_is_one_line(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    (tmp_path / "vit" / "config.json").write_text("{")
    with pytest.raises(DataError) as caught:
        Backbone(str(tmp_path / "vit"))
    assert "\n" not in str(caught.value)


def test_a_folder_with_damaged_weights_is_one_line(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    weights = tmp_path / "vit" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError) as caught:
        Backbone(str(tmp_path / "vit"))
    assert "\n" not in str(caught.value)


def test_weights_that_the_file_lacks_are_not_made_up(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    weights = load_file(tmp_path / "vit" / "model.safetensors")
    lost = next(name for name in weights if "q_proj" in name or "query" in name)
    save_file(
        {name: t for name, t in weights.items() if name != lost},
        tmp_path / "vit" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(DataError, match="lacks"):
        Backbone(str(tmp_path / "vit"))


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["key"], ["encoder.layer.0.attention.self.key", "encoder.layer.1.attention.self.key"]),
        (["encoder.layer.1.attention.self.query"], ["encoder.layer.1.attention.self.query"]),
        (["1.output.dense", "self.value", "value"], [
            "encoder.layer.0.attention.self.value", "encoder.layer.1.attention.self.value", "encoder.layer.1.output.dense"
        ]),
    ],
)  # fmt: skip
def test_a_user_names_what_is_adapted(
    targets: list[str], found: list[str], tiny: Folder, questions: list[Examples]
) -> None:
    learner = SDLoRA(Backbone(str(tiny("bert")), target_modules=targets), rank=2, epochs=1).learn(questions[0])
    assert learner.backbone.projections == found
    assert learner.backbone.settings["target_modules"] == targets
    assert len(learner.lora.direction(0)) == len(found)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["value", "qeury"], "target_modules has 'qeury', where no linear module's name ends; did you mean 'query'?"),
        (["layer.9.attention.self.key"], "did you mean 'key'?"),
        (["uery"], "did you mean 'query'?"),
        (["zzz"], "known: dense, key, query, value"),
        (["embeddings.LayerNorm"], "no linear module's name ends"),
        ([""], "no linear module's name ends"),
    ],
)
def test_a_target_module_that_is_none_is_one_line(targets: list[str], message: str, tiny: Folder) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        Backbone(str(tiny("bert")), target_modules=targets)
    assert "\n" not in str(caught.value)


def test_a_model_without_query_and_value_layers_cannot_be_adapted(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("gpt_neox")))
    assert backbone.projections == []
    with pytest.raises(LearnerError, match="no linear query and value projections"):
        SDLoRA(backbone)


def test_the_fingerprint_tells_other_weights_of_the_same_name(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    before = Backbone(str(tmp_path / "vit"))
    assert before.fingerprint == Backbone(str(tiny("vit"))).fingerprint
    with torch.no_grad():
        next(before.model.parameters()).view(-1)[0] += 1
    before.model.save_pretrained(tmp_path / "vit")  # type: ignore[operator]
    assert Backbone(str(tmp_path / "vit")).fingerprint != before.fingerprint


def test_a_folder_under_the_data_root_comes_before_the_hub(
    tiny: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit-of-someone")
    monkeypatch.setenv("NEWCOMER_DATA", str(tmp_path))
    assert Backbone("someone/vit-of-someone").width == 16


def test_its_own_preprocessing_travels_with_it(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("vit"), tmp_path / "vit")
    path = tmp_path / "vit" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}))
    white = Image.new("RGB", (8, 8), "white")
    assert Backbone(str(tmp_path / "vit")).encode([white])["pixel_values"].eq(1).all()


def test_modes_and_gradients_are_borrowed() -> None:
    net = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))
    net[1].eval()
    with evaluating(net):
        assert not any(part.training for part in net.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in net.modules()] == [True, True, False]
    with pytest.raises(ZeroDivisionError), evaluating(net):
        raise ZeroDivisionError
    assert [part.training for part in net.modules()] == [True, True, False]
