"""Baselines for new items: towers equal their plain forms, and warm-up methods their papers' equations."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional

from covering import combinations
from newcomer.data.click_log import ClickLog
from newcomer.data.datasets.simulated_clicks import simulate_click_log
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.items.adaptation.rules import AdamAdaptation
from newcomer.items.configuration import Pretraining
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import adapt
from newcomer.items.learner import ItemLearner
from newcomer.items.methods.cvar import CVAR, CVARNetwork
from newcomer.items.methods.dropout_net import DropoutNet
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.items.methods.meta_embedding import MetaEmbedding, MetaEmbeddingNetwork
from newcomer.items.methods.mwuf import MWUF, MWUFNetwork
from newcomer.items.networks.id_bias import pack, unpack
from newcomer.items.networks.tower_network import TowerConfig, TowerNetwork
from newcomer.items.padding import PaddedBatch
from newcomer.items.serving.service import ItemService
from newcomer.items.training.episodes import Episodes
from newcomer.items.training.meta_learning import MetaLearning, episode_loss
from newcomer.items.training.pretraining import _loss
from newcomer.nn.ctr.autoint import HEADS, AutoInt, FieldAttention
from newcomer.nn.ctr.dcn_v2 import LAYERS, DCNv2
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldSize
from newcomer.nn.ctr.gaussians import DiagonalGaussian, squared_wasserstein
from newcomer.shapes import Tensor
from newcomer.streams.cold_start import ColdStart, OldItems
from newcomer.streams.stage import Stage
from newcomer.training.checkpoint import Checkpoint

ITEMS, ROWS, FIELDS, WIDTH = 3, 4, 5, 4
SIZES: tuple[list[FieldSize], list[FieldSize]] = (
    [CategoricalSize(5), CategoricalSize(4)],
    [CategoricalSize(6), CategoricalSize(4)],
)
OWN: Values = [torch.tensor([2, 3, 4]), torch.tensor([3, 2, 3])]
EVENTS = 5
BATCH = PaddedBatch(
    torch.arange(ITEMS),
    torch.arange(ITEMS * EVENTS).view(ITEMS, EVENTS),
    torch.arange(EVENTS) < torch.tensor([[5], [3], [1]]),
)


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def chance() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def ready(module: Any) -> Any:
    """In float64, with parameters that are nowhere zero."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def clicks(seed: int = 0) -> Clicks:
    """Of each item as many events as `BATCH` has places for."""
    generator = torch.Generator().manual_seed(seed)
    count = ITEMS * EVENTS
    rows = [
        torch.randint(2, size.count, (count,), generator=generator)
        for size in SIZES[1]
        if isinstance(size, CategoricalSize)
    ]
    label = torch.randint(2, (count,), generator=generator).double()
    return Clicks(torch.arange(ITEMS).repeat_interleave(EVENTS), label, torch.arange(count), [], rows)


CONFIG = TowerConfig(width=WIDTH, hidden=(3,), init_std=0.5)


def plain() -> TowerNetwork:
    network: TowerNetwork = ready(TowerNetwork(*SIZES, CONFIG))
    return network


def mwuf(whole: bool = False) -> MWUFNetwork:
    network: MWUFNetwork = ready(MWUFNetwork(*SIZES, CONFIG, whole))
    return network


def cvar(whole: bool = False) -> CVARNetwork:
    network: CVARNetwork = ready(CVARNetwork(*SIZES, CONFIG, 3, whole))
    return network


# towers


def test_crosses_are_their_formula_row_by_row() -> None:
    tower, vectors = ready(DCNv2(FIELDS, WIDTH, [6, 3])), sample(ITEMS, FIELDS, ROWS, WIDTH)
    found = tower(vectors)
    for item in range(ITEMS):
        for row in range(ROWS):
            first = vectors[item, :, row].reshape(-1)
            at = first
            for cross in tower.crosses:
                at = torch.stack(
                    [first[n] * (cross.weight[n].dot(at) + cross.bias[n]) + at[n] for n in range(len(first))]
                )
            logit = tower.linear.weight[0].dot(at) + tower.linear.bias[0] + tower.deep(first)[0]
            torch.testing.assert_close(found[item, row], logit)


