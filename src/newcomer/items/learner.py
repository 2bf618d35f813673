"""Base class of item learners: click models that learn old items, add new ones, score requests and warm up on events."""

import hashlib
import json
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.data.canonical import canonical_names
from newcomer.data.click_log import ClickLog, EntityTable
from newcomer.data.datasets.simulated_clicks import PLANTED
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_files import Source
from newcomer.data.io.log_reader import items_from_frame, log_from_frame, read_log
from newcomer.data.io.shuffle import earliest_events
from newcomer.data.schema import Field, Schema
from newcomer.data.weights import require_weights
from newcomer.errors import DataError, LearnerError, SettingError
from newcomer.items.adaptation.item_summary import Summaries
from newcomer.items.adaptation.rules import Adaptation
from newcomer.items.calibration import Calibration
from newcomer.items.configuration import Pretraining, Probabilities
from newcomer.items.encoding.bounds import within_bounds
from newcomer.items.encoding.encoder import Clicks, Encoder, Values, concat_clicks, concat_values
from newcomer.items.inference import WarmupEvents, predict_logits, sigmoid
from newcomer.items.lifecycle import Lifecycle
from newcomer.items.networks.graph_cache import GraphCache
from newcomer.items.networks.item_network import ItemNetwork, State, seeded_rng, without_prefix
from newcomer.items.serving.finite_checks import require_finite_scores, require_finite_states
from newcomer.items.training.calibration import (
    MIN_ITEMS,
    MIN_LABELS,
    fit_calibration,
    held_out_items,
    newest_items,
    outcomes,
    reached,
    that_fit,
)
from newcomer.items.training.field_regularization import FieldRegularization
from newcomer.items.training.held_out import HeldOut, epochs_to_try, epochs_without_choice
from newcomer.items.training.meta_learning import MetaLearning, meta_learn
from newcomer.items.training.model_selection import ModelSelection
from newcomer.items.training.pretraining import center_residuals, pretrain, sharded_from
from newcomer.items.training.training_data import MAX_ROWS, TrainingData, training_data
from newcomer.metrics.ranking import click_scores
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.nn.ctr.row_shards import RowShard, shards_of
from newcomer.printable import counted
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.store.entry import Entry
from newcomer.store.folder import Store
from newcomer.store.states import KEPT
from newcomer.streams.cold_start import (
    CalibrationSet,
    NewEvents,
    NewItems,
    OldItems,
    StageData,
    ValidationLife,
    events_before,
)
from newcomer.streams.stage import Stage
from newcomer.training.fit import evaluating
from newcomer.training.forks import require_own_process
from newcomer.training.learner import MACHINE_SETTINGS, Learner, Progress, Step
from newcomer.training.processes import Processes

OLD_ITEM_EVENTS = 60
"""Most recent events on which an old item's state is adapted (paper: 60, the three warm phases of a new item)."""


