"""What learners for new items share: they know items by their ids, add them, score them and warm them up."""

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from newcomer.data.canonical import names as canonical_names
from newcomer.data.click_log import Log, Table
from newcomer.data.datasets.simulated_clicks import PLANTED
from newcomer.data.io.chunked_log import LogFiles
from newcomer.data.io.log_reader import Source, items_from_frame, log_from_frame, read_log
from newcomer.data.schema import Field, Schema
from newcomer.errors import LearnerError
from newcomer.items.adaptation.rules import Adaptation
from newcomer.items.encoding.bounds import within_bounds
from newcomer.items.encoding.encoder import Clicks, Encoder, Values, joined, joined_clicks
from newcomer.items.inference import History, begun, scored, tuned
from newcomer.items.networks.graph_cache import Prepared
from newcomer.items.networks.item_network import ItemNetwork, State, chance, under
from newcomer.items.serving.finite_checks import require_numbers, require_sound
from newcomer.items.training.field_regularization import Reading
from newcomer.items.training.meta_learning import MetaLearning, meta_learn
from newcomer.items.training.model_selection import Best
from newcomer.items.training.pretraining import Pretraining, center, pretrain
from newcomer.items.training.training_data import Lessons, lessons
from newcomer.metrics.ranking import click_scores
from newcomer.nn.ctr.field_embeddings import FieldSize
from newcomer.settings import Json
from newcomer.shapes import Tensor
from newcomer.store.folder import Entry
from newcomer.streams.cold_start import Events, Lesson, NewItems, OldItems, Trial
from newcomer.streams.stage import Stage
from newcomer.training.fit import evaluating
from newcomer.training.forks import require_own_process
from newcomer.training.learner import Learner, Step
from newcomer.training.processes import pick_device

LATEST = 60
"""Events on which an old item's state is tuned where it is: as many as a new item's three phases have in the paper."""


