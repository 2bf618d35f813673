"""The job `learn`: the next stage of a classifier."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from newcomer.data.examples import Examples
from newcomer.data.io.image_decoding import read_image
from newcomer.errors import DataError, SettingError
from newcomer.registry import find_learner
from newcomer.server.job_bodies import Job
from newcomer.server.jobs import Jobs
from newcomer.settings import Json, fill
from newcomer.store.folder import Store
from newcomer.streams.stage import Stage
from newcomer.training.learner import Step

JOB = "job"
"""Key of a stage's information: the job that learned it."""


def learn(folder: Path, backbone: str | None, jobs: Jobs, job: Job, report: Callable[[Step], None]) -> dict[str, Json]:
    """Learn the job's examples in this store; once, however often the job is started.

    Inputs that cannot be read are left out, and named in the result. Raises DataError if none is left.
    """
    from newcomer.classes.learner import ClassLearner  # other jobs start faster without it

    request = jobs.request(job)
    with Store(folder).held():
        kind = find_learner(Store(folder).manifest().learner)
        settings: dict[str, Any] = dict(request["settings"]) | ({} if backbone is None else {"backbone": backbone})
        model = kind.load(folder, **settings)
        assert isinstance(model, ClassLearner)  # see app
        if any(entry.info.get(JOB) == job.id for entry in model.entries):  # saved, but killed before it was said
            return {"model": job.model, "stage": len(model.entries), "classes": list(model.classes)}
        examples, left_out = _examples(jobs, job, request["labels"], model.backbone.reads_images)
        for step in model.fit_stage(Stage(model.next_stage, examples, {})):
            report(step)
        info = model.entries[-1].info
        model.entries[-1] = replace(model.entries[-1], info={**info, JOB: job.id})
        model.save(folder)
    return {
        "model": job.model,
        "stage": len(model.entries),
        "classes": list(model.classes),
        "examples": len(examples),
        "left_out": left_out,
        "held_out_accuracy": info.get("held-out accuracy"),
    }


def has_learned(folder: Path, job: Job) -> bool:
    """Whether the store has the stage of this job."""
    return any(entry.info.get(JOB) == job.id for entry in Store(folder).entries())


def require_settings(folder: Path, settings: Mapping[str, Json]) -> None:
    """Raises SettingError for settings that a classifier's learner does not have, or that it cannot have."""
    manifest = Store(folder).manifest()
    saved = {key: value for key, value in manifest.settings.items() if key not in settings}
    kind = find_learner(manifest.learner)
    fill(kind, {**saved, **settings}, "settings", provided=manifest.depends_on)
    for key in settings:
        if kind.fixed_settings is None or key in kind.fixed_settings:
            raise SettingError(f"settings.{key} cannot change after the first stage; train a new model")


def _examples(jobs: Jobs, job: Job, labels: list[str], images: bool) -> tuple[Examples, list[str]]:
    inputs: list[Any] = []
    names, left_out = list[str](), list[str]()
    for number, (content, label) in enumerate(zip(jobs.inputs(job), labels, strict=True), 1):
        try:
            inputs.append(_checked(content, f"example {number}", images))
            names.append(label)
        except DataError as error:
            left_out.append(str(error))
    if not inputs:
        raise DataError(f"{left_out[0]}; none of the {len(left_out)} examples can be read")
    return Examples(inputs, names), left_out


def _checked(content: bytes, where: str, image: bool) -> bytes | str:
    """The input, an image still encoded. Raises DataError for one that cannot be read."""
    if image:
        read_image(content, where)
        return content
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where} is not UTF-8; this model reads texts") from None
    if not text.strip():
        raise DataError(f"{where} is empty")
    return text
