"""Laws of every learner of items."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from covering import covering, parametrize_law, values
from newcomer.data.click_log import ClickLog
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Field, Schema
from newcomer.errors import LearnerError, SettingError, StoreError
from newcomer.experiments import recipe
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.cvar import CVAR
from newcomer.items.methods.dropout_net import DropoutNet
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.logistic import Logistic
from newcomer.items.methods.meta_embedding import MetaEmbedding
from newcomer.items.methods.mwuf import MWUF
from newcomer.nn.ctr.field_embeddings import FieldEmbeddings
from newcomer.streams.cold_start import ColdStart

SHORT: dict[str, Any] = {"width": 4, "pretrain_epochs": 1, "batch_size": 64, "meta_epochs": 2}
NET: dict[str, Any] = SHORT | {"tower": [8], "episodes_per_step": 4, "support_events": 6, "query_events": 6}
TOWER: dict[str, Any] = SHORT | {"hidden": [8], "warmup_steps": 3}
EPISODES: dict[str, Any] = {"episodes_per_step": 4, "episode_events": 6}
PAPER: dict[str, Any] = NET | {
    "layers": 3,
    "readout": "attention",
    "tower": [],
    "generate_init": False,
    "residual_l2": 0.0,
    "pretrain_graph": "shared",
    "meta_lr": 1e-3,
    "meta_trains": "all",
    "vary_support": False,
    "support_share": 0.1,
    "adaptation": "adam",
    "warmup_steps": 3,
    "warmup_events": "new",
}
CASES: dict[str, tuple[type[ItemLearner], dict[str, Any]]] = {
    "emerg": (EmerG, NET),
    "emerg, fields read in all ways": (
        EmerG,
        NET
        | {
            "smoothing_bandwidth": {"age": 1.5},
            "field_dropout": {"words": 0.5},
            "user_history": True,
            "id_dropout": 0.3,
            "weight_averaging": 0.5,
        },
    ),
    "emerg, as in the paper, fields read in all ways": (
        EmerG,
        PAPER | {"smoothing_bandwidth": {"age": 1.5}, "field_dropout": {"words": 0.5}, "user_history": True},
    ),
    "emerg, the new events of a phase": (EmerG, NET | {"warmup_events": "new", "layers": 1}),
    "emerg, residual graph, learned rates": (
        EmerG,
        NET | {"graph": "residual", "adaptation": "learned_sgd", "inner_steps": 2},
    ),
    "emerg, all weights by episodes": (EmerG, NET | {"meta_trains": "all", "second_order": True, "meta_lr": 1e-3}),
    "emerg, as in the paper": (EmerG, PAPER),
    "emerg, as in the paper, second order": (EmerG, PAPER | {"second_order": True, "inner_steps": 2}),
    "emerg, tuned graph": (EmerG, NET | {"graph": "tuned"}),
    "emerg, shared graph": (EmerG, NET | {"graph": "shared", "warmup_events": "all"}),
    "emerg, residual graph, all weights by episodes, averaged": (
        EmerG,
        NET
        | {"graph": "residual", "adaptation": "learned_sgd", "inner_steps": 2, "layers": 1, "warmup_events": "new"}
        | {"meta_trains": "all", "second_order": True, "meta_lr": 1e-3, "id_dropout": 0.3, "weight_averaging": 0.5},
    ),
    "id-tuning": (IdTuning, TOWER),
    "id-tuning, all events so far": (IdTuning, TOWER | {"warmup_events": "all"}),
    "id-tuning, DCN-V2": (IdTuning, TOWER | {"backbone": "dcn-v2"}),
    "id-tuning, AutoInt, learned prior": (IdTuning, TOWER | {"backbone": "autoint", "adaptation": "map"}),
    "id-tuning, written start, learned prior": (
        IdTuning,
        SHORT
        | {"hidden": [8], "adaptation": "map", "warmup_events": "all", "generate_init": True, "residual_l2": 0.03},
    ),
    "dropout-net": (DropoutNet, TOWER | {"generate_init": True}),
    "meta-embedding": (MetaEmbedding, TOWER | EPISODES),
    "meta-embedding, learned rates": (
        MetaEmbedding,
        TOWER | EPISODES | {"adaptation": "learned_sgd", "warmup_events": "all"},
    ),
    "mwuf": (MWUF, TOWER),
    "mwuf, all events so far": (MWUF, TOWER | {"warmup_events": "all", "backbone": "dcn-v2"}),
    "mwuf, learned prior": (MWUF, TOWER | {"warmup_events": "all", "adaptation": "map"}),
    "cvar": (CVAR, TOWER | {"latent": 3}),
    "cvar, all events so far": (CVAR, TOWER | {"warmup_events": "all", "backbone": "autoint"}),
    "cvar, AutoInt, learned prior, two epochs": (
        CVAR,
        TOWER | {"latent": 3, "backbone": "autoint", "warmup_events": "all", "adaptation": "map", "train_epochs": 2},
    ),
    "logistic": (Logistic, {}),
    "logistic, users' rates": (Logistic, {"fields": "user", "item_bias": False}),
    "cvar, learned prior": (CVAR, TOWER | {"warmup_events": "all", "adaptation": "map", "train_epochs": 2}),
}
SCHEMA = Schema(
    "film",
    "viewer",
    "liked",
    "seen",
    (
        Field("genre", "item"),
        Field("words", "item", "text"),
        Field("minutes", "item", "numeric", missing="mark"),
        Field("age", "user"),
        Field("tags", "user", "multi"),
        Field("page", "context", missing="mark"),
        Field("price", "context", "numeric"),
    ),
)


def table() -> pl.DataFrame:
    """8 films of 60 events and 4 of 36, with fields of every kind."""
    chance = np.random.default_rng(0)
    film = np.repeat(np.arange(12), [60] * 8 + [36] * 4)
    film = film[chance.permutation(len(film))]
    viewer = chance.integers(0, 15, len(film))
    words = ["sea sun", "sea", "war and sun", "love"]
    return pl.DataFrame(
        {
            "film": [f"film {n:02d}" for n in film],
            "viewer": viewer,
            "liked": chance.random(len(film)) < 0.2 + 0.06 * (film % 8),
            "seen": np.arange(len(film)),
            "genre": [f"genre {n % 3}" for n in film],
            "words": [words[n % 4] for n in film],
            "minutes": [None if n == 2 else 80.0 + n for n in film],
            "age": [str(n % 4) for n in viewer],
            "tags": ["a|b" if n % 2 else "" for n in viewer],
            "page": [["home", "list", None][n] for n in chance.integers(0, 3, len(film))],
            "price": chance.normal(size=len(film)),
        }
    )


@pytest.fixture(scope="module")
def log() -> ClickLog:
    return log_from_frame(table(), SCHEMA)


@pytest.fixture(scope="module")
def stream(log: ClickLog) -> ColdStart:
    return ColdStart(log, min_old_events=40, phase_events=6)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every law with every learner; the cases of a learner take turns."""
    cases = covering({n: values(kind, [o for _, o in CASES.values()], own) for n, (kind, own) in CASES.items()})
    parametrize_law(metafunc, "case", cases, {name: kind for name, (kind, _) in CASES.items()})


