"""Padding of a decoder's texts, and of texts whose tokenizer has no token for it."""

from typing import Any

from newcomer.errors import DataError

INPUTS = ["input_ids", "attention_mask"]
"""A decoder's inputs; GPT-2 would add the token types of other tokenizers to its embeddings."""


def set_padding(tokenizer: Any, name: str, vocabulary: int | None, causal: bool) -> None:
    """Give a tokenizer a padding token that the model has, and for a decoder (`causal`) pad on the right.

    Padding is masked, so any special token will do: the end of a text, where there is none for it. On the right no token of a
    decoder sees it, and positions count from the text's beginning: a text has the same states alone and beside longer ones.
    Raises DataError for a tokenizer without any special token.
    """
    if causal:
        tokenizer.padding_side = "right"
        tokenizer.model_input_names = INPUTS
    special = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token)
    known = (token for token in special if token is not None and _is_known(tokenizer, token, vocabulary))
    token = next(known, None)
    if token is None:
        raise DataError(
            f"backbone '{name}': its tokenizer has no special token that could pad shorter texts; set pad_token in its"
            " tokenizer_config.json"
        )
    if token != tokenizer.pad_token:
        tokenizer.pad_token = token


def _is_known(tokenizer: Any, token: str, vocabulary: int | None) -> bool:
    """Whether the model has an embedding of this token: fine-tuned models come with tokenizers that know more."""
    number = tokenizer.convert_tokens_to_ids(token)
    return number is not None and (vocabulary is None or number < vocabulary)