def test_crosses_are_polynomials_of_one_degree_more_than_they_are_many() -> None:
    tower, begin, along = ready(DCNv2(2, 2, [])), sample(2, 2), sample(2, 2, seed=1)
    steps = torch.arange(LAYERS + 3, dtype=torch.float64)
    values = tower((begin + steps[:, None, None] * along)[:, :, None])[:, 0]
    assert values.diff(n=LAYERS + 1).abs().max() > 1e-3
    assert values.diff(n=LAYERS + 2).abs().max() < 1e-9 * values.abs().max()


def test_attention_is_its_formula_row_by_row() -> None:
    layer, vectors = ready(FieldAttention(3, WIDTH)), sample(ITEMS, ROWS, FIELDS, 3)
    found = layer(vectors)
    assert found.shape == (ITEMS, ROWS, FIELDS, HEADS * WIDTH)
    for item in range(ITEMS):
        for row in range(ROWS):
            fields = vectors[item, row]
            heads = []
            for head in range(HEADS):
                part = slice(head * WIDTH, (head + 1) * WIDTH)
                queries, keys, values = (fields @ map.weight[part].T for map in (layer.query, layer.key, layer.value))
                weights = [torch.stack([queries[m].dot(keys[k]) for k in range(FIELDS)]).exp() for m in range(FIELDS)]
                heads.append(torch.stack([(w / w.sum()) @ values for w in weights]))
            expected = torch.cat(heads, dim=1) + fields @ layer.residual.weight.T
            torch.testing.assert_close(found[item, row], expected.clamp(min=0))


def test_renamed_fields_attend_to_the_same_fields() -> None:
    layer, vectors, names = ready(FieldAttention(WIDTH, WIDTH)), sample(1, 1, FIELDS, WIDTH), [3, 0, 4, 1, 2]
    torch.testing.assert_close(layer(vectors[:, :, names]), layer(vectors)[:, :, names])


@pytest.mark.parametrize("tower", [DCNv2, AutoInt])
@pytest.mark.parametrize("hidden", [[], [6]], ids=str)
def test_rows_of_a_tower_are_independent(tower: type[nn.Module], hidden: list[int]) -> None:
    built, vectors = ready(tower(FIELDS, WIDTH, hidden)), sample(ITEMS, FIELDS, ROWS, WIDTH)
    together = built(vectors)
    assert together.shape == (ITEMS, ROWS)
    for item in range(ITEMS):
        for row in range(ROWS):
            alone = built(vectors[item : item + 1, :, row : row + 1])
            torch.testing.assert_close(together[item, row], alone[0, 0])


def test_attentive_interactions_are_layers_a_linear_map_and_an_mlp() -> None:
    tower, vectors = ready(AutoInt(FIELDS, WIDTH, [6])), sample(1, FIELDS, 1, WIDTH)
    fields = vectors[0, :, 0]
    at = fields[None, None]
    for layer in tower.layers:
        at = layer(at)
    expected = tower.linear(at.reshape(-1)) + tower.deep(fields.reshape(-1))
    torch.testing.assert_close(tower(vectors)[0], expected)


