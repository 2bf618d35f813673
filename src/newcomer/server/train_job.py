"""Jobs that make a version of the click model: `train`, on its log and the service's own events; `calibrate`; and `replay`."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from newcomer.data.io.chunked_log import open_log
from newcomer.data.io.log_reader import log_from_frame
from newcomer.data.schema import Schema
from newcomer.errors import LearnerError, SettingError
from newcomer.items.learner import ItemLearner, saved_calibration
from newcomer.items.serving.service import fingerprint
from newcomer.registry import find_learner
from newcomer.server.click_versions import states_url, version_folder
from newcomer.server.configuration import ServeConfig
from newcomer.server.evaluation import compare, progressive_scores
from newcomer.server.event_log import FOLDER, LogReader, Record
from newcomer.server.event_rows import event_id_column
from newcomer.server.history import History, HistoryReader, name_in, name_of
from newcomer.server.job_bodies import Job
from newcomer.server.jobs import Jobs
from newcomer.server.logged_events import NUMBER, event_table, item_table
from newcomer.server.models import VERSIONS, ModelsFile, Version
from newcomer.server.preparation import EVENTS, first_items, prepare
from newcomer.server.stores import click_model_folder
from newcomer.server.user_erasure import erase_from_table, of_forgotten
from newcomer.settings import Json, fill
from newcomer.store.folder import Store
from newcomer.store.states import now
from newcomer.store.urls import open_states
from newcomer.store.writing import to_json, write_whole
from newcomer.streams.cold_start import OldItems
from newcomer.streams.stage import Stage
from newcomer.training.learner import MACHINE_SETTINGS, Step

EVALUATION = "evaluation.json"
"""File of a version's folder: how it was compared with the version that was live."""

KEPT_CALIBRATIONS = 5
"""Latest versions with the same weights that are kept."""

Report = Callable[[Step], None]


def new_settings(folder: Path, settings: Mapping[str, Json]) -> dict[str, Json]:
    """Settings of the model in this folder, with changes. Raises SettingError for one that its learner does not have."""
    manifest = Store(folder).manifest()
    saved = {key: value for key, value in manifest.settings.items() if key not in MACHINE_SETTINGS}
    return fill(find_learner(manifest.learner), {**saved, **settings}, "settings", provided=manifest.depends_on)


def make_version(config: ServeConfig, jobs: Jobs, job: Job, report: Report) -> dict[str, Json]:
    """Make a version, compare it with the live one, and make it live if it is not worse; once, however often it is started.

    If training gives weights that are there already, or calibrating what the live version has, nothing changes, and the result
    says so.
    """
    models, first, request = ModelsFile(config.own_folder), _click_model(config), jobs.request(job)
    name = next((name for name, one in _versions(models).items() if one.job == job.id), None)
    if name is None:  # was not cut off after that
        name = _NewVersion(config, first, models, jobs.work_folder(job), report).run(job, request)
    version = _versions(models)[name]
    if version.job != job.id:
        reason = f"training gave the weights of version '{name}' again: data and settings are the same"
        if job.kind == "calibrate":
            reason = f"version '{name}' has this calibration already: the events are the same"
        return {"version": name, "model": version.model, "promoted": False, "reason": reason}
    _erase_forgotten(config, first, name)
    result = json.loads((config.own_folder / VERSIONS / name / EVALUATION).read_bytes())
    promote = request["promote"] == "always" or (request["promote"] == "if_better" and result["is_better"])
    if (promote or request["promote"] == "never") and _versions(models)[name].status != "ready":
        prepare(config, first, models, name, report, live=promote)
    if job.kind == "calibrate":
        _remove_superseded(config, models, name, result["compared_with"])
    return {"version": name, "model": version.model, "promoted": promote, **result}


def make_ready(config: ServeConfig, name: str, report: Report) -> dict[str, Json]:
    """Replay to a version what it missed."""
    models = ModelsFile(config.own_folder)
    if name not in _versions(models):
        raise SettingError(f"version '{name}' is not there any more: a later calibration has replaced it")
    if _versions(models)[name].status != "ready":
        prepare(config, _click_model(config), models, name, report, live=False)
    return {"version": name}


MOST_CONFLICTS = 0.99
"""Share of events that may say something else of their user than the latest of the user does, in a calibration."""


