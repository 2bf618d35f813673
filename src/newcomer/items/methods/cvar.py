"""CVAR: a conditional variational autoencoder of warm ids writes cold ones (Zhao et al., SIGIR 2022, arXiv 2205.09935)."""

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
from newcomer.nn.ctr.gaussians import Gaussians, wasserstein
from newcomer.nn.optim.analytic_gradients import RowSlopes
from newcomer.settings import checked
from newcomer.shapes import Float, Tensor
from newcomer.training.checkpoint import Things
from newcomer.training.fit import fit
from newcomer.training.learner import Step
from newcomer.training.settings import Count, NotNegative, Rate, Times


class CVARNetwork(TowerNetwork):
    """q(z | v) encodes an item's v, p(z | fields) foresees it, and a decoder makes v of z and of how often the item was seen.

    v: id and bias side by side, less the common start. All three are linear; the decoder is silent at first. `whole`: events are
    all so far, not those that came since.
    """

    kept = ("seen",)

    def __init__(
        self,
        item_sizes: Sequence[FieldSize],
        row_sizes: Sequence[FieldSize],
        width: int,
        hidden: Sequence[int],
        deviation: float,
        backbone: Tower,
        latent: int,
        whole: bool,
    ) -> None:
        super().__init__(item_sizes, row_sizes, width, hidden, deviation, backbone=backbone)
        self.whole = whole
        with beside():
            encoder, prior = nn.Linear(width + 1, 2 * latent), nn.Linear(self.inputs, 2 * latent)
            decoder = silent(nn.Linear(latent + 1, width + 1))
        self.coder = nn.ModuleDict({"encoder": encoder, "prior": prior, "decoder": decoder})

    def begin(self, own: Values, items: int) -> State:
        seen = self.start.new_zeros(items, 1)
        return {**state_of(self.decoded(self.foreseen(own, items).mean, seen)), "seen": seen}

    def encoded(self, vector: Float[Tensor, "item number"]) -> Gaussians:
        """q(z | v) of the id and bias that an item has."""
        return Gaussians.of(self.coder["encoder"](vector - self.start))

    def foreseen(self, own: Values, items: int) -> Gaussians:
        """p(z | fields)."""
        return Gaussians.of(self.coder["prior"](self.characteristics(own, items)))

    def decoded(
        self, latent: Float[Tensor, "item latent"], seen: Float[Tensor, "item 1"]
    ) -> Float[Tensor, "item number"]:
        """Id and bias of z and of a number of events, which is read as log₁₀(1 + number)."""
        moved: Tensor = self.coder["decoder"](torch.cat([latent, (1 + seen).log10()], dim=1))
        return self.start + moved

    def row_slopes(self) -> RowSlopes | None:
        return None

    def noted(self, state: State, clicks: Clicks, batch: Padded) -> State:
        more = batch.real.sum(dim=1, keepdim=True).to(state["seen"].dtype)
        return {"seen": torch.maximum(state["seen"], more) if self.whole else state["seen"] + more}

    def settled(self, state: State) -> State:
        """Encoded and decoded: of what was tuned, that which ids of items so often seen are like."""
        latent = self.encoded(vector_of(state)).mean
        return {**state, **state_of(self.decoded(latent, state["seen"]))}


class CVAR(ItemLearner):
    """Pre-trained as `IdTuning`; then an autoencoder of the old items' ids is trained, with all else fixed.

    Minimised over the old items' events: the loss of the ids that the prior foresees + `reconstruction` · |v − v̂|² + `matching` ·
    W₂² between encoder and prior. A new item begins with what is decoded of its prior's mean; a warm-up tunes its
    id and bias, encodes and decodes them. Old items keep theirs until they are warmed up.

    Where this departs from the paper: what the prior foresees is decoded as of an item never seen, which is what a new one is; the
    old items' own numbers of events are told where their ids are reconstructed. No weight is trained on new items' events.

    - `latent`: the size of z; `noise`: the share of its deviation at which it is drawn in training, 1 in the paper and 1e-4 in
      its public code.
    - `train_epochs`, `train_rate`: of the autoencoder's training, by Adam; `reconstruction`, `matching`: see above.
    - all others: see `IdTuning`.
    """

    name = "cvar"
    network: CVARNetwork

    @checked
    def __init__(
        self,
        schema: Schema,
        *,
        backbone: Tower = "deepfm",
        width: Count = 16,
        hidden: list[Count] = [128, 64],  # noqa: B006  # settings are JSON; never changed
        latent: Count = 16,
        pretrain_epochs: Count = 2,
        pretrain_rate: Rate = 1e-3,
        batch_size: Count = 512,
        weight_decay: NotNegative = 2.9e-7,
        shrinkage: NotNegative = 0.0,
        train_epochs: Count = 1,
        train_rate: Rate = 1e-2,
        reconstruction: Rate = 1.0,
        matching: NotNegative = 1e-4,
        noise: NotNegative = 1e-4,
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
        self.latent, self.train_epochs, self.train_rate = latent, train_epochs, train_rate
        self.reconstruction, self.matching, self.noise = reconstruction, matching, noise

    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> CVARNetwork:
        return CVARNetwork(
            item_sizes,
            row_sizes,
            self.width,
            self.hidden,
            self.deviation,
            self.backbone,
            self.latent,
            whole=self.history == "all",
        )

    def _rehearse(self, stage: str, old: Lessons, own: Values, residuals: nn.Embedding, best: Best) -> Iterator[Step]:
        network = self.network
        warm = network.start.detach() + residuals.weight.detach()
        counts = torch.tensor(old.counts, dtype=warm.dtype, device=warm.device)[:, None]
        optimizer = torch.optim.Adam(network.coder.parameters(), self.train_rate, fused=True)

        def loss(batch: Batch) -> Tensor:
            ids, seen = warm[batch.items], counts[batch.items]
            encoded = network.encoded(ids)
            foreseen = network.foreseen([values[batch.items] for values in own], len(ids))
            noise = self.noise * torch.randn(2, *encoded.mean.shape, generator=batch.chance).to(ids.device)
            again = network.decoded(encoded.drawn(noise[0]), seen)
            written = network.decoded(foreseen.drawn(noise[1]), torch.zeros_like(seen))
            missed = self.reconstruction * (again - ids).square().sum(dim=1)
            apart = self.matching * wasserstein(encoded, foreseen)
            return batch.loss(network, state_of(written), own) + (missed + apart)[batch.of].mean()

        def take_step(batch: Batch) -> Mapping[str, float]:
            (seen,) = fit([batch], loss, optimizer)
            return seen

        things: Things = {"network": network, "optimizer": optimizer, "best": best}
        rehearsal = Rehearsal(
            old, self.train_epochs, self.pretraining.batch_size, self.seed, stage, self.checkpoint, best
        )
        yield from rehearsal.go(network, network.coder, things, take_step)

    def _trained(self, residuals: nn.Embedding, own: Values, counts: Sequence[int]) -> dict[str, Tensor]:
        state = super()._trained(residuals, own, counts)
        return state | {"seen": torch.tensor(counts, device=self.device).to(state["seen"])[:, None]}
