"""Prompts: their place in every family's attention, their selection, and the learners against their papers."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.families import FAMILIES
from newcomer.classes.methods.coda_prompt import CODAPrompt
from newcomer.classes.methods.dual_prompt import DualPrompt
from newcomer.classes.methods.l2p import L2P
from newcomer.classes.prompt_adapter import attentions, layer_of
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples, Input
from newcomer.errors import LearnerError, SettingError
from newcomer.nn.prompts.expert_prompts import ExpertPrompts
from newcomer.nn.prompts.prefixes import Attention, Prefix, prefixed, prepended
from newcomer.nn.prompts.prompt_components import PARTS, PromptComponents, orthonormal_rows
from newcomer.nn.prompts.prompt_pool import PromptPool, cosines
from newcomer.streams.stage import Stage

Folder = Callable[[str], Path]
WITHOUT_PREFIXES = ("deberta-v2", "modernbert", "llama", "qwen3")
ROTATED = [kind for kind, family in FAMILIES.items() if "last" in family.poolings and kind != "gpt2"]
"""Decoders, which turn keys by their places."""
KINDS = [kind for kind in FAMILIES if kind not in {*WITHOUT_PREFIXES, *ROTATED}]


def some(backbone: Backbone, seed: int = 1) -> list[Input]:
    """Three pictures, or three texts of different lengths, so that some are padded."""
    if not backbone.reads_images:
        return ["my card is lost", "lost", "where is my refund please"]
    bits = torch.Generator().manual_seed(seed)
    noise = [torch.randint(256, (8 * 8 * 3,), dtype=torch.uint8, generator=bits).numpy().tobytes() for _ in range(3)]
    return [Image.frombytes("RGB", (8, 8), picture) for picture in noise]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def places(backbone: Backbone) -> list[Attention]:
    return list(attentions(backbone.model).values())


def prefix(seed: int, width: int, batch: int = 3, rows: int = 4) -> Prefix:
    return Prefix(random(seed, batch, rows, width), random(seed + 1, batch, rows, width))


class Plain(nn.Module):
    """Single-head attention as in a textbook, with an optional prefix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, dtype=torch.float64) for _ in range(3))
        self.prefix: Prefix | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.q(x), self.k(x), self.v(x)
        if self.prefix:
            key, value = torch.cat([self.prefix.keys, key], 1), torch.cat([self.prefix.values, value], 1)
        scores = query @ key.mT / math.sqrt(x.shape[2])
        if mask is not None:
            shown = mask[:, 0].expand(scores.shape[0], -1, -1)
            if self.prefix:
                shown = torch.cat([shown.new_ones(*shown.shape[:2], self.prefix.keys.shape[1]), shown], 2)
            scores = scores.masked_fill(~shown.expand_as(scores), -torch.inf)
        found: Tensor = scores.softmax(2) @ value
        return found


@pytest.mark.parametrize("queries", [0, 1, 5])
def test_attention_with_a_prefix_and_its_gradients_are_those_of_the_written_out_one(queries: int) -> None:
    torch.manual_seed(0)
    layer, x = Plain(6), torch.randn(2, 5, 6, dtype=torch.float64)
    shown = torch.rand(2, 1, queries, 5) > 0.4
    shown[..., 0] = True
    mask = (shown,) if queries else ()
    rows = [torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    layer.prefix = Prefix(*rows)
    wanted = layer(x, *mask)
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), rows)
    layer.prefix = None
    with prefixed([(Attention(layer, "k", "v"), Prefix(*rows))]):
        found = layer(x, *mask)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), rows), wanted_gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_takes_prefixes_and_an_example_is_given_its_own(kind: str, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)))
    encoded = backbone.encode(some(backbone))
    layers = places(backbone)
    assert len(layers) == 2
    rows = prefix(0, layers[0].width)
    with torch.no_grad():
        plain = backbone(encoded)
        with prefixed((layer, rows) for layer in layers):
            seen = backbone(encoded)
        other = Prefix(torch.cat([rows.keys[:1], 2 * rows.keys[1:]]), torch.cat([rows.values[:1], rows.values[1:] + 1]))
        with prefixed((layer, other) for layer in layers):
            again = backbone(encoded)
    assert seen.shape == plain.shape
    assert not torch.isclose(seen, plain).all(1).any()
    torch.testing.assert_close(again[0], seen[0])
    assert not torch.isclose(again[1:], seen[1:]).all(1).any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dinov3_vit"])  # it turns queries by their places