@pytest.fixture
def case(request: pytest.FixtureRequest) -> tuple[type[ItemLearner], dict[str, Any]]:
    return CASES[request.param]


def trained(case: tuple[type[ItemLearner], dict[str, Any]], stream: ColdStart, stages: int = 5, **changes: Any) -> Any:
    """A learner that is trained here and now."""
    kind, settings = case
    learner: Any = kind(stream.schema, **settings | changes)
    return further(learner, stream, stages)


def warms_up(case: tuple[type[ItemLearner], dict[str, Any]]) -> bool:
    """Whether events change an item's state: not where users' rates are all there is."""
    return case[1].get("item_bias", True) is True


Learned = Callable[..., Any]


@pytest.fixture(scope="module")
def learned(stream: ColdStart) -> Learned:
    """A copy of a learner that is trained once."""
    once: dict[tuple[str, int], Any] = {}

    def copied(case: tuple[type[ItemLearner], dict[str, Any]], stages: int = 5) -> Any:
        key = repr(case), stages
        if key not in once:
            once[key] = trained(case, stream, stages)
        return deepcopy(once[key])

    return copied


@pytest.fixture
def whole(case: Any, learned: Learned) -> dict[str, Tensor]:
    """The bits of a learner that went through all stages and nothing else."""
    return bits(learned(case))


