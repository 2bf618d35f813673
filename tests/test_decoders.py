"""Decoders as backbones: the last token's state, padding, positions, layers of GPT-2, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from covering import ALIKE, every_run
from newcomer.backbones import families
from newcomer.backbones.backbone import Backbone, last_tokens
from newcomer.backbones.families import FAMILIES, is_causal
from newcomer.backbones.reloading import PlainBackbone
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataError, SettingError

Folder = Callable[[str], Path]
DECODERS = [kind for kind, family in FAMILIES.items() if "last" in family.poolings]
ENCODERS = [kind for kind, family in FAMILIES.items() if family.poolings[0] == "mean"]
TEXTS = ["my card is lost", "lost", "where is the exchange rate of my euro please", "a refund"]


@pytest.fixture
def copied(tiny: Folder, tmp_path: Path) -> Callable[..., Path]:
    """A folder of this kind with another tokenizer or model configuration."""

    def copy(kind: str, tokenizer: dict[str, Any] | None = None, without: tuple[str, ...] = (), **config: Any) -> Path:
        folder = Path(shutil.copytree(tiny(kind), tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"))
        for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer or {})):
            content = json.loads((folder / name).read_text()) | changes
            (folder / name).write_text(json.dumps({key: value for key, value in content.items() if key not in without}))
        return folder

    return copy


def features(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = backbone(backbone.encode(texts))
    return found


@pytest.mark.parametrize("kind", every_run(DECODERS))
def test_a_text_has_the_features_of_its_last_token_whatever_is_beside_it(kind: str, tiny: Folder) -> None:
    """Against the model of transformers on one text alone, without padding."""
    backbone, plain = Backbone(str(tiny(kind))), hf.AutoModel.from_pretrained(tiny(kind)).eval()
    together = features(backbone, TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        tokens = torch.tensor([backbone.encoder(text).input_ids[: backbone.max_tokens]])
        with torch.inference_mode():
            wanted = plain(input_ids=tokens).last_hidden_state[0, -1]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(features(backbone, [text])[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", every_run(DECODERS))
def test_the_side_on_which_a_folder_pads_changes_no_bit(kind: str, copied: Callable[..., Path]) -> None:
    left, right = (Backbone(str(copied(kind, {"padding_side": side}))) for side in ("left", "right"))
    assert left.encoder.padding_side == right.encoder.padding_side == "right"
    assert torch.equal(features(left, TEXTS), features(right, TEXTS))


def test_the_last_token_is_found_on_either_side_of_padding() -> None:
    assert last_tokens(torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]])).tolist() == [
        2, 4, 4, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", every_run(kind for kind in DECODERS if kind != "gpt2"))
def test_a_batch_padded_on_the_left_gives_the_same_where_positions_are_relative(kind: str, tiny: Folder) -> None:
    """As another library may have encoded it; absolute positions (GPT-2) count from the left."""
    backbone = Backbone(str(tiny(kind)))
    wanted = features(backbone, TEXTS)
    backbone.encoder.padding_side = "left"
    encoded = backbone.encode(TEXTS)
    assert (encoded["attention_mask"][:, 0] == 0).any()
    with torch.inference_mode():
        torch.testing.assert_close(backbone(encoded), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", every_run([*DECODERS, *ENCODERS], {*ALIKE, *ENCODERS[1:-1]}))
def test_a_decoder_is_known_by_what_it_computes(kind: str, tiny: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    causal = kind not in ENCODERS
    assert is_causal(Backbone(str(tiny(kind))).model) == causal
    monkeypatch.setattr(families, "FAMILIES", {})
    backbone = Backbone(str(tiny(kind)))
    assert (backbone.is_causal, backbone.pooling) == (causal, "last" if causal else "mean")


def test_a_decoder_of_no_known_family_is_pooled_at_its_last_token(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("gpt_neox")), target_modules=["query_key_value"])
    assert (backbone.pooling, len(backbone.projections)) == ("last", 2)
    assert features(backbone, TEXTS).shape == (4, 16)


def test_a_decoder_made_to_read_in_both_directions_is_an_encoder(copied: Callable[..., Path]) -> None:
    """As EmbeddingGemma is: gemma3_text by its type."""
    backbone = Backbone(str(copied("gemma3_text", use_bidirectional_attention=True)))
    assert (backbone.is_causal, backbone.pooling) == (False, "mean")
    with pytest.raises(SettingError, match="pooling = 'last'"):
        Backbone(backbone.name, pooling="last")


def test_a_store_that_names_no_pooling_has_the_mean_of_tokens(tiny: Folder) -> None:
    assert PlainBackbone(str(tiny("llama"))).pooling == "mean"


def test_the_first_token_of_a_decoder_is_no_feature(tiny: Folder) -> None:
    with pytest.raises(SettingError, match=r"pooling = 'cls', which .* has not; give one of: last, mean"):
        Backbone(str(tiny("llama")), pooling="cls")


def test_a_sentence_folder_of_the_last_token_is_read_as_it_says(copied: Callable[..., Path]) -> None:
    folder = copied("qwen3")
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in types.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    for said, pooling in (("pooling_mode_lasttoken", "last"), ("pooling_mode_mean_tokens", "mean")):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({said: True}))
        assert Backbone(str(folder)).pooling == pooling


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_tokenizer_without_padding_pads_by_the_end_of_texts(kind: str, tiny: Folder) -> None:
    assert hf.AutoTokenizer.from_pretrained(tiny(kind)).pad_token is None
    backbone = Backbone(str(tiny(kind)))
    assert backbone.encoder.pad_token == "</s>"
    encoded = backbone.encode(TEXTS)
    hidden = encoded["attention_mask"] == 0
    assert (encoded["input_ids"][hidden] == 2).all()
    other = {**encoded, "input_ids": encoded["input_ids"].masked_fill(hidden, 5)}
    assert torch.equal(backbone(encoded), backbone(other))


def test_a_padding_token_that_the_model_does_not_have_is_not_used(copied: Callable[..., Path]) -> None:
    """Fine-tuned models come with a token [PAD] beyond their embeddings: an index error in the first batch."""
    folder = copied("llama", {"pad_token": "[MORE]"})
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("[MORE]") == 24
    assert Backbone(str(folder)).encoder.pad_token == "</s>"


def test_a_tokenizer_without_special_tokens_is_one_line(copied: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"no special token that could pad .*; set pad_token in its tokenizer_config"):
        Backbone(str(copied("gpt2", without=("eos_token", "unk_token"))))


def test_a_text_without_tokens_is_named(tiny: Folder) -> None:
    with pytest.raises(DataError, match=r"finds no token in '\\t'; leave it out"):
        Backbone(str(tiny("gpt2"))).encode(["my card", "\t"])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_no_more_tokens_than_positions(kind: str, tiny: Folder) -> None:
    with pytest.raises(SettingError, match="max_tokens = 25, but the backbone has positions for 24"):
        Backbone(str(tiny(kind)), max_tokens=25)


def test_rotations_are_not_scaled_by_what_is_beside_a_text(copied: Callable[..., Path]) -> None:
    """The long factors apply to a whole batch as soon as one text in it is longer than the original positions."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rotations = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 12, **factors}
    folder = str(copied("llama", rope_parameters=rotations))
    assert Backbone(folder).max_tokens == 12
    with pytest.raises(SettingError, match="positions for 12"):
        Backbone(folder, max_tokens=13)


