"""Requests are traced by OpenTelemetry where a collector is named, and never otherwise."""

import logging
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from films import trained
from newcomer.server.app import create_app
from newcomer.server.configuration import ServeConfig
from newcomer.server.tracing import ENDPOINTS, trace_requests


def test_every_request_has_a_span_with_its_route(tmp_path: Path) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    app = create_app(ServeConfig(stores=(trained(tmp_path / "films"),)))
    trace_requests(app, provider)
    with TestClient(app) as client:
        client.get("/items")
        client.get("/items/nothing")
        client.get("/healthz")
        client.get("/metrics")
    spans = [span for span in memory.get_finished_spans() if span.kind.name == "SERVER"]
    assert [span.name for span in spans] == ["GET /items", "GET /items/{item_id:path}"]
    statuses = [
        span.attributes.get("http.status_code") or span.attributes["http.response.status_code"] for span in spans
    ]
    assert statuses == [200, 404]


def test_spans_go_to_the_collector_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
    monkeypatch.setenv(ENDPOINTS[1], "http://127.0.0.1:9")
    app = FastAPI()
    trace_requests(app)
    assert app._is_instrumented_by_opentelemetry  # type: ignore[attr-defined]


def test_without_a_collector_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    trace_requests(FastAPI())
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    trace_requests(FastAPI())


def test_without_the_extra_the_log_says_that_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        trace_requests(FastAPI())
    assert "pip install 'newcomer[otel]'" in caplog.text