def test_a_prefix_no_query_meets_is_neutral_and_one_of_zeros_is_not(kind: str, tiny: Folder) -> None:
    """Keys that every score is far below: −c times a direction that all queries share."""
    backbone = Backbone(str(tiny(kind)))
    encoded = backbone.encode(some(backbone))
    layer = places(backbone)[0]
    query: Any = backbone.model.get_submodule(
        next(p for p in backbone.projections if p.rpartition(".")[2].startswith("q"))
    )
    with torch.no_grad():
        plain = backbone(encoded)
        shared = 50 * random(2, layer.width)
        before = query.bias.clone()  # the same large query for every token, beside which its own part is small
        query.bias.copy_(shared)
        biased = backbone(encoded)
        far = (-shared).expand(3, 2, -1)
        with prefixed([(layer, Prefix(far, random(3, 3, 2, layer.width)))]):
            unmet = backbone(encoded)
        query.bias.copy_(before)
        nothing = torch.zeros(3, 2, layer.width)
        with prefixed([(layer, Prefix(nothing, nothing))]):
            zeros = backbone(encoded)
    torch.testing.assert_close(unmet, biased)
    assert not torch.isclose(zeros, plain).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_see_into_a_prompted_text(kind: str, tiny: Folder) -> None:
    """A text alone gives what it gives beside longer ones, with a prefix and with rows before its tokens."""
    backbone = Backbone(str(tiny(kind)))
    layers, given = places(backbone), some(backbone)
    rows = prefix(0, layers[0].width)
    first = layer_of(backbone.model, list(attentions(backbone.model)))

    def seen(several: list[Input], rows: Prefix) -> tuple[Tensor, Tensor]:
        encoded = backbone.encode(several)
        with torch.no_grad():
            with prefixed((layer, rows) for layer in layers):
                features = backbone(encoded)
            if backbone.is_causal:  # rows before the tokens are never used: they see no token
                return features, rows.values[:0]
            with prepended(first, layers, rows.values):
                states = backbone.model(**encoded).last_hidden_state[:, :4]
        return features, states

    features, states = seen(given, rows)
    for i, one in enumerate(given):
        alone = seen([one], Prefix(rows.keys[i : i + 1], rows.values[i : i + 1]))
        torch.testing.assert_close(features[i], alone[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states[i : i + 1], alone[1], rtol=1e-4, atol=1e-5)


def test_rows_before_the_tokens_are_rows_of_the_input(tiny: Folder) -> None:
    """A slow twin: of a ViT, its layers one after the other on tokens that were put together by hand."""
    backbone = Backbone(str(tiny("vit")))
    model: Any = backbone.model
    encoded, rows = backbone.encode(some(backbone)), random(0, 3, 4, backbone.width)
    layers = places(backbone)
    with torch.no_grad():
        states = torch.cat([rows, model.embeddings(encoded["pixel_values"])], dim=1)
        for layer in model.layers:
            states = layer(states)
        with prepended(model.layers[0], layers, rows):
            found = model(**encoded).last_hidden_state
    torch.testing.assert_close(found, model.layernorm(states))


@contextmanager
def failing() -> Iterator[None]:
    """Left by an error."""
    yield
    raise KeyError


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("fails", [False, True])
def test_after_applied_the_model_is_the_plain_one_to_the_bit(kind: str, fails: bool, tiny: Folder) -> None:
    backbone = Backbone(str(tiny(kind)))
    encoded, layers = backbone.encode(some(backbone)), places(backbone)
    first = layer_of(backbone.model, list(attentions(backbone.model)))
    rows = prefix(0, backbone.width)
    with torch.no_grad():
        plain = backbone(encoded)
        for context in (prefixed((layer, rows) for layer in layers), prepended(first, layers, rows.keys)):
            with pytest.raises(KeyError) if fails else nullcontext(), context, failing() if fails else nullcontext():
                backbone.model(**encoded)
            assert torch.equal(backbone(encoded), plain)


@pytest.mark.parametrize("kind", [*WITHOUT_PREFIXES, "gpt_neox"])
@pytest.mark.parametrize("method", [DualPrompt, CODAPrompt])
def test_attention_that_takes_no_prompts_is_refused_at_once(kind: str, method: Any, tiny: Folder) -> None:
    with pytest.raises(LearnerError, match=r"takes no prompts|no attention with key and value"):
        method(str(tiny(kind)))


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert", "llama", "gpt2"])
def test_prompts_whose_states_are_no_feature_are_refused_at_once(kind: str, tiny: Folder) -> None:
    """In a decoder they see no token of the text: every input had the same feature."""
    with pytest.raises(LearnerError, match=r"takes no prompts|do not see the text after them"):
        L2P(str(tiny(kind)))


def test_what_cannot_be_set_is_refused(tiny: Folder) -> None:
    with pytest.raises(SettingError, match=r"L2P: top_k = 5, but the pool has 3 prompts"):
        L2P(str(tiny("vit")), pool_size=3)
    with pytest.raises(SettingError, match=r"CODAPrompt: prompt_length = 7 is odd"):
        CODAPrompt(str(tiny("vit")), prompt_length=7)


def test_a_query_selects_the_prompts_of_the_nearest_keys() -> None:
    pool = PromptPool(6, 2, 4, 3)
    pool.draw(torch.Generator().manual_seed(0))
    query = random(1, 5, 4)
    rows, distance = pool(query, 3)
    for i, one in enumerate(query):
        near = sorted(range(6), key=lambda m: -F.cosine_similarity(one, pool.keys[m], dim=0).item())[:3]
        assert torch.equal(rows[i], torch.cat([pool.prompts[m] for m in near]))
        far = sum(1 - F.cosine_similarity(one, pool.keys[m], dim=0) for m in near)
        torch.testing.assert_close(distance[i], torch.as_tensor(far))


def test_the_key_loss_moves_the_selected_key_towards_its_query_alone() -> None:
    pool = PromptPool(4, 2, 3, 3)
    pool.draw(torch.Generator().manual_seed(0))
    query = random(0, 1, 3)
    chosen = pool.choose(query, 2)[0].tolist()
    before = cosines(query, pool.keys.detach())[0]
    pool(query, 2)[1].sum().backward()
    gradient = pool.keys.grad
    assert gradient is not None
    assert [m for m in range(4) if gradient[m].any()] == sorted(chosen)
    after = cosines(query, pool.keys.detach() - 1e-5 * gradient)[0]
    assert all(after[m] > before[m] for m in chosen)


def experts(tasks: int) -> ExpertPrompts:
    """Tasks whose keys are the axes, and whose experts are their numbers."""
    prompts = ExpertPrompts((1, 2), (2, 3), 4, 5)
    prompts.draw(torch.Generator().manual_seed(0))
    for task in range(tasks):
        prompts.append(torch.eye(4)[task], torch.full((2, 2, 3, 5), float(task)))
    return prompts


def test_the_expert_is_the_one_of_the_nearest_key_and_of_the_open_task_while_one_is_open() -> None:
    prompts, query = experts(3), torch.tensor([[0.1, 0.9, 0.2, 0.0], [3.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.1, 5.0]])
    general, chosen, distance = prompts(query)
    assert [len(general), len(chosen)] == [1, 2]
    for prefixes in chosen:
        assert prefixes.keys[:, 0, 0].tolist() == prefixes.values[:, 2, 4].tolist() == [1.0, 0.0, 2.0]
    assert not distance.any()
    prompts.open(torch.Generator().manual_seed(1))
    _, own, distance = prompts(query)
    assert (own[0].keys == 2).all()  # an expert starts where the last one ended
    wanted = 1 - F.cosine_similarity(query, prompts.fresh["key"].detach(), dim=1)
    torch.testing.assert_close(distance.detach(), wanted)


def test_without_a_task_there_is_the_general_prompt_alone() -> None:
    general, chosen, distance = experts(0)(torch.ones(2, 4))
    assert [len(general), len(chosen), distance.tolist()] == [1, 0, [0.0, 0.0]]


def components(tasks: int, count: int = 3, width: int = 12) -> PromptComponents:
    """Closed tasks, whose components have been trained away from where they started."""
    prompts = PromptComponents(2, 4, width, 5)
    for task in range(tasks):
        prompts.open(count, torch.Generator().manual_seed(task))
        with torch.no_grad():
            for part in prompts.fresh.values():
                part.add_(0.3 * random(7 + task, *part.shape))
        prompts.close()
    return prompts


def test_a_prefix_is_the_weighed_sum_of_all_components() -> None:
    prompts, query = components(2), random(0, 4, 12)
    prompts.open(3, torch.Generator().manual_seed(9))
    parts = {name: torch.cat([getattr(prompts, name), prompts.fresh[name]], dim=1) for name in PARTS}
    for layer, found in enumerate(prompts(query)):
        for i, one in enumerate(query):
            rows = torch.zeros(4, 5)
            for a, k, p in zip(*(parts[name][layer] for name in PARTS), strict=True):
                rows = rows + F.cosine_similarity(one * a, k, dim=0) * p
            torch.testing.assert_close(torch.cat([found.keys[i], found.values[i]]), rows)


@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_new_components_are_orthonormal_and_orthogonal_to_all_old_ones(tasks: int) -> None:
    prompts = components(tasks)
    prompts.open(3, torch.Generator().manual_seed(9))
    for name in PARTS:
        for old, fresh in zip(getattr(prompts, name).flatten(2), prompts.fresh[name].detach().flatten(2), strict=True):
            torch.testing.assert_close(fresh @ fresh.T, torch.eye(3))
            torch.testing.assert_close(old @ fresh.T, torch.zeros(len(old), 3), rtol=0, atol=1e-5)
    if not tasks:
        torch.testing.assert_close(prompts.penalty(), torch.tensor(0.0), rtol=0, atol=1e-6)


def test_components_beyond_the_width_have_unit_norm() -> None:
    fresh = orthonormal_rows(random(0, 3, 4), 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fresh.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(random(0, 3, 4) @ fresh[0], torch.zeros(3), rtol=0, atol=1e-5)
    assert orthonormal_rows(random(0, 9, 4), 2, torch.Generator()).isfinite().all()


def test_the_penalty_is_the_mean_square_of_what_keeps_components_from_being_orthonormal() -> None:
    prompts, wanted = components(2), 0.0
    for name in PARTS:
        for layer in getattr(prompts, name).flatten(2).tolist():
            rows = [torch.tensor(row) for row in layer]
            wanted += sum((float(a @ b) - (a is b)) ** 2 for a in rows for b in rows) / len(rows) ** 2
    torch.testing.assert_close(prompts.penalty(), torch.tensor(wanted))


QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2}


@pytest.mark.parametrize("method", [L2P, DualPrompt, CODAPrompt])
def test_the_query_is_the_frozen_feature_whatever_was_learned(
    method: Any, tiny: Folder, tasks: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = method(str(tiny("vit")), **QUICK)
    encoded = learner.backbone.encode(tasks[0].inputs)
    with torch.no_grad():
        plain = learner.backbone(encoded)
    asked: list[Tensor] = []
    inner = learner.adapter.features_with_prompts

    def listening(encoded: Any, query: Tensor) -> Any:
        asked.append(query)
        return inner(encoded, query)

    monkeypatch.setattr(learner.adapter, "features_with_prompts", listening)
    for task in tasks[:2]:
        learner.learn(task)
        asked.clear()
        features = learner.features(tasks[0].inputs)
        torch.testing.assert_close(torch.cat(asked), plain)
        assert not torch.isclose(features, plain).all(1).any()


def test_layers_beyond_the_last_are_left_out(tiny: Folder) -> None:
    """Two layers: both have the general prefix, and the experts are in the last."""
    adapter = DualPrompt(str(tiny("vit")), general_length=2, expert_length=3).adapter
    assert [list(adapter.general_layers), list(adapter.expert_layers)] == [[0, 1], [1]]
    assert adapter.prompts.experts.shape == (0, 1, 2, 3, 16)
    assert CODAPrompt(str(tiny("vit"))).adapter.prompts.key.shape == (2, 0, 16)


def test_an_entry_holds_what_its_stage_added(tiny: Folder, tasks: list[Examples]) -> None:
    coda = CODAPrompt(str(tiny("vit")), components=2, **QUICK).learn(tasks[0]).learn(tasks[1]).forget("0")
    assert [entry.tensors["prompts.key"].shape[1] for entry in coda.entries[:2]] == [2, 2]
    assert not any(key.startswith("prompts.") for key in coda.entries[2].tensors)
    dual = DualPrompt(str(tiny("vit")), **QUICK).learn(tasks[0]).learn(tasks[1]).forget("0")
    assert [("prompts.key" in entry.tensors) for entry in dual.entries] == [True, True, False]


def closed(learner: Any) -> list[Tensor]:
    """What no later task may change, of as many tasks as there were."""
    return [t.detach().clone() for t in learner.adapter.prompts.buffers()]


def test_prompts_of_closed_tasks_keep_their_bits(tiny: Folder, tasks: list[Examples]) -> None:
    for learner, axis in ((DualPrompt(str(tiny("vit")), **QUICK), 0), (CODAPrompt(str(tiny("vit")), **QUICK), 1)):
        before = closed(learner.learn(tasks[0]))
        for old, now in zip(before, closed(learner.learn(tasks[1])), strict=True):
            assert now.shape[axis] == 2 * old.shape[axis] > 0
            assert torch.equal(now.narrow(axis, 0, old.shape[axis]), old)


@pytest.mark.parametrize(
    ("method", "alone"),
    [
        pytest.param(L2P, {"key_loss_weight": 0.0}, marks=pytest.mark.slow),
        (DualPrompt, {"key_loss_weight": 0.0}),
        (CODAPrompt, {"orthogonality_weight": 0.0}),
    ],
)
def test_prompts_lower_the_loss_further_than_head_rows_alone(method: Any, alone: dict[str, float]) -> None:
    """The cross entropy of the last epoch, beside that of prompts which stand still."""
    train, _ = digits()

    def end(learning_rate: float) -> float:
        learner = method(
            "micro-vit", epochs=3, batch_size=32, learning_rate=learning_rate, head_learning_rate=1e-2, **alone
        )
        steps = learner.fit_stage(Stage("task 0", train.select(range(200)), {}))
        losses: list[float] = [step.values["loss"] for step in steps if "loss" in step.values]
        return sum(losses[-7:]) / 7

    assert end(3e-2) < 0.95 * end(1e-9)