def test_a_model_with_encoder_and_decoder_is_one_line(tmp_path: Path) -> None:
    hf.T5Config(d_model=16, num_layers=1, num_heads=2, d_ff=8, vocab_size=30).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"has an encoder and a decoder \(t5\); give a model of one of them"):
        Backbone(str(tmp_path))


def test_layers_of_gpt2_are_linear_and_compute_the_same(tiny: Folder) -> None:
    backbone, plain = Backbone(str(tiny("gpt2"))), hf.AutoModel.from_pretrained(tiny("gpt2")).eval()
    assert backbone.transposed == {
        n for n, layer in plain.named_modules() if isinstance(layer, hf.pytorch_utils.Conv1D)
    }
    assert len(backbone.transposed) == 8
    encoded = backbone.encode(TEXTS)
    with torch.inference_mode():
        states = backbone.model(**encoded).last_hidden_state
        torch.testing.assert_close(states, plain(**encoded).last_hidden_state, rtol=1e-5, atol=1e-6)
    named = Backbone(str(tiny("gpt2")), target_modules=["mlp.c_fc", "attn.c_proj", "c_attn"])
    shapes = [tuple(named.model.get_submodule(name).weight.shape) for name in named.projections[:3]]  # type: ignore[arg-type]
    assert shapes == [(48, 16), (16, 16), (64, 16)]
    assert named.fingerprint == backbone.fingerprint


@pytest.mark.parametrize("kind", every_run(["llama", "qwen3", "gemma3_text"], ["llama", "gemma3_text"]))
def test_narrow_values_have_narrow_directions(kind: str, tiny: Folder, questions: list[Examples]) -> None:
    """Grouped-query attention: two heads of queries, one of keys and values."""
    learner = SDLoRA(str(tiny(kind)), rank=2, epochs=3, learning_rate=1e-2).learn(questions[0])
    assert [tuple(up.shape) for up, _ in learner.lora.direction(0)] == [(16, 2), (8, 2)] * 2
    assert all(up.abs().sum() > 0 for up, _ in learner.lora.direction(0))


def test_nothing_is_kept_for_generation(tiny: Folder) -> None:
    backbone = Backbone(str(tiny("qwen3")))
    assert backbone.model(**backbone.encode(TEXTS)).past_key_values is None


def test_a_decoder_edited_after_learning_is_named(
    copied: Callable[..., Path], questions: list[Examples], tmp_path: Path
) -> None:
    folder = copied("llama")
    FrozenBackbone(str(folder)).learn(questions[0]).save(tmp_path / "store")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(Exception, match=r"has changed: backbone\.architecture\.rms_norm_eps was"):
        FrozenBackbone.load(tmp_path / "store")


def test_gpt2_splits_what_it_holds_fused(tiny: Folder) -> None:
    model: Any = Backbone(str(tiny("gpt2"))).model
    assert [type(part) for part in model.h[0].attn.c_attn.children()] == [nn.Linear] * 3
