"""Meta-learning: old items play new ones, so that what is shared learns to be a good beginning, and how far to move from it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from newcomer.items.adaptation.rules import Adaptation, Events
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, Trained
from newcomer.items.training.episodes import Episodes, Quarters
from newcomer.items.training.model_selection import Best
from newcomer.seeds import spawn
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step

ENOUGH = 1000
"""Steps in which a rule is learned: some hundred numbers need no more, however many items there are."""


@dataclass(frozen=True)
class MetaLearning:
    """Adam over episodes.

    `trains` 'all' weights, what writes where items begin ('start'), or the adaptation's 'rule' alone. `per_step` episodes a step,
    each with at most `support` and `query` events of two consecutive quarters; with `varied` the number to support is drawn anew
    for each step, from 1 on. `support_share` · support loss before + the rest · query loss after is what is minimised.
    """

    epochs: int
    rate: float
    weight_decay: float
    trains: Trained
    per_step: int
    support: int
    query: int
    varied: bool
    support_share: float
    second_order: bool


def learning_the_rule(epochs: int) -> MetaLearning:
    """Episodes for a rule alone, where it has anything to learn."""
    return MetaLearning(
        epochs,
        rate=5e-2,
        weight_decay=0.0,
        trains="rule",
        per_step=24,
        support=60,
        query=40,
        varied=True,
        support_share=0.0,
        second_order=False,
    )


def meta_learn(
    network: ItemNetwork,
    own: Values,
    clicks: Clicks,
    plan: MetaLearning,
    adaptation: Adaptation,
    seed: int,
    stage: str,
    checkpoint: Checkpoint,
    best: Best,
) -> Iterator[Step]:
    """Train on the old items' events, which go by time; every item plays every pair of quarters once an epoch."""
    trained = list(network.learned_in_episodes(plan.trains).parameters())
    if not plan.epochs or not trained:
        return
    quarters = Quarters(clicks.item)
    draws = quarters.draws(plan.per_step, plan.epochs, seed, stage)
    per_epoch = max(len(draws) // plan.epochs, 1)
    draws = draws[:ENOUGH] if plan.trains == "rule" else draws
    optimizer = torch.optim.Adam(trained, plan.rate, weight_decay=plan.weight_decay, fused=True)
    things: Things = {"network": network, "optimizer": optimizer, "best": best}
    done = checkpoint.resume("meta", things)

    def loss(step: int) -> Tensor:
        chance = spawn(seed, stage, "windows", step)
        support = int(torch.randint(1, plan.support + 1, (), generator=chance)) if plan.varied else plan.support
        episodes = quarters.episodes(draws[step], support, plan.query, chance)
        return episode_loss(network, own, clicks, episodes, plan, adaptation)

    for step, seen in enumerate(fit(range(done, len(draws)), loss, optimizer), done + 1):
        yield Step("meta", step, len(draws), seen)
        if step % per_epoch == 0 or step == len(draws):
            best.consider(network)
        checkpoint.keep("meta", step, things, now=step == len(draws))


def episode_loss(
    network: ItemNetwork, own: Values, clicks: Clicks, episodes: Episodes, plan: MetaLearning, adaptation: Adaptation
) -> Float[Tensor, ""]:
    """support_share · L_support(φ) + (1 − support_share) · L_query(φ'), mean over episodes."""
    items = episodes.support.items
    begun = network.begin([values[items] for values in own], len(items))
    # a graph is written from the id, but in a step each moves by its own gradient alone
    begun = {key: value.view_as(value) for key, value in begun.items()}
    noted = network.noted(begun, clicks, episodes.support)
    beside, begun = network.divided({**begun, **noted})
    support, query = (Events.of(network, own, clicks, batch, beside) for batch in (episodes.support, episodes.query))
    before = support.loss(begun) if plan.support_share else None
    moved = network.settled({**beside, **adaptation.inner(support, begun, plan.second_order, before)})
    loss = (1 - plan.support_share) * query.loss(moved).mean()
    return loss if before is None else loss + plan.support_share * before.mean()
