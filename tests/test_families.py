"""Families of encoders: features of each, towers of two-tower models, and fused projections."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from covering import every_run
from newcomer.backbones import backbone as room
from newcomer.backbones.backbone import Backbone
from newcomer.backbones.families import FAMILIES, Pooling, family_of
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples, Input
from newcomer.errors import DataError, SettingError
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.nn.lora.fused_linear import FusedLinear

Folder = Callable[[str], Path]
FUSED = [kind for kind, family in FAMILIES.items() if family.fused]
EVERY_POOLING = [
    pytest.param(*kind.values, pooling, marks=kind.marks)
    for kind in every_run(FAMILIES)
    for pooling in FAMILIES[kind.values[0]].poolings
]


def some(backbone: Backbone) -> list[Input]:
    """Two pictures or two texts."""
    if not backbone.reads_images:
        return ["my card is lost", "lost"]
    bits = torch.Generator().manual_seed(1)
    noise = [torch.randint(256, (8 * 8 * 3,), dtype=torch.uint8, generator=bits).numpy().tobytes() for _ in range(2)]
    return [Image.frombytes("RGB", (8, 8), picture) for picture in noise]


@pytest.mark.parametrize(("kind", "pooling"), EVERY_POOLING)
def test_every_pooling_of_a_family_gives_one_vector_an_input(kind: str, pooling: Pooling, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)), pooling=pooling)
    assert backbone(backbone.encode(some(backbone))).shape == (2, 16)


@pytest.mark.parametrize("kind", every_run(FAMILIES))
def test_a_family_says_what_it_cannot_pool(kind: str, tiny: Folder) -> None:
    poolings = FAMILIES[kind].poolings
    assert Backbone(str(tiny(kind))).pooling == poolings[0]
    for pooling in {"cls", "mean", "pooler", "last"} - set(poolings):
        with pytest.raises(SettingError, match=f"pooling = '{pooling}', which .* has not; give one of: ") as caught:
            Backbone(str(tiny(kind)), pooling=cast(Pooling, pooling))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "pooled"),
    [
        ("clip", lambda model, states: model.post_layernorm(states[:, 0])),
        ("siglip", lambda model, states: model.head(states)),
        ("dinov2", lambda model, states: states[:, 0]),
        ("vit", lambda model, states: model.pooler.dense(states[:, 0]).tanh()),
        ("bert", lambda model, states: model.pooler.dense(states[:, 0]).tanh()),
    ],
)
def test_the_pooler_is_the_models_own(kind: str, pooled: Callable[..., torch.Tensor], tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)), pooling="pooler")
    encoded = backbone.encode(some(backbone))
    states = backbone.model(**encoded).last_hidden_state
    torch.testing.assert_close(backbone(encoded), pooled(backbone.model, states))


def test_a_pooler_that_was_never_trained_is_not_made_up(tiny: Folder, tmp_path: Path) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "bert")
    weights = tmp_path / "bert" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "pooler" not in name}
    save_file(kept, weights, {"format": "pt"})
    assert Backbone(str(tmp_path / "bert")).fingerprint == Backbone(str(tiny("bert"))).fingerprint
    with pytest.raises(DataError, match="lacks weights"):
        Backbone(str(tmp_path / "bert"), pooling="pooler")


def test_a_model_that_pools_nothing_says_so(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("roformer")), pooling="pooler")
    with pytest.raises(SettingError, match=r"pooling = 'pooler', which .* has not; give 'cls' or 'mean'"):
        backbone(backbone.encode(["lost"]))


@pytest.mark.parametrize(("kind", "tower"), [("clip", hf.CLIPVisionModel), ("siglip", hf.SiglipVisionModel)])
def test_a_folder_of_both_towers_is_its_tower_for_pictures(kind: str, tower: Any, tiny: Folder, tmp_path: Path) -> None:
    tower.from_pretrained(tiny(kind)).save_pretrained(tmp_path / "tower")
    shutil.copy(tiny(kind) / "preprocessor_config.json", tmp_path / "tower")
    both, alone = Backbone(str(tiny(kind))), Backbone(str(tmp_path / "tower"))
    assert json.loads((tmp_path / "tower" / "config.json").read_text())["model_type"] == f"{kind}_vision_model"
    assert both.fingerprint == alone.fingerprint
    assert torch.equal(both(both.encode(some(both))), alone(alone.encode(some(alone))))


@pytest.mark.parametrize("kind", ["vit", "bert", "distilbert", "mpnet", "deberta-v2"])
def test_a_family_that_is_not_in_the_table_is_tried_by_the_known_names(
    kind: str, tiny: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Backbone(str(tiny(kind)))
    monkeypatch.setattr(room, "family_of", lambda _, model: family_of(SimpleNamespace(model_type="unknown"), model))
    unknown = Backbone(str(tiny(kind)))
    assert (unknown.projections, unknown.pooling) == (known.projections, known.pooling)


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_layer_taken_apart_computes_the_same(bias: bool) -> None:
    whole = nn.Linear(4, 15, bias=bias).eval()
    apart, x = FusedLinear(whole), torch.randn(2, 3, 4)
    torch.testing.assert_close(apart(x), whole(x), rtol=0, atol=1e-6)
    assert not any(weight.requires_grad for weight in apart.parameters())
    for part in FusedLinear.PARTS:
        layer = cast(nn.Linear, apart.get_submodule(part))
        assert torch.equal(layer(x), apart(x)[..., FusedLinear.rows(part, 15)])
        assert not layer.training
        assert layer.weight.untyped_storage().data_ptr() == whole.weight.untyped_storage().data_ptr()  # no copy


@pytest.mark.parametrize("kind", FUSED)
def test_a_model_with_fused_layers_stays_what_it_was(kind: str, tiny: Folder) -> None:
    backbone, original = Backbone(str(tiny(kind))), hf.AutoModel.from_pretrained(tiny(kind)).eval()
    encoded = backbone.encode(some(backbone))
    torch.testing.assert_close(
        backbone.model(**encoded).last_hidden_state, original(**encoded).last_hidden_state, rtol=0, atol=1e-6
    )
    whole = Backbone(str(tiny(kind)), target_modules=list(FAMILIES[kind].projections))
    assert whole.projections == [name.removesuffix(".query") for name in backbone.projections[::2]]
    assert not any(isinstance(layer, FusedLinear) for layer in whole.model.modules())
    assert whole.fingerprint == backbone.fingerprint


@pytest.mark.parametrize("kind", FUSED)
def test_only_the_rows_of_query_and_value_move(
    kind: str, tiny: Folder, tasks: list[Examples], questions: list[Examples]
) -> None:
    learner = SDLoRA(str(tiny(kind)), rank=2, epochs=3, learning_rate=1e-2)
    learner.learn((tasks if learner.backbone.reads_images else questions)[0])
    fused = [layer for layer in learner.backbone.model.modules() if isinstance(layer, FusedLinear)]
    assert len(fused) == 2
    x = torch.randn(5, 16)
    for layer in fused:
        assert [type(part) for part in layer.children()] == [AdaptedLinear, nn.Linear, AdaptedLinear]
        with torch.no_grad():
            before = layer(x)
            with learner.lora.applied():
                moved = (layer(x) != before).any(0)
        changed = [bool(moved[FusedLinear.rows(part, 48)].any()) for part in FusedLinear.PARTS]
        assert changed == [True, False, True]


def _timm_folder(folder: Path, **config: object) -> str:
    """A folder as timm's own are: its config says nothing of transformers."""
    picture = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": picture, "num_classes": 0} | config))
    return str(folder)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_timm_model_without_timm_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs timm; run: pip install 'newcomer\[timm\]'$"):
        Backbone(_timm_folder(tmp_path, architecture="vit_tiny_patch16_224"))


def test_a_processor_without_its_library_says_what_to_install(
    tiny: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ImportError("\nDINOv3ViTImageProcessor requires the Torchvision library but it was not found")

    monkeypatch.setattr(hf.AutoImageProcessor, "from_pretrained", lacking)
    with pytest.raises(DataError, match=r"needs torchvision; run: pip install torchvision$"):
        Backbone(str(tiny("dinov3_vit")))


def test_a_timm_net_without_tokens_gives_what_it_pools(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet10t", num_classes=0)
    save_file(net.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    backbone = Backbone(_timm_folder(tmp_path, architecture="resnet10t"), size=64)
    assert (backbone.pooling, backbone.width, backbone.projections) == ("pooler", 512, [])
    encoded = backbone.encode(some(backbone))
    assert encoded["pixel_values"].shape == (2, 3, 64, 64)
    torch.testing.assert_close(backbone(encoded), net.eval()(encoded["pixel_values"]))
    for pooling in ("cls", "mean"):
        with pytest.raises(SettingError, match="give one of: pooler"):
            Backbone(str(tmp_path), pooling=pooling)
