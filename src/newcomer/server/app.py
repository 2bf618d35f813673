"""The application: all routes of the stores that are served."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from fastapi import Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse

from newcomer.errors import SettingError
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.service import ItemService
from newcomer.registry import find_learner
from newcomer.server import problems
from newcomer.server.class_routes import ClassRoutes
from newcomer.server.classifiers import ServedClassifier
from newcomer.server.configuration import ServeConfig
from newcomer.server.item_routes import ItemRoutes
from newcomer.server.metrics import Metrics
from newcomer.server.middleware import BodyLimit, Observed, log_to_stderr
from newcomer.server.page.routes import Pages
from newcomer.server.request_ids import RequestIds
from newcomer.server.security import Guard, Role, read_tokens
from newcomer.store.folder import Store

MAX_AGE = 0.5
"""Seconds for which a worker scores with a state that another worker may have changed."""


def create_app(config: ServeConfig) -> FastAPI:
    """The application for these stores: at most one click model, any number of classifiers.

    Raises StoreError for a folder that holds no model, SettingError for two click models or two classifiers of one name.
    """
    config.require_safe()
    guard = Guard(read_tokens(config.token_file) if config.token_file else None, config.limits.rate)
    metrics, items, classifiers = Metrics(), open_items(config), open_classifiers(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if items is not None:
            items.close()

    app = FastAPI(
        title="newcomer",
        version=version("newcomer"),
        description="New items and new classes in service.",
        lifespan=lifespan,
    )
    problems.install(app)
    app.add_middleware(BodyLimit, most=config.limits.body)
    app.add_middleware(Observed, metrics=metrics)
    item_routes, class_routes = None, None
    if items is not None:
        ids = RequestIds.in_folder(config.own_folder)
        item_routes = ItemRoutes(items, ids, guard, metrics, config.clicked, config.limits.rows)
        app.include_router(item_routes.router)
    if classifiers:
        class_routes = ClassRoutes(classifiers, guard, metrics, config.limits.inputs)
        app.include_router(class_routes.router)
    app.include_router(Pages(item_routes, class_routes, guard, metrics).router)

    @app.get("/healthz", tags=["service"])
    def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    def ready() -> dict[str, str]:
        """Whether models and database can be used."""
        if items is not None:
            items.states.imported_stages(items.model)
        return {"status": "ready"}

    @app.get(
        "/metrics",
        tags=["service"],
        dependencies=[Depends(guard.requires(Role.READ))],
        response_class=PlainTextResponse,
    )
    def exposition() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def app_from_environment() -> FastAPI:
    """The application of one of several worker processes; each computes in one thread a request."""
    log_to_stderr()
    torch.set_num_threads(1)
    return create_app(ServeConfig.from_environment())


def check(config: ServeConfig) -> list[str]:
    """Names of the models, after opening each once: what a worker would refuse is refused before any starts."""
    config.require_safe()
    if config.token_file:
        read_tokens(config.token_file)
    open_classifiers(config)
    if (items := open_items(config)) is not None:
        items.close()
        RequestIds.in_folder(config.own_folder)
    return [folder.resolve().name for folder in config.stores]


def open_items(config: ServeConfig) -> ItemService | None:
    """The click model among the stores."""
    folders = [folder for folder in config.stores if _is_click_model(folder)]
    if len(folders) > 1:
        raise SettingError(f"{folders[1]}: the second click model; serve one click model a service")
    if not folders:
        if config.states is not None:
            raise SettingError("--states: no click model is served; leave it out")
        return None
    service = ItemService.open(folders[0], config.states)
    service.max_age = MAX_AGE
    service.headers()  # imports the trained items
    return service


def open_classifiers(config: ServeConfig) -> dict[str, ServedClassifier]:
    """The classifiers among the stores, by the name of their folder."""
    found: dict[str, ServedClassifier] = {}
    for folder in config.stores:
        if _is_click_model(folder):
            continue
        served = ServedClassifier(folder, config.backbone)
        if served.name in found:
            raise SettingError(f"{folder}: the second classifier called '{served.name}'; rename its folder")
        found[served.name] = served
    return found


def _is_click_model(folder: Path) -> bool:
    return issubclass(find_learner(Store(folder).manifest().learner), ItemLearner)