def test_three_layers_of_attention_multiply_three_times() -> None:
    """Nothing attends, every layer doubles, and the readout sums: 2³ times the inputs, once for each head."""
    tower, vectors = AutoInt(FIELDS, WIDTH, []).double(), sample(1, FIELDS, 1, WIDTH).abs()
    inputs = torch.eye(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
        for number, layer in enumerate(tower.layers):
            assert isinstance(layer, FieldAttention)
            layer.residual.weight.copy_(2 * (torch.eye(HEADS * WIDTH) if number else inputs.repeat(HEADS, 1)))
        tower.linear.weight.fill_(1)
    torch.testing.assert_close(tower(vectors)[0, 0].double(), 2**3 * HEADS * vectors.double().sum())


# distributions


def test_wasserstein_is_the_distance_between_quantiles() -> None:
    one, other = (
        DiagonalGaussian(sample(2, 3), sample(2, 3, seed=1)),
        DiagonalGaussian(sample(2, 3, seed=2), sample(2, 3, seed=3)),
    )
    quantile = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    normal = 2**0.5 * torch.erfinv(2 * quantile - 1)
    ends = [each.mean + normal[:, None, None] * torch.exp(each.log_variance) ** 0.5 for each in (one, other)]
    slow = (ends[0] - ends[1]).square().mean(dim=0).sum(dim=1)
    torch.testing.assert_close(squared_wasserstein(one, other), slow, rtol=1e-3, atol=0)


def test_wasserstein_is_no_distance_only_to_itself() -> None:
    one = DiagonalGaussian.of(sample(2, 6))
    assert not squared_wasserstein(one, one).any()
    assert (squared_wasserstein(one, DiagonalGaussian(one.mean, one.log_variance + 0.1)) > 0).all()
    assert (squared_wasserstein(one, DiagonalGaussian(one.mean + 0.1, one.log_variance)) > 0).all()


# DropoutNet


def test_a_row_with_a_dropped_id_sees_the_initial_state() -> None:
    network, residuals, events = plain(), ready(nn.Embedding(ITEMS, WIDTH + 1)), clicks()
    plan = Pretraining(1, 1e-3, 8, 0.0, 0.3, id_dropout=0.5)
    rows = torch.tensor([0, 3, 4, 7, 11, 12, 14])
    without = torch.tensor([True, False, False, True, True, False, True])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 1.5, 1.0, 3.0])
    losses = []
    for row, dropped in zip(rows.tolist(), without.tolist(), strict=True):
        item = int(events.item[row])
        moved = torch.zeros(1, WIDTH + 1) if dropped else residuals.weight[item : item + 1]
        mine = [values[item : item + 1] for values in OWN]
        state = unpack(pack(network.initial_state(mine, 1)) + moved)
        logit = network.forward_rows(state, mine, torch.tensor([0]), events.values(torch.tensor([row])))
        loss = functional.binary_cross_entropy_with_logits(logit, events.label[row : row + 1])
        losses.append(loss + 0.3 * moved.square().sum())
    found = _loss(network, residuals, OWN, events, rows, plan, without[:, None], weights)
    torch.testing.assert_close(found, (weights * torch.stack(losses)).mean())


# Meta-Embedding