class ItemLearner(Learner[Lesson, Log]):
    """A click model that meets new items: `learn` the old ones, `add` new ones, `score` requests, `warm` by events.

    Everything that is shared is learned from the old items, once: pre-training, then episodes. An item has a state of its own,
    which is written when it is added and is the only thing that events change. A subclass builds the network (`_build`).
    """

    network: ItemNetwork
    encoder: Encoder

    def __init__(
        self,
        schema: Schema,
        pretraining: Pretraining,
        meta: MetaLearning,
        adaptation: Adaptation,
        history: History,
        seed: int,
        device: str | None,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.reading = reading or Reading()
        self.reading.require(schema)
        self.schema, self.pretraining, self.meta, self.adaptation = schema, pretraining, meta, adaptation
        self.history, self.seed, self.device = history, seed, pick_device(device)
        self.known: dict[str, int] = {}
        """The number of each item that has a state."""
        self.own: Values = []
        """The fields of known items."""
        self.state: dict[str, Tensor] = {}
        self.begun: dict[str, Tensor] = {}
        """Their states where they began: as trained, or as written when they were added."""
        self.counts: list[int] = []
        """How many events of each item were learned from."""
        self.prepared = Prepared()
        self.past: Clicks | None = None
        """All events of warm phases so far, where the history is 'all'."""

    def learn(self, source: Log | LogFiles | Source | pl.DataFrame) -> Self:
        """Learn the old items' events: the first stage, and the only one that trains shared weights. Returns the learner.

        Of `LogFiles`, which may be larger than memory, a few pieces are read at a time.

        Raises DataError for events that the schema does not fit, LearnerError when it has learned before.
        """
        return self._go("old", OldItems(source if isinstance(source, LogFiles) else self._log(source)))

    def add(self, items: Table | pl.DataFrame) -> Self:
        """Know these items from now on, by their fields alone. Returns the learner.

        Raises LearnerError for an item that is known already, and before anything was learned.
        """
        table = items if isinstance(items, Table) else items_from_frame(items, self.schema)
        return self._go(f"add {len(self.entries)}", NewItems(table))

    def warm(self, events: Log | Source | pl.DataFrame) -> Self:
        """Tune the states of the items that these events are about, and touch nothing else. Returns the learner.

        Raises LearnerError for an item that was not added.
        """
        return self._go(f"warm {len(self.entries)}", Events(self._log(events, items=False)))

    def score(self, requests: Log | Source | pl.DataFrame) -> NDArray[np.float64]:
        """Click probabilities, one a row. Changes nothing; users and values never seen before are read as 'unseen'.

        Raises LearnerError for an item that was not added, and for a score that is no number.
        """
        require_own_process()
        log = self._log(requests, items=False, labels=False)
        clicks = self._clicks(log)
        scores = scored(self.network, self.state, self.own, clicks, self.prepared)
        require_numbers(scores, log)
        return scores

    @property
    def nodes(self) -> tuple[Field, ...]:
        """The fields that can interact, in the order of a graph's axes."""
        return self.reading.nodes(self.schema)

    def begin(self, own: Values, items: int) -> dict[str, Tensor]:
        """The states of so many items of which nothing is known but their fields."""
        return begun(self.network, own, items)

    @property
    def from_the_start(self) -> bool:
        """Whether `tuned` wants states as they began, and all events so far, rather than as they are, and the new events."""
        return self.history == "all" and self.adaptation.from_the_start

    def take_over(self, names: Sequence[str], own: Values, state: State, counts: Sequence[int]) -> None:
        """Know these items, in these states, after so many events: what a database says of them, in place of what is known here.

        No stage of a stream: a store of this learner knows nothing of it.
        """
        new = [n for n, name in enumerate(names) if name not in self.known]
        mine = [values[new] for values in own]
        if new:
            self._take_up([names[n] for n in new], mine, self.begin(mine, len(new)))
        numbers = [self.known[name] for name in names]
        self._change(torch.tensor(numbers, device=self.device), state)
        for number, count in zip(numbers, counts, strict=True):
            self.counts[number] = count

    def tuned(self, state: State, own: Values, clicks: Clicks) -> Iterator[tuple[Tensor, State]]:
        """Batch by batch of the items that have events: their numbers, and their new states.

        `clicks.item` numbers the items of `state` and `own`. Changes nothing here.
        """
        yield from tuned(self.network, state, own, clicks, self.adaptation)

    def sit(self, exam: Log) -> dict[str, float]:
        """`auc`, `item_auc`, `logloss`, `calibration`, `f1`; see `metrics.ranking`."""
        return click_scores(exam.item, exam.label, self.score(exam), exam.user)

    @abstractmethod
    def _build(self, item_sizes: Sequence[FieldSize], row_sizes: Sequence[FieldSize]) -> ItemNetwork: ...

    def _study(self, stage: Stage[Lesson, Log]) -> Iterator[Step]:
        match stage.lesson:
            case OldItems(log, validation):
                yield from self._learn(stage.name, log, validation)
            case NewItems(items):
                self._add(items)
            case Events(log):
                self._require_learned()
                self.encoder.require_labels(log)
                yield from self._warm(stage.name, log)

    def _learn(self, stage: str, log: Log | LogFiles, trial: Trial | None) -> Iterator[Step]:
        if self.known:
            raise LearnerError(
                f"{type(self).__name__} has learned its old items; add the others, or build another learner"
            )
        old = lessons(log, self.device, self.reading.tastes)
        self.checkpoint.of = _digest([self.settings, self.schema.to_json(), old.seen])
        with chance(self.seed, stage, "weights"):
            self._open(old.encoder)
            residuals = nn.Embedding(len(old.items), self.network.width + 1, device=self.device)
            nn.init.normal_(residuals.weight, std=self.network.deviation)
            self.reading.lend(self.network, self.encoder, old)
        own = self._on_device(self.encoder.items(old.items))
        modules = nn.ModuleList([self.network, residuals])
        best = Best(modules, self.encoder, trial, self.adaptation, self.history, self.device)
        plan = replace(self.pretraining, drop=self.reading.shares(self.schema))
        yield from pretrain(self.network, residuals, own, old, plan, self.seed, stage, self.checkpoint, best)
        center(self.network, residuals)
        self._pretrained()
        yield from self._rehearse(stage, old, own, residuals, best)
        if self.meta.epochs:
            yield from meta_learn(
                self.network,
                own,
                old.histories(self.seed, stage),
                self.meta,
                self.adaptation,
                self.seed,
                stage,
                self.checkpoint,
                best,
            )
        best.restore()
        self._take_up(old.items.ids, own, self._trained(residuals, own, old.counts))
        self.counts = list(old.counts)
        if not self._ids_last:
            for clicks in old.latest(LATEST):
                yield from self._tune("old items", clicks)
            self.begun = dict(self.state)
        self.network.item_fields.fold()
        self.network.row_fields.fold()

    @property
    def _ids_last(self) -> bool:
        """Whether old items keep the ids of pre-training, because the network is as it was then.

        Otherwise they begin as new items do, and are tuned on their latest events.
        """
        return not self.meta.epochs or self.meta.trains != "all"

    def _pretrained(self) -> None:
        """What a method does between pre-training and meta-learning."""

    def _rehearse(self, stage: str, old: Lessons, own: Values, residuals: nn.Embedding, best: Best) -> Iterator[Step]:
        """How a method trains what it has beside the pre-trained network, if not in episodes."""
        yield from ()

    def _trained(self, residuals: nn.Embedding, own: Values, counts: Sequence[int]) -> dict[str, Tensor]:
        """The old items' states, after so many events each."""
        state = self.begin(own, len(residuals.weight))
        if self._ids_last:
            with evaluating(self.network):
                named, moved = self.network.named(own, len(residuals.weight)), residuals.weight
                ids = {"id": named["id"] + moved[:, :-1], "bias": named["bias"] + moved[:, -1:]}
            state |= {key: value.clone() for key, value in ids.items()}
        return state

    def _add(self, items: Table) -> None:
        self._require_learned()
        for name in items.ids:
            if name in self.known:
                raise LearnerError(f"item '{name}' is known already; give its events to warm")
        own = self._on_device(self.encoder.items(items))
        self._take_up(items.ids, own, self.begin(own, len(items)))

    def _warm(self, stage: str, log: Log) -> Iterator[Step]:
        clicks = self._clicks(log).by_row()
        for item, events in enumerate(torch.bincount(clicks.item).tolist()):
            self.counts[item] += events
        if self.history == "all":
            self.past = joined_clicks([self.past, clicks]) if self.past else clicks
            clicks = self.past.by_row(torch.isin(self.past.item, clicks.item).nonzero()[:, 0])
        yield from self._tune(stage, clicks)

    def _tune(self, part: str, clicks: Clicks) -> Iterator[Step]:
        done, items_in_all = 0, int((torch.bincount(clicks.item) > 0).sum())
        names = list(self.known)
        for items, state in self.tuned(self.begun if self.from_the_start else self.state, self.own, clicks):
            require_sound([names[item] for item in items.tolist()], state)
            self._change(items, state)
            done += len(items)
            yield Step(part, done, items_in_all)

    def _open(self, encoder: Encoder) -> None:
        self.encoder = encoder
        network = self._build(encoder.item_sizes(), encoder.row_sizes())
        if self.adaptation.scale is not None:
            network.learn_scales(self.adaptation.scale)
        self.network = network.to(self.device)

    def _take_up(self, names: Sequence[str], own: Values, state: State) -> None:
        require_sound(names, state)
        self._know(names, own, state)

    def _know(self, names: Sequence[str], own: Values, state: State) -> None:
        """Stores from before may hold ids otherwise spelled."""
        pairs = zip(names, _spelled(names), strict=True)
        names = [name if spelled in self.known else spelled for name, spelled in pairs]
        self.own = joined([self.own, own]) if self.known else own
        self.state = {key: torch.cat([self.state[key], value]) if self.known else value for key, value in state.items()}
        self.begun = {key: torch.cat([self.begun[key], value]) if self.known else value for key, value in state.items()}
        self.counts += [0] * len(names)
        self.known |= {name: len(self.known) + n for n, name in enumerate(names)}

    def _change(self, items: Tensor, state: State) -> None:
        for key, value in state.items():
            self.state[key] = self.state[key].index_copy(0, items, value)

    def _entry(self, stage: Stage[Lesson, Log]) -> Entry:
        """Old items: the network, the codings, the items' fields and states. New items: fields and states. Events: states."""
        match stage.lesson:
            case OldItems():
                names = list(self.known)
                network = {f"network.{key}": value.clone() for key, value in self.network.state_dict().items()}
                return Entry(
                    stage.name,
                    network | self._kept(names, fields=True),
                    {"items": names, "codings": self.encoder.to_json(), "counts": list(self.counts)},
                )
            case NewItems(items):
                answers = {PLANTED: items.columns[PLANTED].texts()} if PLANTED in items.columns else {}
                return Entry(stage.name, self._kept(items.ids, fields=True), {"items": list(items.ids), **answers})
            case Events(log):
                names = [log.items.ids[item] for item in np.unique(log.item)]
                past = self._clicks(log).by_row().tensors() if self.history == "all" else {}
                facts = {"items": names, "events": len(log), "counts": _counts(log)}
                return Entry(stage.name, self._kept(names, fields=False) | past, facts)

    def _kept(self, names: Sequence[str], fields: bool) -> dict[str, Tensor]:
        numbers = torch.tensor([self.known[name] for name in names], device=self.device)
        own = {f"own.{n}": values[numbers] for n, values in enumerate(self.own)} if fields else {}
        return own | {f"state.{key}": value[numbers] for key, value in self.state.items()}

    def _absorb(self, entry: Entry) -> None:
        tensors = {key: value.to(self.device) for key, value in entry.tensors.items()}
        if "codings" in entry.facts:
            self._open(Encoder.from_json(self.schema, entry.facts["codings"], self.reading.tastes))
            self.network.load_state_dict(under("network.", tensors))
        names, state = entry.facts["items"], under("state.", tensors)
        if "events" not in entry.facts:
            own = under("own.", tensors)
            self._know(names, within_bounds([own[str(n)] for n in range(len(own))]), state)
            self.counts[-len(names) :] = entry.facts.get("counts", [0] * len(names))
            return
        names = [name if name in self.known else spelled for name, spelled in zip(names, _spelled(names), strict=True)]
        for name, count in zip(names, entry.facts["counts"], strict=True):
            self.counts[self.known[name]] += count
        self._change(torch.tensor([self.known[name] for name in names], device=self.device), state)
        if self.history == "all":
            clicks = Clicks.from_tensors(tensors)
            clicks = replace(clicks, of_rows=within_bounds(clicks.of_rows))
            self.past = joined_clicks([self.past, clicks]) if self.past else clicks

    def _clicks(self, log: Log) -> Clicks:
        """Encoded events, their items numbered as known here."""
        self._require_learned()
        numbers = np.array([self.known.get(name, -1) for name in log.items.ids])[log.item]
        if (numbers < 0).any():
            row = int((numbers < 0).argmax())
            raise LearnerError(
                f"item '{log.items.ids[log.item[row]]}' (row {log.row[row] + 1}) is not known; add it first"
            )
        return self.encoder.clicks(log, numbers).to(self.device)

    def _clear(self) -> None:
        self.known, self.own, self.state, self.begun, self.counts, self.past = {}, [], {}, {}, [], None

    def _require_learned(self) -> None:
        if not self.known:
            raise LearnerError(f"{type(self).__name__} has learned nothing yet; call learn first")

    def _log(self, source: Log | Source | pl.DataFrame, items: bool = True, labels: bool = True) -> Log:
        if isinstance(source, Log):
            return source
        files = isinstance(source, (str, Path)) or (
            isinstance(source, Sequence) and bool(source) and all(isinstance(part, (str, Path)) for part in source)
        )
        read: Callable[..., Log] = read_log if files else log_from_frame
        return read(source, self.schema, items=items, labels=labels)

    def _on_device(self, values: Values) -> Values:
        return [value.to(self.device) for value in values]

    def _go(self, name: str, lesson: Lesson) -> Self:
        require_own_process()
        for _ in self.study(Stage(name, lesson, {})):
            pass
        return self

    def _stands_on(self) -> dict[str, Json]:
        return {"schema": self.schema.to_json()}

    @classmethod
    def _rebuild(cls, stands_on: Mapping[str, Json], settings: Mapping[str, Json], given: Mapping[str, Any]) -> Self:
        schema = given.get("schema") or Schema.from_json(stands_on["schema"])
        return cls(schema, **settings)


def _spelled(names: Sequence[str]) -> list[str]:
    """These ids as `data.canonical` spells them, but for those that would be the same then."""
    spelled = canonical_names(pl.Series("item", names, dtype=pl.String), "items").to_list()
    times = Counter(spelled)
    return [name if new is None or times[new] > 1 else new for name, new in zip(names, spelled, strict=True)]


def _digest(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _counts(log: Log) -> list[int]:
    """How many events each item has that occurs."""
    counts: list[int] = np.unique(log.item, return_counts=True)[1].tolist()
    return counts