@dataclass(frozen=True)
class _NewVersion:
    """One making of a version."""

    config: ServeConfig
    first: Path
    models: ModelsFile
    work: Path
    report: Report

    def run(self, job: Job, request: Mapping[str, Json]) -> str:
        """Train or calibrate, and evaluate; returns the name of the new version, or of one that training gave before."""
        self.report(Step("event log", 0, 1))
        live_name = _live(self.models)
        live_folder = version_folder(self.config, self.first, live_name)
        live = find_learner(Store(live_folder).manifest().learner).load(live_folder)
        assert isinstance(live, ItemLearner)  # see stores
        reader = HistoryReader(live.schema, first_items(self.first))
        history = reader.read(self._records(live.schema))
        events = event_table(history, live.encoder)
        held_out = math.ceil(request["eval_share"] * len(events))
        folder, training = self.work / "model", events.head(len(events) - held_out)
        if job.kind == "calibrate":  # items that are not registered were trained on
            training = training.filter(pl.col(live.schema.item).is_in(sorted(history.registrations)))
        joined = self._joined(history, training, live)
        if job.kind == "calibrate":
            self._calibrate(type(live), joined, live_folder, folder)
            if saved_calibration(folder) == live.fitted_calibration:
                return live_name
        else:
            self._fit(type(live), live.schema, new_settings(live_folder, request["settings"]), joined, folder)
            model = fingerprint(folder)
            same = next((name for name, one in _versions(self.models).items() if one.model == model), None)
            if same is not None:
                return same
        eval_set = _not_trained_on(events.tail(held_out), live_folder, live.schema)
        compared = self._compare(live_folder, folder, history, eval_set, live.schema)
        old, new = compared["live"]["logloss"], compared["new"]["logloss"]
        few = compared["events"] < request["min_events"]
        result = {
            f"{'calibration' if job.kind == 'calibrate' else 'training'}_events": len(joined),
            "left_out_events": len(training) - len(joined),
            "compared_with": live_name,
            "evaluation": compared,
            "tolerance": request["tolerance"],
            "min_events": request["min_events"],
            "is_better": not few and old is not None and new <= old + request["tolerance"],
        }
        if few:
            result["reason"] = (
                f"{compared['events']} held-out events do not decide: min_events is {request['min_events']}"
            )
        write_whole(folder / EVALUATION, to_json(result, indent=1))
        return self._registered(folder, job)

    def _records(self, schema: Schema) -> list[Record]:
        """The event log without events of forgotten users, and without impressions that wait for a click: a version that has
        learned them as no click stays with that. Nor with the clicks that came on these, without which the latest events would
        nearly all be clicks."""
        waits = time.time_ns() - round(1e9 * (self.config.impression_window or 0))
        records = LogReader(self.config.own_folder / FOLDER).read()
        shown = {early: set[tuple[str | None, str | None]]() for early in (True, False)}
        for record in records:
            if record.kind == "impression":
                shown[record.at <= waits].add(_key(record, schema))
        wait = shown[False] - shown[True]
        settled = [
            record
            for record in records
            if record.kind not in ("event", "impression") or not wait or _key(record, schema) not in wait
        ]
        events = [record for record in settled if record.kind in ("event", "impression")]
        with closing(open_states(states_url(self.config, self.first))) as states:
            numbers = of_forgotten([record.content for record in events], schema, states)
        gone = {id(events[n]) for n in numbers}
        return [record for record in settled if id(record) not in gone]

    def _joined(self, history: History, events: pl.DataFrame, live: ItemLearner) -> pl.DataFrame:
        """Events with the fields of their items; without those of items whose fields are not known."""
        schema = live.schema
        items = item_table(history, live.encoder, self.config.log, set(events[schema.item]), live.from_initial_state)
        return events.drop(NUMBER).join(items, on=schema.item, how="inner", maintain_order="left")

    def _fit(
        self,
        kind: type[ItemLearner],
        schema: Schema,
        settings: Mapping[str, Json],
        events: pl.DataFrame,
        folder: Path,
    ) -> None:
        folder.mkdir()
        sources = list(self.config.log)
        if len(events):
            events.write_parquet(folder / EVENTS)
            sources.append(str(folder / EVENTS))
        model = kind(schema, **settings)
        for step in model.fit_stage(Stage("old", OldItems(open_log(sources, schema)), {})):
            self.report(step)
        model.save(folder)

    def _calibrate(self, kind: type[ItemLearner], events: pl.DataFrame, live_folder: Path, folder: Path) -> None:
        """Save the live version, calibrated on these events, with the table of those that it was trained on.

        A calibration by this job is taken back first: its events are among these, and would count again as its prior.
        """
        taken_back = live_folder != self.first and _is_calibrated_here(live_folder)
        stages = len(Store(live_folder).manifest().stages) - taken_back
        model = kind.load(live_folder, stages=stages)
        if not len(events):
            raise LearnerError(
                "there are no events of new items that have counted; register items, and send their events (those that wait, "
                "and clicks on them, count at the end of their window)"
            )
        # the events have counted, whatever their users said of themselves: the latest is what the user is now
        lenient = replace(model.schema, max_conflict_share=MOST_CONFLICTS)
        model.calibrate(replace(log_from_frame(events, lenient, where="events"), schema=model.schema))
        model.save(folder)
        if (live_folder / EVENTS).exists():
            shutil.copyfile(live_folder / EVENTS, folder / EVENTS)

    def _compare(
        self, live: Path, new: Path, history: History, eval_set: pl.DataFrame, schema: Schema
    ) -> dict[str, Json]:
        if not len(eval_set):
            nothing = pl.Series([], dtype=pl.Float64)
            return compare(nothing, nothing, nothing)
        before = History(history.deleted, history.registrations, history.events[: int(eval_set[NUMBER][0])])
        scores = list[pl.Series]()
        for name, folder in (("live", live), ("new", new)):
            self.report(Step(f"evaluation of {name}", len(scores), 2))
            scores.append(progressive_scores(folder, self.work / f"{name}.db", before, eval_set))
        negative_rate = Store(new).manifest().settings.get("negative_rate", 1.0)
        labels, threshold = eval_set[schema.label], schema.clicked_from
        clicks = labels if threshold is None else labels >= threshold
        weights = None if schema.weight is None else eval_set[schema.weight]
        return compare(clicks, scores[0], scores[1], negative_rate, weights)

    def _registered(self, folder: Path, job: Job) -> str:
        """Move the version to its place, under the next free name."""
        with self.models.change() as content:
            versions = content.require_click_model().versions
            name = f"v{1 + max(int(known[1:]) for known in versions)}"
            place = self.config.own_folder / VERSIONS / name
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)  # was moved, but killed before it was registered
            folder.rename(place)
            versions[name] = Version(model=fingerprint(place), status="trained", created=now(), job=job.id)
        return name