def test_an_episode_is_the_papers_two_losses_around_one_step() -> None:
    network: MetaEmbeddingNetwork = ready(MetaEmbeddingNetwork(*SIZES, CONFIG, init_scale=0.7))
    events, query = clicks(), clicks(seed=1)
    both = replace(
        events,
        label=torch.cat([events.label, query.label]),
        item=events.item.repeat(2),
        user=torch.arange(2 * ITEMS * EVENTS),
        of_rows=[torch.cat(pair) for pair in zip(events.of_rows, query.of_rows, strict=True)],
    )
    later = replace(BATCH, rows=BATCH.rows + ITEMS * EVENTS)
    plan = MetaLearning(1, 1e-3, "start", 4, 9, 9, vary_support=False, support_share=0.1, second_order=True)
    found = episode_loss(network, OWN, both, Episodes(BATCH, later), plan, AdamAdaptation(0.1, 1, 0.2, 1))

    losses = []
    for item in range(ITEMS):
        mine, rows = [values[item : item + 1] for values in OWN], BATCH.rows[item][BATCH.real[item]]
        mean = (network.item_fields.tables[0][mine[0]] + network.item_fields.tables[1][mine[1]]) / 2
        begin = network.start + 0.7 * torch.tanh(mean @ network.generator.weight.T + network.generator.bias)

        def loss(vector: Tensor, of: Clicks, mine: Values = mine, rows: Tensor = rows) -> Tensor:
            logits = network(unpack(vector), mine, of.values(rows))[0]
            return functional.binary_cross_entropy_with_logits(logits, of.label[rows])

        before = loss(begin, events)
        (slope,) = torch.autograd.grad(before, begin, create_graph=True)
        losses.append(0.1 * before + 0.9 * loss(begin - 0.2 * slope, query))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected)
    trained = list(network.meta_parameters("start").parameters())
    assert len(trained) == 2
    for mine_, theirs in zip(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(mine_, theirs)


# MWUF


def test_a_warm_id_is_the_cold_one_scaled_and_shifted() -> None:
    network, state = mwuf(), {**unpack(sample(ITEMS, WIDTH + 1)), "users": sample(ITEMS, WIDTH, seed=1)}
    seen = torch.tensor([[0.0], [4.0], [torch.inf]], dtype=torch.float64)
    found, cold = pack(network.warm_id_and_bias({**state, "seen": seen}, OWN)), pack(state)
    scale, shift = network.warming["scale"], network.warming["shift"]
    for item in (0, 1):
        fields = torch.cat([table[values[item]] for table, values in zip(network.item_fields.tables, OWN, strict=True)])
        factor = 1 + scale[2](scale[0](fields).relu())  # type: ignore[index]
        moved = shift[2].weight @ (shift[0].weight @ state["users"][item]).relu()  # type: ignore[index]
        torch.testing.assert_close(found[item], cold[item] * factor + moved)
        assert not torch.isclose(found[item], cold[item]).any()
    assert torch.equal(found[2], cold[2])  # an old item's is warm as it is


def test_without_users_the_shift_is_zero() -> None:
    network = mwuf()
    assert not network.warming["shift"](network.unseen(ITEMS)["users"]).any()


@pytest.mark.parametrize("whole", [False, True])
def test_the_mean_user_of_an_item_does_not_depend_on_batches(whole: bool) -> None:
    network, events = mwuf(whole), clicks()
    state = network.initial_state(OWN, ITEMS)
    first = replace(BATCH, real=BATCH.real & (torch.arange(EVENTS) < 2))
    then = BATCH if whole else replace(BATCH, real=BATCH.real & (torch.arange(EVENTS) >= 2))
    for batch in (first, then):
        state = {**state, **network.update_statistics(state, events, batch)}
    for item, count in enumerate((5, 3, 1)):
        users = events.of_rows[0][item * EVENTS : item * EVENTS + count]
        torch.testing.assert_close(state["users"][item], network.row_fields.tables[0][users].mean(dim=0))
        assert state["seen"][item] == count


def test_zero_initialized_networks_do_not_change_id_tuning() -> None:
    network, events, rule = mwuf(), clicks(), AdamAdaptation(0.1, 3, 0.1, 1)
    for name in ("scale", "shift"):
        for parameter in network.warming[name][2].parameters():  # type: ignore[index]
            nn.init.zeros_(parameter)
    other = plain()
    other.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("warming.")})
    pairs = (dict(vectors(n, events, rule)) for n in (network, other))
    mine, theirs = pairs
    assert all(torch.equal(mine[item], theirs[item]) for item in range(ITEMS))
    assert all((mine[item] != pack(other.initial_state(OWN, ITEMS))[item]).all() for item in range(ITEMS))


def vectors(network: TowerNetwork, events: Clicks, rule: AdamAdaptation) -> Iterator[tuple[int, Tensor]]:
    """Each item's own part after these events."""
    begin = {key: value.detach() for key, value in network.initial_state(OWN, ITEMS).items()}
    for items, state in adapt(network, begin, OWN, events, rule):
        yield from zip(items.tolist(), pack(state), strict=True)


# CVAR


def test_a_new_item_starts_at_the_decoding_of_its_fields() -> None:
    network = cvar()
    begun = network.initial_state(OWN, ITEMS)
    prior, decoder = network.coder["prior"], network.coder["decoder"]
    for item in range(ITEMS):
        fields = torch.cat([table[values[item]] for table, values in zip(network.item_fields.tables, OWN, strict=True)])
        latent = torch.cat([prior(fields)[:3], torch.zeros(1)])
        torch.testing.assert_close(pack(begun)[item], network.start + decoder(latent))
    assert not begun["seen"].any()