class ItemLearner(Learner[StageData, ClickLog]):
    """A click model for cold-start items: `learn` old items, `add` new ones, `score` requests, `warm` up on events.

    Shared weights are trained once, on the old items: pre-training, then meta-learning. Each item has its own state (id embedding,
    bias, for EmerG a graph), generated when it is added; events change nothing else. Subclasses build the network (`_build`).
    """

    network: ItemNetwork
    encoder: Encoder

    def __init__(
        self,
        schema: Schema,
        pretraining: Pretraining,
        meta: MetaLearning,
        adaptation: Adaptation,
        warmup_events: WarmupEvents,
        seed: int,
        device: str | None,
        regularization: FieldRegularization | None = None,
        probabilities: Probabilities = Probabilities(),
    ) -> None:
        super().__init__()
        self.regularization = regularization or FieldRegularization()
        self.regularization.validate(schema)
        self.schema, self.pretraining, self.meta, self.adaptation = schema, pretraining, meta, adaptation
        if pretraining.user_buckets is not None and pretraining.user_min_count > 1:
            raise SettingError("user_buckets and user_min_count both say which users share a row; set one of them")
        if pretraining.user_buckets == 0 and self.regularization.user_history:
            raise SettingError("user_history = true needs users, whom user_buckets = 0 leaves out; set one of them")
        if schema.weight is not None and self.regularization.user_history:
            raise SettingError(
                f"user_history = true counts a user's events, and cannot weigh them by '{schema.weight}'; leave out one of the two"
            )
        if pretraining.shard_tables is True and pretraining.weight_averaging:
            raise SettingError(
                "shard_tables = true needs weight_averaging = 0, whose mean is of whole tables; set one of them"
            )
        self.warmup_events, self.seed = warmup_events, seed
        self.processes = Processes(device)
        self.device = self.processes.device
        self.probabilities, self.fitted_calibration = probabilities, Calibration()
        self.held_out: HeldOut | None = None
        """How a second model predicted held-out old items, in the stage that was trained here."""
        self.known: dict[str, int] = {}
        """Item id → row in `state` and `item_features`."""
        self.item_features: Values = []
        """Encoded fields of the known items, one tensor a field."""
        self.state: dict[str, Tensor] = {}
        self.initial_state: dict[str, Tensor] = {}
        """States before any warm-up: as trained (old items), or as generated when added (new ones)."""
        self.counts: list[int] = []
        """Number of events learned from, per item."""
        self.graph_cache = GraphCache()
        self.sharded_from: int | None = None
        """Rows from which on a table is spread over the processes; None: none is."""
        self.past_events: Clicks | None = None
        """All warm-up events so far, if `warmup_events` is 'all'."""

    def __repr__(self) -> str:
        fields = counted(len(self.schema.nodes), "field")
        items = counted(len(self.known), "item") if self.known else "not trained"
        return f"{type(self).__name__}({fields}, {items})"

    def learn(self, source: ClickLog | ChunkedLog | Source | pl.DataFrame, progress: Progress | None = None) -> Self:
        """Train the shared weights on the old items' events: the first stage, once. Returns the learner.

        A `ChunkedLog` may be larger than memory: it is read chunk by chunk. `progress` is called with every `Step`: the part of
        training, the step, the number of steps, and the metrics there.

        Raises DataError for events that do not match the schema, LearnerError if it has learned before.
        """
        log = source if isinstance(source, ChunkedLog) else self._to_log(source)
        return self._run_stage("old", OldItems(log), progress)

    def add(self, items: EntityTable | pl.DataFrame) -> Self:
        """Add new items; their states are generated from their fields. Returns the learner.

        Raises LearnerError for an item that was added before, and before `learn`.
        """
        table = items if isinstance(items, EntityTable) else items_from_frame(items, self.schema)
        return self._run_stage(f"add {len(self.entries)}", NewItems(table))

    def warm(self, events: ClickLog | Source | pl.DataFrame) -> Self:
        """Adapt the states of the items in these events; shared weights and other items do not change. Returns the learner.

        Raises LearnerError for an item that was not added.
        """
        log = self._to_log(events, items=False)
        in_order = np.lexsort((log.row, log.fraction_or_zero, log.time))
        return self._run_stage(f"warm {len(self.entries)}", NewEvents(log.take(in_order)))

    def calibrate(self, events: ClickLog | Source | pl.DataFrame) -> Self:
        """Fit the calibration anew, on events of items that the shared weights were not trained on. Returns the learner.

        For new items that are not clicked as the old ones were. They live as new ones, whether they were added or not: the table
        has their fields. Items of training are left out, and only the thousand count whose first event is the latest. The mean of
        the prior is the present calibration. States do not change.

        Raises LearnerError for fewer than 50 such items, or fewer than 100 clicks or other events among their first 200 each.
        """
        return self._run_stage(f"calibrate {len(self.entries)}", CalibrationSet(self._to_log(events)))

    def score(self, requests: ClickLog | Source | pl.DataFrame) -> NDArray[np.float64]:
        """Click probabilities, one per row. Changes nothing; unknown users and values are encoded as 'unseen'.

        Raises LearnerError for an item that was not added, and for a score that is not finite.
        """
        require_own_process()
        log = self._to_log(requests, items=False, labels=False)
        clicks = self._encode_events(log)
        logits = predict_logits(self.network, self.state, self.item_features, clicks, self.graph_cache)
        scores = sigmoid(self.calibration(logits, np.array(self.counts)[clicks.item.cpu().numpy()]))
        require_finite_scores(scores, log)
        return scores

    @property
    def calibration(self) -> Calibration:
        """From the network's logit of an item with so many events to that of its click probability in the full stream."""
        return replace(self.fitted_calibration, shift=math.log(self.probabilities.negative_rate))

    @property
    def lifecycle(self) -> Lifecycle:
        """How item states start and are warmed up."""
        return Lifecycle(self.network, self.adaptation, self.warmup_events)

    @property
    def nodes(self) -> tuple[Field, ...]:
        """The interacting fields, in the order of a graph's axes."""
        return self.regularization.nodes(self.schema)

    def info(self) -> dict[str, Json]:
        """`held_out`: how a second model predicted held-out old items, after how many passes of pre-training, if there was one."""
        found = self.entries[0].info.get("held_out") if self.entries else None
        return {} if found is None else {"held_out": found}

    def cold_state(self, item_features: Values, items: int) -> dict[str, Tensor]:
        """States of new items, computed from their features."""
        return self.lifecycle.initial_state(item_features, items)

    @property
    def from_initial_state(self) -> bool:
        """Whether `adapt` takes initial states and all events so far, instead of current states and the new events."""
        return self.lifecycle.from_initial_state

    def set_states(self, names: Sequence[str], item_features: Values, state: State, counts: Sequence[int]) -> None:
        """Set these items' states and event counts from a database; unknown items are added.

        Not a stage: a store of this learner does not record it.
        """
        new = [n for n, name in enumerate(names) if name not in self.known]
        new_features = [values[new] for values in item_features]
        if new:
            self._register_finite([names[n] for n in new], new_features, self.cold_state(new_features, len(new)))
        numbers = [self.known[name] for name in names]
        self._set_state(torch.tensor(numbers, device=self.device), state)
        for number, count in zip(numbers, counts, strict=True):
            self.counts[number] = count

    def adapt(
        self, state: State, item_features: Values, clicks: Clicks, summaries: Summaries | None = None
    ) -> Iterator[tuple[Tensor, State]]:
        """Adapted states of the items that have events, batch by batch, as (item rows, states).

        `clicks.item` indexes the rows of `state` and `item_features`; `summaries` are of earlier events. The learner's own states
        do not change.
        """
        yield from self.lifecycle.warm_up(state, state, item_features, clicks, summaries=summaries)

    def evaluate(self, eval_set: ClickLog) -> dict[str, float]:
        """`auc`, `item_auc`, `logloss`, `calibration`, `f1`; see `metrics.ranking`. Each negative counts for those left out."""
        require_weights(eval_set, self.schema)
        rate = self.probabilities.negative_rate
        return click_scores(eval_set.item, eval_set.label, self.score(eval_set), eval_set.user, eval_set.weight, rate)

    def event_weights(self, log: ClickLog) -> NDArray[np.float64]:
        """Number of events of the full stream that each one stands for: its weight; of a negative more, if not all were kept."""
        return log.weight_or_one * np.where(log.label, 1.0, 1 / self.probabilities.negative_rate)

    @abstractmethod
    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> ItemNetwork: ...

    def _fit_stage(self, stage: Stage[StageData, ClickLog]) -> Generator[Step, None, Entry]:
        match stage.train:
            case OldItems(log, validation):
                yield from self._learn(stage.name, log, validation)
            case NewItems(items):
                self._add(items)
            case NewEvents(log):
                self._require_learned()
                self.encoder.require_labels(log)
                yield from self._warm(stage.name, log)
            case CalibrationSet(log):
                self._calibrate(log)
        return self._make_entry(stage)

    def _learn(self, stage: str, log: ClickLog | ChunkedLog, trial: ValidationLife | None) -> Iterator[Step]:
        if self.known:
            raise LearnerError(
                f"{type(self).__name__} has learned its old items; add the others, or build another learner"
            )
        if isinstance(log, ClickLog):
            require_weights(log, self.schema)
        old = training_data(
            log,
            self.device,
            self.schema.at_serving,
            user_history=self.regularization.user_history,
            user_min_count=self.pretraining.user_min_count,
            user_buckets=self.pretraining.user_buckets,
        )
        settings = {key: value for key, value in self.settings.items() if key not in MACHINE_SETTINGS}
        self.checkpoint.of = _digest([settings, self.schema.to_json(), old.fingerprint])
        if self.held_out is None and isinstance(log, ClickLog):
            yield from self.hold_out(stage, log, trial)
        elif self.held_out is None and isinstance(log, ChunkedLog):
            yield from self._hold_out_of_files(stage, log, old, trial)
        self.sharded_from = sharded_from(self.pretraining, self.processes)
        with seeded_rng(self.seed, stage, "weights"):
            self._create_network(old.encoder)
            residuals = nn.Embedding(len(old.items), self.network.width + 1, device=self.device)
            nn.init.normal_(residuals.weight, std=self.network.init_std)
            self.regularization.attach(self.network, self.encoder, old)
        item_features = self._on_device(self.encoder.items(old.items))
        modules = nn.ModuleList([self.network, residuals])
        selection = ModelSelection(modules, self.encoder, trial, self.adaptation, self.warmup_events, self.device)
        yield from self._train_network(stage, old, item_features, residuals, selection)
        selection.load_best()
        self._register_finite(old.items.ids, item_features, self._old_item_state(residuals, item_features, old.weights))
        self.counts = list(old.counts)
        if not self._keeps_trained_ids:
            for clicks in old.latest_events(OLD_ITEM_EVENTS):
                yield from self._adapt("old items", clicks)
            self.initial_state = dict(self.state)
        self.network.item_fields.fold()
        self.network.row_fields.fold()

    def _train_network(
        self, stage: str, old: TrainingData, item_features: Values, residuals: nn.Embedding, selection: ModelSelection
    ) -> Iterator[Step]:
        """Train the network's weights and the old items' `residuals`: deviations from their initial ids and biases."""
        epochs = self._epochs(old.rows) if self.held_out is None else self.held_out.epochs
        dropout = self.regularization.field_dropout_rates(self.schema)
        yield from pretrain(
            self.network,
            residuals,
            item_features,
            old,
            replace(self.pretraining, field_dropout=dropout),
            epochs,
            self.seed,
            stage,
            self.checkpoint,
            selection,
            self.processes,
        )
        center_residuals(self.network, residuals)
        self._after_pretraining()
        yield from self._train_second_stage(stage, old, item_features, residuals, selection)
        if self.meta.epochs:
            yield from meta_learn(
                self.network,
                item_features,
                old.event_histories(self.seed, stage),
                self.meta,
                self.adaptation,
                self.seed,
                stage,
                self.checkpoint,
                selection,
                self.processes,
            )

    def hold_out(
        self, stage: str, log: ClickLog, trial: ValidationLife | None = None, *, always: bool = False
    ) -> Iterator[Step]:
        """Let second models learn all but some held-out items; their outcomes choose passes and fit the calibration.

        All items stay in the training of this model, as with `CalibratedClassifierCV(ensemble=False)` of scikit-learn. The number
        of passes grows while that lowers the held-out items' log loss. Nothing is done in a small log, and if no setting needs it,
        unless `always`: to compare learners.
        """
        epochs, batch_size = self.pretraining.epochs, self.pretraining.batch_size
        if epochs != "auto" and not self.probabilities.calibrate and not always:
            return
        events, clicks = (np.bincount(log.item, weights, len(log.items)) for weights in (None, log.label))
        held_out = held_out_items(events, clicks, self.seed, stage)
        if not len(held_out):
            return
        lives, rest = log.of_items(held_out), log.of_items(np.setdiff1d(log.item, held_out))
        passes = epochs_to_try(len(rest), batch_size) if epochs == "auto" else iter([epochs])
        yield from self._try_passes(stage, lives, rest, passes, trial)

    def _hold_out_of_files(
        self, stage: str, files: ChunkedLog, old: TrainingData, trial: ValidationLife | None
    ) -> Iterator[Step]:
        """The same for a log larger than memory, and the calibration alone: passes over it are too long to try several numbers."""
        if not self.probabilities.calibrate:
            return
        events = np.array(old.counts)
        held_out = held_out_items(events, old.clicks_of_items, self.seed, stage)
        if not len(held_out):
            return
        ids = [old.items.ids[n] for n in that_fit(held_out, events, MAX_ROWS, self.seed, stage)]
        lives, rest = earliest_events(files, ids, KEPT), files.without_items(ids)
        yield from self._try_passes(stage, lives, rest, iter([self._epochs(old.rows)]), trial)

    def _epochs(self, rows: int) -> int:
        """Passes of pre-training over so many rows, where held-out items do not choose them."""
        epochs = self.pretraining.epochs
        return epochs_without_choice(rows, self.pretraining.batch_size) if epochs == "auto" else epochs

    def _try_passes(
        self,
        stage: str,
        lives: ClickLog,
        rest: ClickLog | ChunkedLog,
        passes: Iterator[int],
        trial: ValidationLife | None,
    ) -> Iterator[Step]:
        """Train a second model on `rest` in each number of passes, while that lowers the loss of the held-out items' `lives`.

        What is worse by less than a standard error may be chance, and is tried once more with twice the passes.
        """
        schema = replace(self.schema, fields=tuple(replace(one, at_serving=None) for one in self.schema.fields))
        best: HeldOut | None = None
        tried, worse = dict[int, float](), 0
        for epochs in passes:
            other = self._from_manifest(self._depends_on(), self.settings, {"schema": schema})  # it answers no requests
            other.probabilities = replace(self.probabilities, calibrate=False)
            other.pretraining = replace(self.pretraining, epochs=epochs)
            other.checkpoint = self.checkpoint.beside(f"held-out-{epochs}")
            for step in other._learn(stage, rest, trial):
                yield replace(step, part=f"held-out items: {step.part}")
            observed = list(reached(outcomes(other.lifecycle, other.encoder, lives, self.device)))
            if not observed:
                return
            found = HeldOut.of(observed, self.probabilities.calibrate, epochs)
            tried[epochs] = self.processes.mean(found.loss)  # so that all of them choose the same
            if best is None or tried[epochs] < tried[best.epochs]:
                best, worse = found, 0
                continue
            worse += 1
            if worse == 2 or self.processes.mean(found.is_clearly_worse_than(best)):
                break
        assert best is not None
        self.held_out = replace(best, tried=tried)
        self.fitted_calibration = best.calibration

    @property
    def _keeps_trained_ids(self) -> bool:
        """Whether old items keep their pre-trained ids, because the network has not changed since.

        Otherwise they start from generated states and are adapted on their latest events.
        """
        return not self.meta.epochs or self.meta.trained_part != "all"

    def _after_pretraining(self) -> None:
        """Hook of a method between pre-training and meta-learning."""

    def _train_second_stage(
        self, stage: str, old: TrainingData, item_features: Values, residuals: nn.Embedding, selection: ModelSelection
    ) -> Iterator[Step]:
        """Train a method's extra modules on the old items' events, if not in episodes."""
        yield from ()

    def _old_item_state(
        self, residuals: nn.Embedding, item_features: Values, counts: Sequence[float]
    ) -> dict[str, Tensor]:
        """States of the old items after training; `counts`: their numbers of events, each by its weight."""
        state = self.cold_state(item_features, len(residuals.weight))
        if self._keeps_trained_ids:
            with evaluating(self.network):
                initial_id_and_bias, moved = (
                    self.network.initial_id_and_bias(item_features, len(residuals.weight)),
                    residuals.weight,
                )
                ids = {
                    "id": initial_id_and_bias["id"] + moved[:, :-1],
                    "bias": initial_id_and_bias["bias"] + moved[:, -1:],
                }
            state |= {key: value.clone() for key, value in ids.items() if key in state}
        return state

    def _add(self, items: EntityTable) -> None:
        self._require_learned()
        for name in items.ids:
            if name in self.known:
                raise LearnerError(f"item '{name}' is known already; give its events to warm")
        item_features = self._on_device(self.encoder.items(items))
        self._register_finite(items.ids, item_features, self.cold_state(item_features, len(items)))

    def _warm(self, stage: str, log: ClickLog) -> Iterator[Step]:
        clicks = self._encode_events(log).by_row()
        for item, events in enumerate(torch.bincount(clicks.item).tolist()):
            self.counts[item] += events
        yield from self._adapt(stage, clicks)
        if self.lifecycle.keeps_events:
            self.past_events = concat_clicks([self.past_events, clicks]) if self.past_events else clicks

    def _calibrate(self, log: ClickLog) -> None:
        self._require_learned()
        self.encoder.require_labels(log)
        require_weights(log, self.schema)
        missing = [field.name for field in self.encoder.item_fields if field.name not in log.items.columns]
        if missing:
            raise DataError(
                f"table: the events have no item field '{missing[0]}'; read them with the fields of their items"
            )
        trained = set(list(self.known)[: len(self.entries[0].info["items"])])
        log = log.of_items(newest_items(log, trained))
        log = log.take(events_before(log) < KEPT)  # later ones are not looked at
        items, clicks = len(np.unique(log.item)), int(log.label.sum())
        if items < MIN_ITEMS or min(clicks, len(log) - clicks) < MIN_LABELS:
            raise LearnerError(
                f"{counted(items, 'item')} without training with {counted(clicks, 'click')} and "
                f"{counted(len(log) - clicks, 'other event')} are too few for a calibration; give {MIN_ITEMS} such items "
                f"with {MIN_LABELS} clicks and {MIN_LABELS} others"
            )
        observed = reached(outcomes(self.lifecycle, self.encoder, log, self.device))
        self.fitted_calibration = fit_calibration(observed, self.fitted_calibration)

    def _adapt(self, part: str, clicks: Clicks) -> Iterator[Step]:
        done, items_in_all = 0, int((torch.bincount(clicks.item) > 0).sum())
        names = list(self.known)
        past = self.past_events
        for items, state in self.lifecycle.warm_up(self.state, self.initial_state, self.item_features, clicks, past):
            require_finite_states([names[item] for item in items.tolist()], state)
            self._set_state(items, state)
            done += len(items)
            yield Step(part, done, items_in_all)

    def _create_network(self, encoder: Encoder) -> None:
        self.encoder = encoder
        item_sizes, row_sizes = encoder.item_sizes(), encoder.row_sizes()
        if self.sharded_from is not None:
            item_sizes, row_sizes = (
                self.regularization.sharded(sizes, fields, self.sharded_from)
                for sizes, fields in ((item_sizes, encoder.item_fields), (row_sizes, encoder.row_fields))
            )
        network = self._build(item_sizes, row_sizes)
        if self.adaptation.initial_scale is not None:
            network.add_scales(self.adaptation.initial_scale)
        self.network = network.to(self.device)

    def _register_finite(self, names: Sequence[str], item_features: Values, state: State) -> None:
        require_finite_states(names, state)
        self._register(names, item_features, state)

    def _register(self, names: Sequence[str], item_features: Values, state: State) -> None:
        """Append items and their states; ids of older stores are canonicalized."""
        pairs = zip(names, _canonical_ids(names), strict=True)
        names = [name if canonical in self.known else canonical for name, canonical in pairs]
        self.item_features = concat_values([self.item_features, item_features]) if self.known else item_features
        self.state = {key: torch.cat([self.state[key], value]) if self.known else value for key, value in state.items()}
        self.initial_state = {
            key: torch.cat([self.initial_state[key], value]) if self.known else value for key, value in state.items()
        }
        self.counts += [0] * len(names)
        self.known |= {name: len(self.known) + n for n, name in enumerate(names)}

    def _set_state(self, items: Tensor, state: State) -> None:
        for key, value in state.items():
            self.state[key] = self.state[key].index_copy(0, items, value)

    def _make_entry(self, stage: Stage[StageData, ClickLog]) -> Entry:
        """Tensors and facts of a stage: network, encodings, fields, states (old items); fields, states (new); states (events)."""
        match stage.train:
            case OldItems():
                names = list(self.known)
                network = {
                    f"network.{key}": value if isinstance(value, RowShard) else value.detach().clone()
                    for key, value in self.network.state_dict(keep_vars=True).items()
                }
                return Entry(
                    stage.name,
                    network | self._item_tensors(names, fields=True),
                    {
                        "items": names,
                        "codings": self.encoder.to_json(),
                        "counts": list(self.counts),
                        "calibration": self.fitted_calibration.to_json(),
                        **({"held_out": self.held_out.to_json()} if self.held_out else {}),
                    },
                )
            case NewItems(items):
                answers = {PLANTED: items.columns[PLANTED].texts()} if PLANTED in items.columns else {}
                return Entry(
                    stage.name, self._item_tensors(items.ids, fields=True), {"items": list(items.ids), **answers}
                )
            case NewEvents(log):
                names = [log.items.ids[item] for item in np.unique(log.item)]
                past_events = self._encode_events(log).by_row().tensors() if self.warmup_events == "all" else {}
                info = {"items": names, "events": len(log), "counts": _counts(log)}
                return Entry(stage.name, self._item_tensors(names, fields=False) | past_events, info)
            case CalibrationSet():
                return Entry(stage.name, {}, {"items": [], "calibration": self.fitted_calibration.to_json()})

    def _item_tensors(self, names: Sequence[str], fields: bool) -> dict[str, Tensor]:
        numbers = torch.tensor([self.known[name] for name in names], device=self.device)
        item_features = {f"own.{n}": values[numbers] for n, values in enumerate(self.item_features)} if fields else {}
        return item_features | {f"state.{key}": value[numbers] for key, value in self.state.items()}

    def _apply_entries(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._apply_entry(entry)

    def _apply_entry(self, entry: Entry) -> None:
        tensors = {key: value.to(self.device) for key, value in entry.tensors.items()}
        if "calibration" in entry.info:
            self.fitted_calibration = Calibration.from_json(entry.info["calibration"])
        if not entry.info["items"]:
            return
        if "codings" in entry.info:
            encoder = Encoder.from_json(self.schema, entry.info["codings"], self.regularization.user_history)
            if not shards_of(entry.tensors):  # as of a store, which has whole tables
                self.sharded_from = None
            self._create_network(encoder)
            self.network.load_state_dict(without_prefix("network.", tensors))
        names, state = entry.info["items"], without_prefix("state.", tensors)
        if "events" not in entry.info:
            item_features = without_prefix("own.", tensors)
            self._register(names, within_bounds([item_features[str(n)] for n in range(len(item_features))]), state)
            self.counts[-len(names) :] = entry.info.get("counts", [0] * len(names))
            return
        names = [
            name if name in self.known else canonical
            for name, canonical in zip(names, _canonical_ids(names), strict=True)
        ]
        for name, count in zip(names, entry.info["counts"], strict=True):
            self.counts[self.known[name]] += count
        self._set_state(torch.tensor([self.known[name] for name in names], device=self.device), state)
        if self.warmup_events == "all":
            clicks = Clicks.from_tensors(tensors)
            clicks = replace(clicks, of_rows=within_bounds(clicks.of_rows))
            self.past_events = concat_clicks([self.past_events, clicks]) if self.past_events else clicks

    def _encode_events(self, log: ClickLog) -> Clicks:
        """Encoded events; `item` is the row among known items."""
        self._require_learned()
        numbers = np.array([self.known.get(name, -1) for name in log.items.ids])[log.item]
        if (numbers < 0).any():
            row = int((numbers < 0).argmax())
            raise LearnerError(
                f"item '{log.items.ids[log.item[row]]}' (row {log.row[row] + 1}) is not known; add it first"
            )
        return self.encoder.clicks(log, numbers).to(self.device)

    def _reset(self) -> None:
        self.known, self.item_features, self.state, self.initial_state, self.counts, self.past_events = (
            {},
            [],
            {},
            {},
            [],
            None,
        )
        self.fitted_calibration, self.held_out = Calibration(), None

    def _require_learned(self) -> None:
        if not self.known:
            raise LearnerError(f"{type(self).__name__} has learned nothing yet; call learn first")

    def _to_log(self, source: ClickLog | Source | pl.DataFrame, items: bool = True, labels: bool = True) -> ClickLog:
        if isinstance(source, ClickLog):
            return source
        files = isinstance(source, (str, Path)) or (
            isinstance(source, Sequence) and bool(source) and all(isinstance(part, (str, Path)) for part in source)
        )
        read: Callable[..., ClickLog] = read_log if files else log_from_frame
        return read(source, self.schema, items=items, labels=labels)

    def _on_device(self, values: Values) -> Values:
        return [value.to(self.device) for value in values]

    def _run_stage(self, name: str, train: StageData, progress: Progress | None = None) -> Self:
        require_own_process()
        for step in self.fit_stage(Stage(name, train, {})):
            if progress is not None:
                progress(step)
        return self

    def _depends_on(self) -> dict[str, Json]:
        return {"schema": self.schema.to_json()}

    @classmethod
    def _from_manifest(
        cls, depends_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]
    ) -> Self:
        schema = given.get("schema") or Schema.from_json(depends_on["schema"])
        return cls(schema, **settings)


def saved_calibration(folder: str | Path) -> Calibration:
    """The calibration of the click model in this folder: that of its last stage which has one."""
    found = [entry.info["calibration"] for entry in Store(folder).entries() if "calibration" in entry.info]
    return Calibration.from_json(found[-1]) if found else Calibration()


def _canonical_ids(names: Sequence[str]) -> list[str]:
    """Canonical ids (`data.canonical`); ids that would collide stay as they are."""
    canonical = canonical_names(pl.Series("item", names, dtype=pl.String), "items").to_list()
    times = Counter(canonical)
    return [name if new is None or times[new] > 1 else new for name, new in zip(names, canonical, strict=True)]


def _digest(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _counts(log: ClickLog) -> list[int]:
    """Number of events of each item that occurs."""
    counts: list[int] = np.unique(log.item, return_counts=True)[1].tolist()
    return counts
