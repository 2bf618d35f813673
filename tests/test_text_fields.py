"""Item fields of texts, read by a frozen encoder, and of vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newcomer.backbones import backbone
from newcomer.backbones.backbone import Backbone
from newcomer.data.click_log import ClickLog, Column
from newcomer.data.io.log_reader import items_from_frame, log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import VectorScaler, coding_from_json
from newcomer.errors import DataError, StoreError
from newcomer.items.encoding import text_encoder as sentences
from newcomer.items.encoding.encoder import Encoder
from newcomer.items.encoding.text_encoder import TextEncoder
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.nn.ctr.field_embeddings import CategoricalSize, NumericSize

ABOUT = ["where is my card", "the card was stolen", "top up failed", "exchange rate of the euro", "refund please"]
SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 1, "batch_size": 64, "warmup_steps": 2}
LEARNERS: list[Any] = [(EmerG, SHORT | {"meta_epochs": 1, "episodes_per_step": 4}), (IdTuning, SHORT | {"hidden": [8]})]


@pytest.fixture(autouse=True)
def _each_encoder_is_loaded_anew() -> None:
    sentences._LOADED.clear()
    sentences._features.cache_clear()


@pytest.fixture
def encoder(tiny: Callable[[str], Path]) -> str:
    return str(tiny("bert"))


def schema_of(encoder: str | None, *more: Field) -> Schema:
    about = Field("about", "item", "text", missing="mark", encoder=encoder)
    return Schema("card", "who", fields=(about, Field("look", "item", "vector", missing="mark"), *more))


def table(cards: int = 10, events: int = 20) -> pl.DataFrame:
    """Of the second card nothing is known but its id."""
    chance = np.random.default_rng(0)
    card = np.repeat(np.arange(cards), events)
    looks = chance.normal(size=(cards, 3))
    return pl.DataFrame(
        {
            "card": [f"c{n:02d}" for n in card],
            "who": chance.integers(0, 9, len(card)),
            "label": chance.integers(0, 2, len(card)),
            "time": chance.permutation(len(card)),
            "about": [None if n == 1 else ABOUT[n % 5] for n in card],
            "look": [None if n == 1 else looks[n].tolist() for n in card],
        }
    )


def parse_items(log: ClickLog) -> pl.DataFrame:
    return table(12).unique("card", maintain_order=True)[len(log.items) :].drop("who", "label", "time")


VECTORS = st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=2), min_size=2)


@given(VECTORS)
def test_scaled_vectors_have_mean_zero_and_keep_their_directions(rows: list[list[float]]) -> None:
    column = Column.of_vectors(rows)
    scale = VectorScaler.fit("look", column)
    found = scale.encode(column).astype(np.float64)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3 + 1e-4 / scale.deviation)
    np.testing.assert_allclose(found * scale.deviation + np.array(scale.mean), column.values, atol=1e-3)
    assert coding_from_json(scale.to_json()) == scale


def test_scaled_vectors_have_a_mean_square_of_one_and_unknown_ones_stay_so() -> None:
    column = Column.of_vectors([[1.0, 2.0], [float("nan")] * 2, [3.0, 8.0], [4.0, 2.0]])
    found = VectorScaler.fit("look", column).encode(column)
    assert np.isnan(found).tolist() == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    np.testing.assert_allclose(np.nanmean(found**2), 1, rtol=1e-6)


def test_a_vector_of_another_length_is_refused_and_none_at_all_is_not_known() -> None:
    scale = VectorScaler.fit("look", Column.of_vectors([[1.0, 2.0]]))
    with pytest.raises(DataError, match=r"column 'look': vectors of 3 numbers, but there were 2 in training"):
        scale.encode(Column.of_vectors([[1.0, 2.0, 3.0]]))
    assert np.isnan(scale.encode(Column.of_vectors(np.empty((2, 0))))).tolist() == [[True, True]] * 2


def test_a_text_is_its_encoders_feature(encoder: str) -> None:
    column = Column.of_names([*ABOUT, None, ABOUT[1]])
    coding = TextEncoder.fit("about", column, encoder)
    backbone = Backbone(encoder)
    with torch.inference_mode():
        slow = np.concatenate([backbone(backbone.encode([text])).numpy() for text in [*ABOUT, ABOUT[1]]])
    found = coding.encode(column)
    expected = coding.scale.encode(Column.of_vectors(slow))
    np.testing.assert_allclose(found[[0, 1, 2, 3, 4, 6]], expected, atol=1e-4)
    assert np.isnan(found[5]).all()


def test_every_distinct_text_is_encoded_once(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    encode = Backbone.encode

    def noting(self: Backbone, inputs: Any) -> Any:
        read.extend(inputs)
        return encode(self, inputs)

    monkeypatch.setattr(Backbone, "encode", noting)
    log = log_from_frame(table(), schema_of(encoder))
    fitted = Encoder.fit(log)
    fitted.items(log.items)
    assert sorted(read) == sorted(ABOUT)


def test_an_encoder_that_reads_pictures_is_refused(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match=r"encoder '.*' reads images; give one that reads texts"):
        TextEncoder.fit("about", Column.of_names(["a"]), str(tiny("vit")))


def test_what_a_network_embeds_is_said_field_by_field(encoder: str) -> None:
    log = log_from_frame(table().with_columns(price=1.5), schema_of(encoder, Field("price", "item", "numeric")))
    fitted = Encoder.fit(log)
    assert fitted.item_sizes() == [NumericSize(16), NumericSize(3), NumericSize(1)]
    assert fitted.row_sizes() == [CategoricalSize(2 + len(log.users))]
    again = Encoder.from_json(log.schema, fitted.to_json())
    for one, other in zip(fitted.items(log.items), again.items(log.items), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "settings"), LEARNERS, ids=["emerg", "deepfm"])
def test_a_learner_of_texts_and_vectors_is_saved_and_takes_up_new_items(
    kind: Any, settings: dict[str, Any], encoder: str, tmp_path: Path
) -> None:
    log = log_from_frame(table(), schema_of(encoder))
    learner = kind(log.schema, **settings).learn(log)
    learner.save(tmp_path / "store")
    scores = []
    for one in (learner, kind.load(tmp_path / "store")):
        requests = table(12).drop("label", "time", "about", "look")
        scores.append(one.add(parse_items(log)).score(requests))
    assert (scores[0] == scores[1]).all()
    assert np.isfinite(scores[0]).all()


def test_a_text_and_a_vector_change_what_a_new_item_scores(encoder: str) -> None:
    log = log_from_frame(table(), schema_of(encoder))
    learner = IdTuning(log.schema, **LEARNERS[1][1]).learn(log)
    new = pl.DataFrame(
        {
            "card": ["x", "y", "z", "nothing"],
            "about": [*ABOUT[:2], ABOUT[0], None],
            "look": [[1.0] * 3, [1.0] * 3, [-1.0] * 3, None],
        }
    )
    scores = learner.add(new).score(pl.DataFrame({"card": ["x", "y", "z", "nothing"], "who": [1] * 4}))
    assert len(set(scores)) == 4


def test_another_encoder_in_the_same_place_is_refused(
    encoder: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    log = log_from_frame(table(), schema_of(encoder))
    learner = IdTuning(log.schema, **LEARNERS[1][1]).learn(log)
    coding = learner.encoder.codings["about"]
    assert isinstance(coding, TextEncoder)
    learner.save(tmp_path / "store")
    known = IdTuning.load(tmp_path / "store")
    learner.encoder.codings["about"] = TextEncoder(coding.scale, str(tiny("electra")), coding.fingerprint)
    with pytest.raises(
        StoreError, match=rf"column 'about': encoder .* has the fingerprint .* learned with {coding.fingerprint}"
    ):
        learner.add(parse_items(log))
    assert len(learner.entries) == 1
    assert len(known.add(parse_items(log)).known) == 12


def test_known_items_are_scored_without_the_encoder(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_from_frame(table(), schema_of(encoder))
    EmerG(log.schema, **LEARNERS[0][1]).learn(log).save(tmp_path / "store")
    sentences._LOADED.clear()
    monkeypatch.setattr(backbone, "Backbone", None)
    assert np.isfinite(EmerG.load(tmp_path / "store").score(log)).all()


@pytest.mark.parametrize(("kind", "settings"), LEARNERS, ids=["emerg", "deepfm"])
def test_fields_of_which_nothing_is_known_are_learned_from(kind: Any, settings: dict[str, Any]) -> None:
    """Old items without any value at all, and a new one that is the first to have some."""
    kinds = ("categorical", "multi", "numeric", "text", "vector")
    schema = Schema("card", "who", fields=tuple(Field(k, "item", k, missing="mark") for k in kinds))  # type: ignore[arg-type]
    frame = table().select("card", "who", "label", "time").with_columns(pl.lit(None).alias(k) for k in kinds)
    learner = kind(schema, **settings).learn(frame)
    new = {"card": ["x"], "categorical": ["a"], "multi": ["a|b"], "numeric": [3.0], "text": ["a b"], "vector": [None]}
    scores = learner.add(pl.DataFrame(new)).score(pl.DataFrame({"card": ["x", "c01"], "who": [1, 1]}))
    assert np.isfinite(scores).all()


def test_a_new_item_needs_no_known_value() -> None:
    schema = schema_of(None)
    log = log_from_frame(table(), schema)
    learner = EmerG(schema, **LEARNERS[0][1]).learn(log)
    nothing = items_from_frame(pl.DataFrame({"card": ["x"], "about": [""], "look": [None]}), schema)
    assert np.isfinite(learner.add(nothing).score(pl.DataFrame({"card": ["x"], "who": [1]}))).all()
