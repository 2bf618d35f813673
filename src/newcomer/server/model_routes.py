"""Routes of versions: which are there, which score for whom, and back to an earlier one."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from fastapi import APIRouter, Depends

from newcomer.errors import StoreError
from newcomer.server.classifiers import ServedClassifier, find_classifier
from newcomer.server.click_versions import ClickVersions
from newcomer.server.json_route import JsonRoute
from newcomer.server.model_bodies import ClassifierInfo, ModelList, ModelsBody, VersionInfo
from newcomer.server.models import ClickModel, ModelsFile
from newcomer.server.problems import ProblemError
from newcomer.server.security import Guard, Role


class ModelRoutes:
    """Routes for the versions of the click model, if there is one, and of the classifiers."""

    def __init__(
        self,
        models: ModelsFile,
        versions: ClickVersions | None,
        classifiers: Mapping[str, ServedClassifier],
        guard: Guard,
    ) -> None:
        self.models, self.versions, self.classifiers = models, versions, classifiers
        self.router = APIRouter(tags=["models"], route_class=JsonRoute)
        read, admin = (Depends(guard.requires(role)) for role in (Role.READ, Role.ADMIN))
        self.router.add_api_route("/models", self.all, methods=["GET"], dependencies=[read])
        self.router.add_api_route("/models", self.change, methods=["POST"], dependencies=[admin])

    def all(self) -> ModelList:
        """Versions of the click model, and stages of the classifiers."""
        click_model = self.models.read().click_model
        classifiers = []
        for name, served in self.classifiers.items():
            stages = served.stages
            classifiers.append(ClassifierInfo(model=name, stages=stages, served=served.rolled_back or stages))
        return ModelList(
            versions=_infos(click_model) if click_model is not None and self.versions is not None else [],
            classifiers=classifiers,
        )

    def change(self, body: ModelsBody) -> ModelList:
        """Change which versions are served; all workers do so with their next answer."""
        if body.model is not None or "stages" in body.model_fields_set:
            self._roll_back(body)
        if body.live is not None or body.shares is not None or body.shadow is not None or body.retire:
            self._direct(body)
        return self.all()

    def _roll_back(self, body: ModelsBody) -> None:
        served = find_classifier(self.classifiers, body.model)
        if "stages" not in body.model_fields_set:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "give the number of stages to serve, or null for all")
        if body.stages is not None and body.stages > served.stages:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"model '{served.name}' has {served.stages} stages, not {body.stages}",
                [{"pointer": "/stages", "detail": f"give 1 to {served.stages}"}],
            )
        try:
            served.load(body.stages)  # what cannot be loaded is refused before anyone serves it
        except StoreError as error:  # such as a state that is no longer kept
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, str(error), [{"pointer": "/stages", "detail": "give another number"}]
            ) from None
        with self.models.change() as models:
            models.stages.pop(served.name, None)
            if body.stages is not None:
                models.stages[served.name] = body.stages
        served.refresh()

    def _direct(self, body: ModelsBody) -> None:
        """Change the traffic of the click model's versions, all of it or nothing."""
        if self.versions is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no click model is served")
        self.versions.latest()  # a version that cannot be opened is not ready any more
        with self.models.change() as models:
            apply(models.require_click_model(), body)
        self.versions.latest()


def apply(click_model: ClickModel, body: ModelsBody) -> None:
    """Change the traffic. Raises ProblemError for a version that is not there, or not ready, and for shares above 1."""
    named, live = [body.live] if body.live is not None else [], body.live or click_model.live
    _require_ready(click_model, [*named, *(body.shadow or []), *(body.shares or {})])
    if body.shadow is not None:
        click_model.shadow = list(dict.fromkeys(body.shadow))
    if body.shares is not None:
        if sum(body.shares.values()) > 1:
            detail = "the shares are more than 1 together"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, [{"pointer": "/shares", "detail": detail}])
        click_model.shares = dict(body.shares)
    for key, names in (("shares", body.shares or {}), ("shadow", body.shadow or [])):
        if live in names:
            detail = f"version '{live}' is live; give others"
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"/{key}: {detail}", [{"pointer": f"/{key}", "detail": detail}]
            )
    click_model.go_live(live)
    for name in body.retire:
        click_model.version(name)
        if name == click_model.live:
            raise ProblemError(HTTPStatus.CONFLICT, f"version '{name}' is live; make another one live first")
        click_model.retire(name)


def _require_ready(click_model: ClickModel, names: Iterable[str]) -> None:
    for name in names:
        status = click_model.version(name).status
        if status != "ready":
            raise ProblemError(
                HTTPStatus.CONFLICT,
                f"version '{name}' does not have all items and events ({status}); start the job 'replay' for it",
            )


def _infos(click_model: ClickModel) -> list[VersionInfo]:
    return [
        VersionInfo(
            name=name,
            live=name == click_model.live,
            shadow=name in click_model.shadow,
            share=click_model.shares.get(name, 0.0),
            **version.model_dump(),
        )
        for name, version in click_model.versions.items()
    ]