def further(learner: Any, stream: ColdStart, stages: int = 5) -> Any:
    for stage in list(stream)[len(learner.entries) : stages]:
        for _ in learner.fit_stage(stage):
            pass
    return learner


def bits(learner: ItemLearner) -> dict[str, Tensor]:
    found = dict(learner.network.state_dict()) | {f"state {key}": value for key, value in learner.state.items()}
    return {key: value.clone() for key, value in found.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_every_item_learner_of_the_recipes_is_here() -> None:
    assert {kind for kind, _ in CASES.values()} == set(recipe.ITEMS.learners.values())


def test_the_same_seed_gives_the_same_bits_and_another_others(
    case: Any, stream: ColdStart, whole: dict[str, Tensor]
) -> None:
    torch.manual_seed(123)  # chance from elsewhere shifts nothing
    assert equal(whole, bits(trained(case, stream)))
    assert case[0] is Logistic or not equal(whole, bits(trained(case, stream, seed=1)))  # its loss has one minimum


def test_saved_and_loaded_gives_the_same_scores_to_the_bit(
    case: Any, stream: ColdStart, learned: Learned, tmp_path: Path
) -> None:
    learner = learned(case)
    learner.save(tmp_path / "store")
    loaded = case[0].load(tmp_path / "store")
    assert (loaded.score(stream.new.query) == learner.score(stream.new.query)).all()
    assert equal(bits(loaded), bits(learner))
    assert loaded.info() == learner.info()


def test_a_store_grows_with_its_learner(case: Any, stream: ColdStart, tmp_path: Path) -> None:
    learner: Any = case[0](stream.schema, **case[1])
    for stages in range(1, 6):
        further(learner, stream, stages).save(tmp_path / "store")
    assert equal(bits(case[0].load(tmp_path / "store")), bits(learner))


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.always
def test_stopped_and_resumed_equals_never_stopped(
    case: Any, stream: ColdStart, learned: Learned, whole: dict[str, Tensor], tmp_path: Path, after: int
) -> None:
    learned(case, stages=after).save(tmp_path / "store")
    resumed = further(case[0].load(tmp_path / "store"), stream)
    assert equal(bits(resumed), whole)
    resumed.save(tmp_path / "store")


def test_a_store_of_another_schema_or_learner_is_refused(stream: ColdStart, tmp_path: Path) -> None:
    trained(CASES["emerg"], stream, stages=1).save(tmp_path / "store")
    with pytest.raises(StoreError, match="holds a model of 'emerg', not of 'id-tuning'"):
        IdTuning.load(tmp_path / "store")
    with pytest.raises(StoreError, match="a dependency has changed"):
        EmerG.load(tmp_path / "store", schema=Schema("film", "viewer"))


def test_a_stage_stopped_half_way_does_not_count(
    case: Any, stream: ColdStart, learned: Learned, whole: dict[str, Tensor]
) -> None:
    learner = learned(case, stages=2)
    before = bits(learner)
    steps = learner.fit_stage(list(stream)[2])
    next(steps)
    steps.close()
    assert equal(bits(learner), before)
    assert equal(bits(further(learner, stream)), whole)


def test_scoring_changes_nothing(case: Any, stream: ColdStart, learned: Learned) -> None:
    learner = learned(case, stages=3)
    trainable = [parameter.requires_grad for parameter in learner.network.parameters()]
    before, training = bits(learner), learner.network.training
    learner.evaluate(stream.new.query)
    learner.info()
    assert equal(bits(learner), before)
    assert learner.network.training == training
    assert [parameter.requires_grad for parameter in learner.network.parameters()] == trainable


def test_a_batch_of_requests_is_its_rows(case: Any, stream: ColdStart, learned: Learned) -> None:
    learner, query = learned(case), stream.new.query
    together = learner.score(query)
    alone = np.concatenate([learner.score(query.take(np.array([row]))) for row in range(0, len(query), 5)])
    np.testing.assert_allclose(together[::5], alone, atol=2e-6)
    mixed = np.random.default_rng(0).permutation(len(query))
    np.testing.assert_allclose(learner.score(query.take(mixed)), together[mixed], atol=2e-6)


def test_warming_some_items_leaves_network_and_all_other_items_as_they_were(
    case: Any, stream: ColdStart, learned: Learned
) -> None:
    learner = learned(case, stages=2)
    before, events = bits(learner), stream.new.phases[0]
    item = int(events.item[0])
    learner.warm(events.of_items(np.array([item])))
    mine = learner.known[events.items.ids[item]]
    others = [number for number in range(len(learner.known)) if number != mine]
    for key, value in bits(learner).items():
        if key.startswith("state "):
            assert torch.equal(value[others], before[key][others])
            assert torch.equal(value[mine], before[key][mine]) == (not warms_up(case))
        else:
            assert torch.equal(value, before[key])


def test_items_warmed_together_are_items_warmed_one_by_one(case: Any, stream: ColdStart, learned: Learned) -> None:
    together, alone = learned(case, stages=2), learned(case, stages=2)
    events = stream.new.phases[0]
    uneven = events.take(np.arange(len(events)) % 5 != 0)
    together.warm(uneven)
    for item in np.unique(uneven.item):
        alone.warm(uneven.of_items(np.array([item])))
    for key, value in together.state.items():
        torch.testing.assert_close(value, alone.state[key], atol=1e-5, rtol=1e-4)


def test_adding_items_leaves_all_others_as_they_were(case: Any, stream: ColdStart, learned: Learned) -> None:
    learner = learned(case, stages=1)
    old = stream.old_log
    before = learner.score(old)
    further(learner, stream, stages=2)
    assert (learner.score(old) == before).all()


def test_every_trainable_parameter_receives_a_gradient(
    case: Any, stream: ColdStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, bool] = {}
    step = torch.optim.Adam.step

    def noting(optimizer: torch.optim.Adam, closure: None = None) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                seen[id(p)] = seen.get(id(p), False) or (p.grad is not None and bool(p.grad.any()))
        step(optimizer, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", noting)
    monkeypatch.setattr(FieldEmbeddings, "fold", lambda _: None)  # parameters stay what they were in training
    learner = trained(case, stream, stages=1)
    trainable = [(name, parameter) for name, parameter in learner.network.named_parameters() if parameter.requires_grad]
    without = [name for name, parameter in trainable if not seen.get(id(parameter))]
    assert not without


def test_users_and_values_never_seen_are_scored(case: Any, learned: Learned) -> None:
    learner = learned(case)
    request = {"film": ["film 09"], "viewer": ["nobody"], "age": ["99"], "tags": ["new|tags|altogether"]}
    scores = learner.score(pl.DataFrame(request | {"page": ["elsewhere"], "price": [1e3]}))
    assert scores.shape == (1,)
    assert 0 <= scores[0] <= 1


def test_an_item_that_was_not_added_is_named(case: Any, stream: ColdStart, learned: Learned) -> None:
    learner = learned(case, stages=1)
    with pytest.raises(LearnerError, match=r"item 'film \d\d' .row \d+. is not known; add it first"):
        learner.score(stream.new.query)
    with pytest.raises(LearnerError, match="is not known; add it first"):
        learner.warm(stream.new.phases[0])
    assert len(learner.entries) == 1


def test_what_comes_in_the_wrong_order_is_an_error(case: Any, stream: ColdStart, learned: Learned) -> None:
    fresh = case[0](stream.schema, **case[1])
    for early in (lambda: fresh.score(stream.new.query), lambda: fresh.add(stream.new.items)):
        with pytest.raises(LearnerError, match="has learned nothing yet; call learn first"):
            early()  # type: ignore[no-untyped-call]
    learner = learned(case, stages=2)
    with pytest.raises(LearnerError, match="item 'film 08' is known already; give its events to warm"):
        learner.add(stream.new.items)
    with pytest.raises(LearnerError, match="has learned its old items"):
        learner.learn(stream.old_log)


def test_the_public_verbs_do_what_the_stages_do(case: Any, stream: ColdStart, whole: dict[str, Tensor]) -> None:
    learner = case[0](stream.schema, **case[1]).learn(stream.old_log).add(stream.new.items)
    for phase in stream.new.phases:
        learner.warm(phase)
    assert equal(bits(learner), whole)


def test_tables_and_files_are_as_good_as_logs(stream: ColdStart, tmp_path: Path) -> None:
    case, frame = CASES["emerg"], table()
    old = frame.filter(pl.col("film") < "film 08")
    old.write_parquet(tmp_path / "old.parquet")
    new = frame.filter(pl.col("film") >= "film 08")
    learner = EmerG(SCHEMA, **case[1]).learn(f"{tmp_path}/*.parquet").add(new.unique("film"))
    scores = learner.score(new.drop("genre", "words", "minutes", "liked", "seen"))
    assert (scores == learner.score(log_from_frame(new, SCHEMA))).all()


def test_a_schema_without_any_field_is_enough(log: ClickLog) -> None:
    bare = log_from_frame(table(), Schema("film", "viewer", "liked", "seen"))
    for kind, settings in (CASES["emerg"], CASES["id-tuning"]):
        learner = trained((kind, settings), ColdStart(bare, min_old_events=40, phase_events=6))
        assert np.isfinite(learner.score(bare)).all()


def test_old_items_can_be_scored_and_warmed(case: Any, stream: ColdStart, learned: Learned) -> None:
    learner, old = learned(case), stream.old_log
    before = learner.score(old)
    learner.warm(old.take(np.arange(30)))
    assert (learner.score(old) != before).any() == warms_up(case)


def test_validation_items_choose_the_epoch(log: ClickLog) -> None:
    honest = ColdStart(log, preset="honest", min_old_events=25, before=0.5, validation=0.3, phase_events=3)
    assert honest.old.validation is not None
    for case in (CASES["emerg"], CASES["id-tuning"]):
        learner = trained(case, honest)
        assert equal(bits(learner), bits(trained(case, honest)))
        assert not set(honest.old.validation.items.ids) & set(list(learner.known)[: honest.info()["old_items"]])


@pytest.mark.parametrize("change", [{"warmup_steps": 0}, {"warmup_events": "some"}, {"warmup_lr": -1.0}, {"layer": 2}])
def test_a_setting_that_cannot_be_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(change))):
        EmerG(SCHEMA, **change)


def test_residuals_of_old_items_have_mean_zero(case: Any, learned: Learned) -> None:
    learner = learned(case, 1)
    if not learner._keeps_trained_ids:
        pytest.skip("its old items are tuned as new ones are")
    with torch.no_grad():
        begun = learner.network.initial_id_and_bias(learner.item_features, len(learner.known))
    for key, value in ((key, value) for key, value in begun.items() if key in learner.state):
        torch.testing.assert_close((learner.state[key] - value).mean(0), torch.zeros(value.shape[1]), atol=1e-5, rtol=0)
