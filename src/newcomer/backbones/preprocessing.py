"""Description of a backbone's preprocessing and configuration, with which a store detects changed files."""

import hashlib
import json
from typing import Any

from newcomer.settings import Json

OF_IMAGES = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_pad",
    "pad_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "input_size",
    "interpolation",
    "crop_mode",
    "mean",
    "std",
)
"""Settings of image processors that change a model's input."""

OF_MODELS = (
    "model_type",
    "hidden_act",
    "activation",
    "activation_function",
    "hidden_activation",
    "num_attention_heads",
    "n_heads",
    "num_hidden_layers",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "position_embedding_type",
    "patch_size",
    "is_decoder",
    "local_attention",
    "global_attn_every_n_layers",
    "position_buckets",
    "relative_attention",
    "rms_norm_eps",
    "num_key_value_heads",
    "head_dim",
    "rope_parameters",
    "sliding_window",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "use_bidirectional_attention",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
)
"""Settings of models that change the output with the same weights."""

PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "I'll PAY £12.50 at 9:30am, o.k.?  (50% off!)",
    "naïve café Ångström İstanbul straße",
    "съешь ещё этих мягких булок",
    "汉字 日本語テスト 한국어 ไทย हिन्दी عربى",
    "tabs\tand\nlines  and   spaces",
    "https://example.org/a_b?c=d#e C++ #tag @name 😀",
    "antidisestablishmentarianism 1234567890 3.14159",
)
"""Texts that tokenizers split differently."""

WORDS = 1000
"""Number of vocabulary entries, evenly spaced, that are tokenized too."""


def of_model(config: Any) -> dict[str, Json]:
    """Settings of a model's configuration (`OF_MODELS`) that it has."""
    kinds = (str, bool, int, float, dict)
    return {key: value for key in OF_MODELS if isinstance(value := getattr(config, key, None), kinds)}


def of_processor(processor: Any) -> dict[str, Json]:
    """Settings of an image processor (`OF_IMAGES`) that it has."""
    table = processor.to_dict() if hasattr(processor, "to_dict") else getattr(processor, "config", {})
    found = {key: table[key] for key in OF_IMAGES if table.get(key) is not None}
    plain: dict[str, Json] = json.loads(json.dumps(found, default=lambda value: getattr(value, "value", str(value))))
    return plain


def of_tokenizer(tokenizer: Any) -> dict[str, Json]:
    """Digest of a tokenizer's vocabulary and of its tokens of some texts, independent of its file format."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    step = max(1, len(vocabulary) // WORDS)
    texts = [*PROBES, *(str(word) for word, _ in vocabulary[::step])]
    tokens = tokenizer(texts, add_special_tokens=True, padding=False, truncation=False)["input_ids"]
    digest = hashlib.sha256(json.dumps([vocabulary, tokens], ensure_ascii=False).encode()).hexdigest()
    return {
        "tokenizer": digest[:16],
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
    }


def unknown_words(tokenizer: Any, known_to_model: int | None) -> str | None:
    """Problem of a tokenizer that does not fit the model (missing or foreign files), if any."""
    words = len(tokenizer.get_vocab())
    if known_to_model and words < known_to_model / 2:
        return f"its tokenizer knows {words:,} of the {known_to_model:,} words that its model has"
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        return "its tokenizer knows no word"
    return None
