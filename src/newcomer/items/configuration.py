"""Settings of item learners in groups: pre-training, warm-up, probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from newcomer.items.adaptation.rules import Adaptation, AdaptationName, build_adaptation
from newcomer.items.inference import WarmupEvents
from newcomer.settings import internal, setting_name
from newcomer.training.settings import Count, KeptShare, NotNegative, Rate, Share, Times

Auto = Literal["auto"]


@dataclass(frozen=True)
class Pretraining:
    """Pre-training by Adam on shuffled rows, with a one-cycle learning rate.

    - `epochs` (setting `pretrain_epochs`): passes over the events; 'auto': as many as predict held-out old items best, whose lives
      a second model goes through after 1, 2, 4, … passes over the others (`items.training.held_out`).
    - `lr` (`pretrain_lr`), `batch_size`.
    - `weight_decay`: an L2 term in the gradient.
    - `residual_l2`: an old item's id and bias are their initial values plus a residual; `residual_l2` · |residual|² is added to
      each row's loss, so that the initial values explain what the item's fields can.
    - `weight_averaging`: average the weights over this last share of the steps (Izmailov et al. 2018).
    - `id_dropout`: share of rows without their item's residual.
    - `user_min_count`: a user with fewer events in training shares the vector of unknown users.
    - `user_buckets`: hash users' ids into so many rows, whose users share a vector; 0: all users share that of unknown ones, so
      that users are left out but for their fields. None: a row for each user.
    - `shard_tables`: spread the rows of large embedding tables (`pretraining.LARGE_TABLE`) over the processes that train together;
      'auto': those that would be a burden to each of them (`pretraining.SHARDED_FROM`). The model is the same, up to rounding.

    Set by the learner: `item_graphs`, whether each row uses its item's generated graph; `field_dropout`, the share of rows without
    a field, per item field. Both kinds of dropout are sampled anew each time.
    """

    epochs: Count | Auto = setting_name("pretrain_epochs", "auto")
    lr: Rate = setting_name("pretrain_lr", 1e-3)
    batch_size: Count = 512
    weight_decay: NotNegative = 2.9e-7
    residual_l2: NotNegative = 0.0
    weight_averaging: Share = internal(0.0)
    id_dropout: Share = internal(0.0)
    user_min_count: Count = 1
    user_buckets: Times | None = None
    shard_tables: bool | Literal["auto"] = "auto"
    item_graphs: bool = internal(False)
    field_dropout: Sequence[float] = internal(())


@dataclass(frozen=True)
class AveragedPretraining(Pretraining):
    """Pre-training with `weight_averaging`."""

    weight_averaging: Share = 0.0


@dataclass(frozen=True)
class DropoutPretraining(AveragedPretraining):
    """Pre-training with `weight_averaging` and `id_dropout`."""

    id_dropout: Share = 0.0


@dataclass(frozen=True)
class GraphPretraining(DropoutPretraining):
    """Pre-training of EmerG; `graph` (setting `pretrain_graph`): through each row's 'item' graph, or the 'shared' one."""

    epochs: Times | Auto = setting_name("pretrain_epochs", "auto")
    graph: Literal["item", "shared"] = setting_name("pretrain_graph", "item")


@dataclass(frozen=True)
class Warmup:
    """Adaptation of an item to its events.

    - `adaptation`: 'map', the MAP estimate under a learned prior (std `prior_std` at first, `linearizations` of the network);
      'learned_sgd', gradient descent with learned rates; 'adam', `warmup_steps` of Adam at `warmup_lr`.
    - `warmup_events`: adapt to the 'new' events of a warm-up, or to 'all' of the item's events so far.
    """

    adaptation: AdaptationName = "adam"
    prior_std: Rate = 0.3
    linearizations: Count = 2
    warmup_lr: Rate = 1e-2
    warmup_steps: Count = 12
    warmup_events: WarmupEvents = "new"

    def build(self, inner_lr: float | None = None, inner_steps: int | None = None) -> Adaptation:
        """The adaptation; within episodes its gradient steps are those of a warm-up, unless given."""
        return build_adaptation(
            self.adaptation,
            self.prior_std,
            self.linearizations,
            self.warmup_lr if inner_lr is None else inner_lr,
            self.warmup_steps if inner_steps is None else inner_steps,
            self.warmup_lr,
            self.warmup_steps,
        )


@dataclass(frozen=True)
class Probabilities:
    """What turns logits into click probabilities.

    - `calibrate`: fit a calibration by number of events (`items.calibration.Calibration`) on old items that a second model, trained
      on the others, has not learned; so training takes up to twice as long. Not for a log that is read in chunks.
    - `negative_rate`: share of the negatives, from a millionth on, that was kept in the labelled events, of training and of
      warm-ups alike. Probabilities are those of the full stream.
    """

    calibrate: bool = True
    negative_rate: KeptShare = 1.0
