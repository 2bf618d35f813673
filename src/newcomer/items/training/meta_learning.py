"""Meta-learning on episodes of old items: initial states and adaptation scales."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from newcomer.items.adaptation.rules import Adaptation, EventLikelihood
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.networks.item_network import ItemNetwork, TrainedPart
from newcomer.items.training.episodes import Episodes, Quarters
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.second_stage import only_trainable
from newcomer.seeds import spawn
from newcomer.settings import internal, setting_name
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Checkpoint, Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.processes import Processes
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times

MAX_RULE_STEPS = 1000
"""Maximum number of steps when only the adaptation's scales (a few hundred parameters) are trained."""


@dataclass(frozen=True)
class MetaLearning:
    """Meta-learning by Adam over episodes of old items.

    - `epochs` (setting `meta_epochs`), `lr` (`meta_lr`); `episodes_per_step`: episodes averaged in a gradient step.
    - `trained_part` (`meta_trains`): 'all' weights, or the adaptation's scales ('rule').
    - `support` (`support_events`), `query` (`query_events`): maximum number of events, from two consecutive quarters of an item's
      events; `vary_support`: sample the number of support events from 1 on.
    - `support_share`: the loss is `support_share` · support loss before + (1 − `support_share`) · query loss after.
    - `second_order`: differentiate through the inner gradients.
    """

    epochs: Times = setting_name("meta_epochs", 4)
    lr: Rate = setting_name("meta_lr", 5e-2)
    trained_part: TrainedPart = setting_name("meta_trains", "rule")
    episodes_per_step: Count = 24
    support: Count = setting_name("support_events", 60)
    query: Count = setting_name("query_events", 40)
    vary_support: bool = True
    support_share: Share = 0.0
    second_order: bool = False
    weight_decay: NotNegative = internal(0.0)


@dataclass(frozen=True)
class GeneratorMetaLearning(MetaLearning):
    """Meta-learning of a generator of initial ids; `episode_events`: maximum number of support and of query events."""

    lr: Rate = setting_name("meta_lr", 1e-2)
    trained_part: TrainedPart = internal("start")
    support: Count = setting_name("episode_events", 20)
    query: Count = internal(20)
    vary_support: bool = internal(False)
    support_share: Share = 0.1
    second_order: bool = True


def rule_meta_learning(epochs: int) -> MetaLearning:
    """Meta-learning of the adaptation's scales alone, if it has any."""
    return MetaLearning(epochs)


def meta_learn(
    network: ItemNetwork,
    item_features: Values,
    clicks: Clicks,
    plan: MetaLearning,
    adaptation: Adaptation,
    seed: int,
    stage: str,
    checkpoint: Checkpoint,
    selection: ModelSelection,
    processes: Processes,
) -> Iterator[Step]:
    """Meta-train on the old items' events, sorted by time; an epoch is every (item, pair of quarters) once.

    Several processes take the steps of one, each with its share of a step's episodes.
    """
    trained = list(network.meta_parameters(plan.trained_part).parameters())
    if not plan.epochs or not trained:
        return
    quarters = Quarters(clicks.item)
    episode_batches = quarters.episode_batches(plan.episodes_per_step, plan.epochs, seed, stage)
    per_epoch = max(len(episode_batches) // plan.epochs, 1)
    episode_batches = episode_batches[:MAX_RULE_STEPS] if plan.trained_part == "rule" else episode_batches
    optimizer = torch.optim.Adam(trained, plan.lr, weight_decay=plan.weight_decay, fused=True)
    checkpointed: Things = {"network": network, "optimizer": optimizer, "best": selection}
    done = checkpoint.resume("meta", checkpointed)

    def losses(step: int) -> Iterator[Tensor]:
        chance = spawn(seed, stage, "windows", step)
        support = int(torch.randint(1, plan.support + 1, (), generator=chance)) if plan.vary_support else plan.support
        episodes, count = (
            quarters.episodes(episode_batches[step], support, plan.query, chance),
            len(episode_batches[step]),
        )
        own = processes.share(range(count))
        if network.is_sharded:  # all do all: how many lookups an episode takes depends on how many there are
            yield episode_loss(network, item_features, clicks, episodes, plan, adaptation) / processes.count
        elif own:
            loss = episode_loss(network, item_features, clicks, episodes.at(own), plan, adaptation)
            yield loss if len(own) == count else loss * (len(own) / count)

    tables = nn.ModuleList([network.item_fields, network.row_fields])
    with only_trainable(tables, network.meta_parameters(plan.trained_part)):  # gradients of others would be as large
        steps = fit(range(done, len(episode_batches)), losses, optimizer, processes)
        for step, metrics in enumerate(steps, done + 1):
            yield Step("meta", step, len(episode_batches), metrics)
            if step % per_epoch == 0 or step == len(episode_batches):
                selection.update(network)
            checkpoint.keep("meta", step, checkpointed, now=step == len(episode_batches))


def episode_loss(
    network: ItemNetwork,
    item_features: Values,
    clicks: Clicks,
    episodes: Episodes,
    plan: MetaLearning,
    adaptation: Adaptation,
) -> Float[Tensor, ""]:
    """support_share · L_support(φ) + (1 − support_share) · L_query(φ'), mean over episodes."""
    items = episodes.support.items
    state = network.initial_state([values[items] for values in item_features], len(items))
    # a graph is generated from the id, but the inner step takes partial gradients: each by its own entry alone
    state = {key: value.view_as(value) for key, value in state.items()}
    statistics = network.update_statistics(state, clicks, episodes.support)
    fixed, state = network.split_state({**state, **statistics})
    support, query = (
        EventLikelihood.of(network, item_features, clicks, batch, fixed) for batch in (episodes.support, episodes.query)
    )
    initial_loss = support.loss(state) if plan.support_share else None
    adapted = network.after_adaptation(
        {**fixed, **adaptation.inner_update(support, state, plan.second_order, initial_loss)}
    )
    loss = (1 - plan.support_share) * query.loss(adapted).mean()
    return loss if initial_loss is None else loss + plan.support_share * initial_loss.mean()