@pytest.mark.parametrize("whole", [False, True])
def test_tuned_ids_are_encoded_and_decoded_with_the_number_of_events(whole: bool) -> None:
    network, events, rule = cvar(whole), clicks(), AdamAdaptation(0.1, 3, 0.1, 1)
    begin = {key: value.detach() for key, value in network.initial_state(OWN, ITEMS).items()} | {
        "seen": torch.full((ITEMS, 1), 2.0)
    }
    other = plain()
    other.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("coder.")})
    uncoded = {key: begin[key] for key in ("id", "bias")}
    for items, state in adapt(other, uncoded, OWN, events, rule):
        for item, vector in zip(items.tolist(), pack(state), strict=True):
            count = EVENTS if whole else 2 + EVENTS
            latent = network.coder["encoder"](vector - network.start)[:3]
            read = torch.cat([latent, torch.tensor([1.0 + count]).double().log10()])
            found = dict(coded(network, begin, events, rule))[item]
            torch.testing.assert_close(found, network.start + network.coder["decoder"](read))


def coded(
    network: CVARNetwork, begin: dict[str, Tensor], events: Clicks, rule: AdamAdaptation
) -> Iterator[tuple[int, Tensor]]:
    for items, state in adapt(network, begin, OWN, events, rule):
        yield from zip(items.tolist(), pack(state), strict=True)


# learners

SHORT: dict[str, Any] = {"width": 4, "hidden": [8], "pretrain_epochs": 2, "batch_size": 64, "warmup_steps": 3}
METHODS: dict[str, tuple[type[ItemLearner], dict[str, Any]]] = {
    "meta-embedding": (MetaEmbedding, SHORT | {"meta_epochs": 2, "episodes_per_step": 4}),
    "mwuf": (MWUF, SHORT | {"train_epochs": 2}),
    "cvar": (CVAR, SHORT | {"train_epochs": 2, "latent": 3}),
}


@pytest.fixture(scope="module")
def world() -> ColdStart:
    log: ClickLog = simulate_click_log(old_items=12, old_events=40, new_items=4, new_events=30, users=30)
    return ColdStart(log, min_old_events=35, phase_events=6)


def frame(log: ClickLog) -> pl.DataFrame:
    """The rows of a log as a table."""
    schema = log.schema
    columns = {schema.item: np.array(log.items.ids)[log.item], schema.user: np.array(log.users.ids)[log.user]}
    for field in schema.of("item"):
        columns[field.name] = np.array(log.items.columns[field.name].texts())[log.item]
    for field in schema.of("user"):
        columns[field.name] = np.array(log.users.columns[field.name].texts())[log.user]
    for field in schema.of("context"):
        columns[field.name] = np.array(log.context[field.name].texts())
    return pl.DataFrame(columns | {schema.label: log.label, schema.time: log.time})


def lived(kind: type[ItemLearner], settings: dict[str, Any], world: ColdStart, stages: int = 5) -> Any:
    learner = kind(world.schema, **settings)
    for stage in list(world)[:stages]:
        for _ in learner.fit_stage(stage):
            pass
    return learner


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> tuple[type[ItemLearner], dict[str, Any]]:
    return METHODS[request.param]


def bits(learner: ItemLearner) -> dict[str, Tensor]:
    return {**learner.network.state_dict(), **{f"state.{key}": value for key, value in learner.state.items()}}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_nothing_dropped_is_id_tuning_to_the_bit(world: ColdStart) -> None:
    tuned_ids = bits(lived(IdTuning, SHORT, world))
    assert equal(bits(lived(DropoutNet, SHORT | {"id_dropout": 0.0}, world)), tuned_ids)
    assert not equal(bits(lived(DropoutNet, SHORT | {"id_dropout": 0.2}, world)), tuned_ids)


def test_with_id_dropout_1_old_items_train_no_id(world: ColdStart) -> None:
    kept = {"id_dropout": 1.0, "weight_decay": 0.0}
    short, long = (lived(DropoutNet, SHORT | kept | {"pretrain_epochs": n}, world, stages=1) for n in (1, 3))
    residuals = [pack(learner.state) - learner.network.start for learner in (short, long)]
    torch.testing.assert_close(*residuals, atol=1e-7, rtol=0)
    assert not torch.equal(short.network.start, long.network.start)


