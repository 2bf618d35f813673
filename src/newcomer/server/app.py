"""The application: all routes of the stores that are served."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import torch
from fastapi import Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse

from newcomer.data.io.log_files import matching_files
from newcomer.server import problems
from newcomer.server.class_routes import ClassRoutes
from newcomer.server.classifiers import ServedClassifier
from newcomer.server.click_versions import ClickVersions
from newcomer.server.configuration import ServeConfig
from newcomer.server.event_log import FOLDER, EventLog
from newcomer.server.impressions import WaitingImpressions, counted_in_time
from newcomer.server.item_routes import ItemRoutes
from newcomer.server.job_routes import JobRoutes
from newcomer.server.logs import log_to_stderr
from newcomer.server.metrics import Metrics
from newcomer.server.middleware import BodyLimit, Observed
from newcomer.server.model_routes import ModelRoutes
from newcomer.server.models import ModelsFile
from newcomer.server.page.routes import Pages
from newcomer.server.request_ids import RequestIds
from newcomer.server.security import Guard, Role, read_tokens
from newcomer.server.stores import classifier_folders, click_model_folder
from newcomer.server.tracing import trace_requests
from newcomer.server.workers import end_with_parent

COLLECT_AFTER = 50_000
"""Objects made and not yet gone at which garbage is collected: what a request of many events makes is gone at its end."""


def create_app(config: ServeConfig) -> FastAPI:
    """The application for these stores: at most one click model, any number of classifiers.

    Raises StoreError for a folder that holds no model, SettingError for two click models or two classifiers of one name.
    """
    tokens = read_tokens(config.token_file)
    config.require_safe(tokens is not None)
    guard = Guard(tokens, config.limits.rate)
    metrics, models = Metrics(), ModelsFile(config.own_folder)
    items, classifiers = open_items(config, models), open_classifiers(config, models)
    log = EventLog(config.own_folder / FOLDER)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if items is None:
            yield
            return
        with counted_in_time(items, config.own_folder, config.impression_window):
            yield
        items.close()
        log.close()

    app = FastAPI(
        title="newcomer",
        version=version("newcomer"),
        description="New items and new classes in service.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts of other sites
        redoc_url=None,
    )
    trace_requests(app)
    problems.install(app)
    app.add_middleware(BodyLimit, most=config.limits.body)
    app.add_middleware(Observed, metrics=metrics)
    item_routes, class_routes = None, None
    if items is not None:
        ids = RequestIds.in_folder(config.own_folder)
        window = config.impression_window
        waiting = (
            None
            if window is None
            else WaitingImpressions(config.own_folder, window, items.current().live.learner.schema)
        )
        item_routes = ItemRoutes(
            items, log, ids, guard, metrics, config.clicked, config.log, config.limits.rows, waiting
        )
        app.include_router(item_routes.router)
    if classifiers:
        class_routes = ClassRoutes(classifiers, guard, metrics, config.limits.inputs)
        app.include_router(class_routes.router)
    app.include_router(ModelRoutes(models, items, classifiers, guard).router)
    job_routes = JobRoutes(config, models, items is not None, classifiers, guard)
    app.include_router(job_routes.router)
    app.include_router(Pages(item_routes, class_routes, job_routes, guard, metrics).router)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["service"])
    def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["service"])
    def ready() -> dict[str, str]:
        """Whether models and database can be used."""
        if items is not None:
            live = items.latest().live
            live.states.imported_stages(live.model)
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


def app_of_process(config: ServeConfig) -> FastAPI:
    """The application of this process, which lives no longer than that.

    Garbage collections visit modules and models no more, and come seldom: they would take a sixth of a worker's time.
    """
    app = create_app(config)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    return app


def app_from_environment() -> FastAPI:
    """The application of one of several worker processes; each computes in one thread a request."""
    end_with_parent()
    log_to_stderr()
    torch.set_num_threads(1)
    return app_of_process(ServeConfig.from_environment())


def check(config: ServeConfig) -> list[str]:
    """Names of the models, after opening each once: what a worker would refuse is refused before any starts."""
    config.require_safe(read_tokens(config.token_file) is not None)
    models = ModelsFile(config.own_folder)
    if click_model_folder(config) is not None and config.log:
        matching_files(config.log)
    open_classifiers(config, models)
    if (items := open_items(config, models)) is not None:
        items.close()
        RequestIds.in_folder(config.own_folder)
    return [folder.resolve().name for folder in config.stores]


def open_items(config: ServeConfig, models: ModelsFile) -> ClickVersions | None:
    """The versions of the click model among the stores."""
    folder = click_model_folder(config)
    return None if folder is None else ClickVersions(config, folder, models)


def open_classifiers(config: ServeConfig, models: ModelsFile) -> dict[str, ServedClassifier]:
    """The classifiers among the stores, by the name of their folder."""
    folders = classifier_folders(config)
    return {name: ServedClassifier(folder, models, config.backbone) for name, folder in folders.items()}