def _is_calibrated_here(folder: Path) -> bool:
    """Whether the last stage of the version in this folder is a calibration by this service."""
    path = folder / EVALUATION
    return path.exists() and "calibration_events" in json.loads(path.read_bytes())


def _remove_superseded(config: ServeConfig, models: ModelsFile, name: str, before: str) -> None:
    """Remove earlier calibrations of the weights of version `name`: each has a copy of the whole store.

    The latest `KEPT_CALIBRATIONS` stay, the first version with these weights, the one `before`, and what is in use.
    """
    with models.change() as content:
        click_model = content.require_click_model()
        versions = click_model.versions
        same = [one for one, version in versions.items() if version.model == versions[name].model]
        in_use = {click_model.live, *click_model.shadow, *click_model.shares}
        kept = {same[0], before, *same[-KEPT_CALIBRATIONS:], *in_use}
        for one in same:
            if one not in kept:
                del versions[one]
        folders = [*(config.own_folder / VERSIONS).glob("v*")]  # those of a job that was killed here, too
        gone = [one for one in folders if one.name[1:].isdecimal() and one.name not in versions]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)


def _not_trained_on(events: pl.DataFrame, folder: Path, schema: Schema) -> pl.DataFrame:
    """The events that the version in this folder was not trained on."""
    if not (folder / EVENTS).exists() or not len(events):
        return events
    keys = [schema.item, event_id_column(schema)]
    return events.join(pl.read_parquet(folder / EVENTS, columns=keys), on=keys, how="anti", maintain_order="left")


def _key(record: Record, schema: Schema) -> tuple[str | None, str | None]:
    """Item and id of an event or impression; None for what is no id."""
    id = record.content.get(event_id_column(schema))
    return name_of(record, schema), name_in({schema.item: id}, schema)


def _erase_forgotten(config: ServeConfig, first: Path, name: str) -> None:
    """Erase events of users who were forgotten while this version was trained."""
    folder = version_folder(config, first, name)
    learner = find_learner(Store(folder).manifest().learner).load(folder)
    assert isinstance(learner, ItemLearner)  # see stores
    with closing(open_states(states_url(config, first))) as states:
        erase_from_table(folder / EVENTS, learner.schema, states)


def _click_model(config: ServeConfig) -> Path:
    folder = click_model_folder(config)
    if folder is None:
        raise SettingError("no click model is served any more")
    return folder


def _versions(models: ModelsFile) -> dict[str, Version]:
    click_model = models.read().click_model
    return {} if click_model is None else click_model.versions


def _live(models: ModelsFile) -> str:
    return models.read().require_click_model().live