def test_a_second_training_stage_leaves_the_weights_and_old_items_of_id_tuning(
    method: tuple[type[ItemLearner], dict[str, Any]], world: ColdStart
) -> None:
    kind, settings = method
    learner, plain = lived(kind, settings, world, stages=2), lived(IdTuning, SHORT, world, stages=2)
    own = ("generator.", "warming.", "coder.")
    model = {key: value for key, value in learner.network.state_dict().items() if not key.startswith(own)}
    assert equal(model, plain.network.state_dict())
    old = len(plain.entries[0].info["items"])
    assert torch.equal(pack(learner.state)[:old], pack(plain.state)[:old])
    assert (learner.score(world.old_log) == plain.score(world.old_log)).all()
    assert (learner.score(world.new.query) != plain.score(world.new.query)).any()


def test_before_training_every_method_has_the_same_initial_state(
    method: tuple[type[ItemLearner], dict[str, Any]], world: ColdStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, settings = method
    if kind is MetaEmbedding:
        settings = settings | {"meta_epochs": 0}
    monkeypatch.setattr(kind, "_train_second_stage", lambda *_: iter(()))
    learner, plain = lived(kind, settings, world, stages=2), lived(IdTuning, SHORT, world, stages=2)
    assert torch.equal(pack(learner.state), pack(plain.state))
    np.testing.assert_allclose(learner.score(world.new.query), plain.score(world.new.query), rtol=1e-6)


@pytest.mark.parametrize("after", [19, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "files"), combinations(list(METHODS), [False, True]), indirect=["method"])
def test_a_method_interrupted_in_its_second_stage_resumes_to_the_same_bits(
    method: tuple[type[ItemLearner], dict[str, Any]], world: ColdStart, files: bool, after: int, tmp_path: Path
) -> None:
    kind, settings = method
    train = world.old
    if files:
        frame(world.old_log).write_parquet(tmp_path / "old.parquet")
        train = OldItems(ChunkedLog(tmp_path / "old.parquet", world.schema, rows=100))
    stage: Any = Stage("old", train, {})
    whole = kind(world.schema, **settings)
    parts = [step.part for step in whole.fit_stage(stage)]
    cut = kind(world.schema, **settings).fit_stage(stage, Checkpoint(tmp_path / "kept", every_seconds=0))
    for _ in range(after):
        next(cut)
    cut.close()  # type: ignore[attr-defined]
    resumed = kind(world.schema, **settings)
    taken = [step.part for step in resumed.fit_stage(stage, Checkpoint(tmp_path / "kept", every_seconds=0))]
    assert "pretrain" not in taken
    assert len(taken) < len(parts)
    assert equal(bits(resumed), bits(whole))


@pytest.mark.parametrize("warmup_events", ["new", "all"])
def test_a_service_stores_the_state_of_every_method(
    method: tuple[type[ItemLearner], dict[str, Any]], warmup_events: str, world: ColdStart, tmp_path: Path
) -> None:
    kind, settings = method
    learner = lived(kind, settings | {"warmup_events": warmup_events}, world, stages=1)
    learner.save(tmp_path / "store")
    live = ItemService.open(tmp_path / "store")
    live.add(world.new.items)
    learner.add(world.new.items)
    for phase in world.new.phases:
        live.warm(phase)
        learner.warm(phase)
        scores = live.score(world.new.query)["score"].to_numpy()
        np.testing.assert_allclose(scores, learner.score(world.new.query), atol=1e-5)
    live.close()


def test_an_old_item_is_warm_whatever_the_networks_say(world: ColdStart) -> None:
    learner = lived(MWUF, SHORT, world, stages=1)
    before = learner.score(world.old_log)
    other = copy.deepcopy(learner)
    with torch.no_grad():
        for parameter in other.network.warming.parameters():
            parameter.add_(1.0)
    assert (other.score(world.old_log) == before).all()
    assert (
        other.add(world.new.items).score(world.new.query) != learner.add(world.new.items).score(world.new.query)
    ).any()
