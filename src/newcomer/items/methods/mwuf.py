"""MWUF: two networks scale and shift a cold id into a warm one (Zhu et al., SIGIR 2021, arXiv 2105.04790)."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from newcomer.data.schema import Schema
from newcomer.items.adaptation.rules import Rule, adaptation
from newcomer.items.encoding.encoder import Clicks, Values
from newcomer.items.inference import History
from newcomer.items.learner import ItemLearner
from newcomer.items.networks.id_bias import beside, silent, state_of, vector_of
from newcomer.items.networks.item_network import State
from newcomer.items.networks.tower_network import Tower, TowerNetwork
from newcomer.items.padding import Padded
from newcomer.items.training.meta_learning import learning_the_rule
from newcomer.items.training.model_selection import Best
from newcomer.items.training.pretraining import Pretraining
from newcomer.items.training.second_stage import Batch, Rehearsal
from newcomer.items.training.training_data import Lessons
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.optim.analytic_gradients import RowSlopes
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate, Times

HIDDEN = 16
"""Of both networks, as in the public code."""


class MWUFNetwork(TowerNetwork):
    """v_warm = v_cold ⊙ (1 + h(fields)) + g(users), v an item's id and bias side by side.

    `users` is the mean embedding of those who met the item, and `seen` of how many events: infinitely many for an old item, whose
    id is warm as it is. g has no biases, so that nobody shifts nothing; h and g are silent at first. `whole`: events are all so
    far, not those that came since.
    """

    kept = ("users", "seen")

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        hidden: Sequence[int],
        deviation: float,
        backbone: Tower,
        whole: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, hidden, deviation, backbone=backbone)
        self.whole = whole
        with beside():
            scale = [nn.Linear(self.inputs, HIDDEN), nn.ReLU(), silent(nn.Linear(HIDDEN, width + 1))]
            shift = [
                nn.Linear(width, HIDDEN, bias=False),
                nn.ReLU(),
                silent(nn.Linear(HIDDEN, width + 1, bias=False)),
            ]
        self.warming = nn.ModuleDict({"scale": nn.Sequential(*scale), "shift": nn.Sequential(*shift)})

    def begin(self, own: Values, items: int) -> State:
        return {**self.named(own, items), **self.unseen(items)}

    def unseen(self, items: int) -> State:
        """What is kept of items that nobody has met yet."""
        return {"users": self.start.new_zeros(items, self.width), "seen": self.start.new_zeros(items, 1)}

    def warmed(self, state: State, own: Values) -> State:
        if "seen" not in state:  # while the old items' ids are trained
            return state
        cold = vector_of(state)
        scale = 1 + self.warming["scale"](self.characteristics(own, len(cold)))
        warm = cold * scale + self.warming["shift"](state["users"])
        return state_of(torch.where(state["seen"].isinf(), cold, warm))

    def row_slopes(self) -> RowSlopes | None:
        return None

    def noted(self, state: State, clicks: Clicks, batch: Padded) -> State:
        """Everybody of these events is met, whatever the label; who comes twice counts twice."""
        real = batch.real[..., None]
        met = real.sum(dim=1).to(state["seen"].dtype)
        users = self.users(clicks, batch.rows.flatten()).view(*batch.rows.shape, -1)
        mean = (users * real).sum(dim=1) / met.clamp(min=1)
        if self.whole:
            return {"users": mean, "seen": torch.maximum(state["seen"], met)}
        seen = state["seen"] + met
        return {"users": torch.lerp(state["users"], mean, met / seen.clamp(min=1)), "seen": seen}

    def users(self, clicks: Clicks, rows: Tensor) -> Float[Tensor, "row width"]:
        """The embedding of who each of these rows is about."""
        found: Tensor = self.row_fields.tables[0][clicks.values(rows)[0]]
        return found


class MWUF(ItemLearner):
    """Pre-trained as `IdTuning`; a new item begins at the mean of the old, and what is scored is its id scaled and shifted.

    Two networks are trained with all else fixed, batch by batch in two steps: on the loss of cold ids as they are these are moved,
    from where new items begin; on the loss of the same ids warmed, the networks. Their inputs are an item's fields, and the mean
    embedding of all users who met it, clicked or not. In service events tune the cold id through scale and shift.

    - `train_epochs`, `train_rate`, `cold_rate`: of that training, by Adam; rates of the networks and of the cold ids.
    - all others: see `IdTuning`.
    """

    name = "mwuf"
    network: MWUFNetwork

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        backbone: Tower = "deepfm",
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.0,
        train_epochs: Count = 1,
        train_rate: Rate = 1e-3,
        cold_rate: Rate = 1e-3,
        adapt: Rule = "adam",
        meta_epochs: Times = 4,
        spread: Rate = 0.3,
        rounds: Count = 2,
        warm_rate: Rate = 1e-2,
        warm_steps: Count = 12,
        history: History = "phase",
        deviation: Rate = 0.01,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            schema,
            Pretraining(pretrain_epochs, batch_size, pretrain_rate, weight_decay, shrinkage, own_graphs=False),
            learning_the_rule(meta_epochs),
            adaptation(adapt, spread, rounds, warm_rate, warm_steps, warm_rate, warm_steps),
            history,
            seed,
            device,
        )
        self.width, self.hidden, self.deviation, self.backbone = width, hidden, deviation, backbone
        self.train_epochs, self.train_rate, self.cold_rate = train_epochs, train_rate, cold_rate

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> MWUFNetwork:
        whole = self.history == "all"
        return MWUFNetwork(item_sizes, row_sizes, self.width, self.hidden, self.deviation, self.backbone, whole)

    def _rehearse(self, stage: str, old: Lessons, own: Values, residuals: nn.Embedding, best: Best) -> Iterator[Step]:
        network, users = self.network, self._users(old, stage)
        starts = network.start.detach().repeat(len(users), 1)
        cold = nn.Embedding.from_pretrained(starts, freeze=False)  # type: ignore[no-untyped-call]
        moves_cold = torch.optim.Adam(cold.parameters(), self.cold_rate, fused=True)
        moves_networks = torch.optim.Adam(network.warming.parameters(), self.train_rate, fused=True)
        met = torch.tensor(old.counts, dtype=users.dtype, device=users.device)[:, None]

        def cold_loss(batch: Batch) -> Tensor:
            return batch.loss(network, state_of(cold(batch.items)), own)

        def warm_loss(batch: Batch) -> Tensor:
            ids = state_of(cold(batch.items).detach())
            return batch.loss(network, {**ids, "users": users[batch.items], "seen": met[batch.items]}, own)

        def take_step(batch: Batch) -> Mapping[str, float]:
            (before,) = fit([batch], cold_loss, moves_cold)
            (after,) = fit([batch], warm_loss, moves_networks)
            return {"loss": after["loss"], "cold loss": before["loss"]}

        things: Things = {
            "network": network,
            "cold": cold,
            "moves cold": moves_cold,
            "moves networks": moves_networks,
            "best": best,
        }
        rehearsal = Rehearsal(
            old, self.train_epochs, self.pretraining.batch_size, self.seed, stage, self.checkpoint, best
        )
        yield from rehearsal.go(network, network.warming, things, take_step)

    @torch.no_grad()
    def _users(self, old: Lessons, stage: str) -> Float[Tensor, "item width"]:
        """Of every old item the mean embedding of those who met it."""
        total = self.network.start.new_zeros(len(old.items), self.width)
        for number in range(old.mixes_per_epoch):
            clicks, rows = old.mix(number, self.seed, f"{stage} users")
            total.index_add_(0, clicks.item[rows], self.network.users(clicks, rows))
        return total / torch.tensor(old.counts, dtype=total.dtype, device=total.device)[:, None]

    def _trained(self, residuals: nn.Embedding, own: Values, counts: Sequence[int]) -> dict[str, Tensor]:
        state = super()._trained(residuals, own, counts)
        return state | {"seen": torch.full_like(state["seen"], torch.inf)}
